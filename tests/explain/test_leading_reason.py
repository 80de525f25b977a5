"""Which finding a verdict opens with."""

from __future__ import annotations

from decider.contracts.features import FEATURES, INDEX
from explain.text.reason_codes import ReasonCode, pick_leading


def reason(name: str, effect: float) -> ReasonCode:
    return ReasonCode(name, f"{name}.", effect, FEATURES[INDEX[name]], 1.0, 0.0)


def test_behaviour_leads_over_who_the_app_is() -> None:
    assert pick_leading([reason("tier", 0.3), reason("rate_10s", 0.1)]).code == "rate_10s"


def test_a_faint_finding_about_behaviour_does_not_lead() -> None:
    assert (
        pick_leading([reason("abuse_history", 0.5), reason("rate_10s", 0.05)]).code
        == "abuse_history"
    )


def test_without_any_finding_about_behaviour_the_strongest_leads() -> None:
    assert pick_leading([reason("tier", 0.2), reason("cohort_prior", 0.1)]).code == "tier"
