"""Which finding a verdict opens with."""

from __future__ import annotations

from dataclasses import replace

from decider.contracts.features import FEATURES, INDEX
from explain.text.reason_codes import ReasonCode, write_because


def reason(name: str, effect: float) -> ReasonCode:
    return ReasonCode(name, f"By {name}.", effect, FEATURES[INDEX[name]], 2.0, None)


def test_the_strongest_leads_and_behaviour_is_said_to_add() -> None:
    assert write_because([reason("app_age", 0.3), reason("rate_10s", 0.1)]) == (
        "most of all because by app_age; its behaviour added: by rate_10s"
    )


def test_since_when_an_app_is_known_is_no_behaviour() -> None:
    found = [reason("abuse_history", 0.5), reason("seconds_since_first", 0.4)]
    assert write_because(found) == "because by abuse_history"
    added = "most of all because by seconds_since_first; its behaviour added: by rate_10s"
    assert write_because([reason("seconds_since_first", 0.5), reason("rate_10s", 0.4)]) == added


def test_a_faint_finding_about_behaviour_is_not_added() -> None:
    found = [reason("abuse_history", 0.5), reason("rate_10s", 0.05)]
    assert write_because(found) == "because by abuse_history"


def test_behaviour_that_is_strongest_stands_alone() -> None:
    found = [reason("rate_10s", 0.3), reason("cohort_prior", 0.2)]
    assert write_because(found) == "because by rate_10s"


def test_every_feature_that_tells_a_reason_is_named() -> None:
    """Alone, the first is not why: what is named adds up to what is claimed."""
    sources, ids = reason("distinct_sources_60s", 0.15), reason("distinct_tokens_60s", 0.1)
    two = replace(reason("sign_in_share_600s", 0.3), others=(sources,), typical=0.5)
    assert write_because([two, reason("rate_10s", 0.2)]) == (
        "because by sign_in_share_600s, usual in training 50%, and by distinct_sources_60s"
    )
    three = replace(two, others=(sources, ids))
    assert write_because([three]).endswith("; by distinct_sources_60s; and by distinct_tokens_60s")


def test_what_nobody_expects_to_count_against_an_app_is_nothing_to_act_on() -> None:
    slow = replace(reason("rate_60s", 0.2), unexpected=True)
    assert write_because([reason("abuse_history", 0.5), slow]) == "because by abuse_history"
    assert "by rate_10s" in write_because(
        [reason("abuse_history", 0.5), slow, reason("rate_10s", 0.2)]
    )


def test_a_second_reason_that_weighs_nearly_as_much_is_named_too() -> None:
    found = [reason("rate_10s", 0.20), reason("cohort_prior", 0.19)]
    assert write_because(found) == "because by rate_10s; nearly as much because by cohort_prior"
    found = [reason("rate_10s", 0.20), reason("cohort_prior", 0.20)]
    assert write_because(found) == "because by rate_10s; as much because by cohort_prior"
    assert "; " not in write_because([reason("rate_10s", 0.20), reason("cohort_prior", 0.17)])


def test_a_usual_value_that_weighs_more_is_named_in_the_headline() -> None:
    found = [reason("app_age", 0.17), reason("rate_10s", 0.10)]
    told = write_because(found, [("Tier", 0.20), ("Hour of the week", 0.18)])
    assert told == (
        "because by app_age; its behaviour added: by rate_10s; “Hour of the week”, at a usual"
        " value, raised its risk more than that"
    )
    # where an app of its tier starts is no reason
    assert write_because(found, [("Tier", 0.20)]) == write_because(found)
    told = write_because([reason("rate_10s", 0.17)], [("Hour of the week", 0.17)])
    assert told == (
        "because by rate_10s; “Hour of the week”, at a usual value, raised its risk as much as that"
    )
    assert write_because(found, [("Tier", 0.16)]).startswith("most of all because by app_age; its")


def test_one_fact_over_two_spans_does_not_count_as_two_findings() -> None:
    writes = replace(reason("write_share_60s", 0.3), others=(reason("write_share_600s", 0.2),))
    assert (
        write_because([writes])
        == "because by write_share_60s; the same over ten minutes adds to it"
    )
