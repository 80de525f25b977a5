"""Every machine reason has words of its own."""

from __future__ import annotations

from decider.contracts.vocabulary import REASONS, Reason
from decisions.models import Decision
from decisions.reason_text import BRIEF, brief, clause
from tests.decisions.factory import signal_vector


def test_every_reason_is_described_and_has_a_few_words_for_a_table() -> None:
    given = set(Reason) - {Reason.NONE}
    assert given <= set(REASONS)
    assert given == set(BRIEF)


def test_the_few_words_fit_a_cell_and_differ() -> None:
    assert len(set(BRIEF.values())) == len(BRIEF)
    assert all(0 < len(text) <= 30 and text[0].isupper() for text in BRIEF.values())


def decided(reason: Reason, **signals: float) -> Decision:
    return Decision(action=1, reason=reason, service="search", signals=signal_vector(**signals))


def test_an_overload_and_a_share_are_told_with_their_figures() -> None:
    overloaded = decided(Reason.SERVICE_OVERLOADED, service_utilisation=1.24, service_price=0.5)
    assert brief(overloaded) == "search at 124% load, price 0.50"
    over = decided(Reason.TENANT_OVER_SHARE, tenant_usage=30.0, tenant_fair_share=20.0)
    assert brief(over) == "Tenant at 1.5 × its share"
    assert brief(decided(Reason.TENANT_OVER_SHARE)) == BRIEF[Reason.TENANT_OVER_SHARE]
    none = decided(Reason.TENANT_OVER_SHARE, tenant_usage=0.4, tenant_fair_share=0.0)
    assert clause(none).startswith(
        "higher tiers left no room on search, so its tenant's fair share"
    )


def test_another_reason_is_told_without_the_figures_of_these_two() -> None:
    calm = decided(Reason.RISK_HIGH, service_utilisation=1.24, tenant_fair_share=20.0)
    assert brief(calm) == BRIEF[Reason.RISK_HIGH]


def test_signals_of_another_layout_are_told_without_figures() -> None:
    assert (
        brief(Decision(action=3, reason=Reason.SERVICE_OVERLOADED, signals=b""))
        == "Service overloaded"
    )
