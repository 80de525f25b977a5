"""Reason codes on the page: one for each cause, with the value, the cohort's median and what else
belongs to it.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts.artifact import Calibration
from decider.contracts.features import FEATURES, INDEX, N_FEATURES
from explain.shap import waterfall
from explain.text import reason_codes

SAME = Calibration(1.0, 0.0)


def fall(
    typical: list[float] | None = None, value: float = 3.0, **some: float
) -> waterfall.Waterfall:
    contributions = np.zeros(N_FEATURES)
    for name, contribution in some.items():
        contributions[INDEX[name]] = contribution
    return waterfall.build_waterfall(
        -1.0, contributions, np.full(N_FEATURES, value, np.float32), typical, SAME
    )


def test_one_burst_is_one_reason_that_names_what_belongs_to_it() -> None:
    found = reason_codes.rank_reasons(
        fall(rate_1s=0.5, rate_10s=0.9, burst_ratio=0.4, cost_rate_60s=0.2, not_found_share_60s=0.6)
    )
    assert [r.feature.name for r in found] == ["rate_10s", "not_found_share_60s"]
    assert [one.feature.name for one in found[0].others] == ["rate_1s", "burst_ratio"]
    assert "3 requests in the last second" in found[0].text
    assert found[0].effect > found[1].effect > 0


def test_a_reason_shows_the_value_and_the_median_of_its_cohort() -> None:
    (found,) = reason_codes.rank_reasons(fall([1.5] * N_FEATURES, rate_10s=1.0))
    assert (found.shown_value, found.shown_typical) == ("3", "1.5")
    assert found.code == "PACE_10S_HIGH"
    assert "3 requests a second" in found.text and "1.5" in found.text


def test_without_a_median_it_says_so_and_makes_no_comparison() -> None:
    (found,) = reason_codes.rank_reasons(fall(rate_10s=1.0))
    assert found.shown_typical == "not known"
    assert "sual in training" not in found.text


@pytest.mark.parametrize(
    ("name", "typical", "says"),
    [
        ("rate_10s", 1.0, "3 times what was usual in training"),
        ("rate_10s", 1.2, "2.5 times what was usual in training"),
        ("rate_10s", 0.4641, "6.5 times what was usual in training"),
        ("cost_rate_60s", 1.0, "3 times what was usual in training"),
        ("distinct_paths_60s", 1.0, "3 times what was usual in training"),
        ("gap_cv", 1.0, "usual in training 1"),  # a ratio has no multiple
        ("app_age", 1.0, ""),
        ("rate_10s", 2.2, "usual in training 2.2"),  # "1.4 times" would sound like more than it is
        ("cost_rate_60s", 5.0, "usual in training 5"),  # too little
        ("rate_10s", 0.0, ""),
    ],
)
def test_a_clause_gives_a_multiple_of_the_usual_only_where_that_is_fair(
    name: str, typical: float, says: str
) -> None:
    (found,) = reason_codes.rank_reasons(fall([typical] * N_FEATURES, **{name: 1.0}))
    clause = reason_codes.write_clause(found)
    assert says in clause
    assert ("times" in clause) == ("times" in says)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_no_two_causes_are_told_in_the_same_words(direction: float) -> None:
    texts = {}
    for feature in FEATURES:
        (found,) = reason_codes.rank_reasons(
            fall([float(direction < 0)] * N_FEATURES, float(direction > 0), **{feature.name: 1.0})
        )
        texts.setdefault(found.text, set()).add(feature.cause)
    assert len(texts) == len(FEATURES)


@settings(max_examples=100)
@given(contributions=st.lists(st.floats(-2, 2), min_size=N_FEATURES, max_size=N_FEATURES))
def test_reasons_are_at_most_four_adverse_and_strongest_first(contributions: list[float]) -> None:
    built = waterfall.build_waterfall(
        -1.0, np.array(contributions), np.ones(N_FEATURES, np.float32), None, SAME
    )
    found = reason_codes.rank_reasons(built)
    assert len(found) <= reason_codes.MOST
    assert len({r.feature.cause for r in found}) == len(found)
    effects = [r.effect for r in found]
    assert effects == sorted(effects, reverse=True)
    assert all(effect >= 0 for effect in effects)


def test_a_value_that_reads_like_the_median_is_no_reason() -> None:
    assert reason_codes.rank_reasons(fall([3.001] * N_FEATURES, rate_10s=1.0)) == []
    # by a fifth of it at least, or it is no reason to a reader: 3 beside 3.5
    assert reason_codes.rank_reasons(fall([3.5] * N_FEATURES, rate_10s=1.0)) == []
    assert reason_codes.rank_reasons(fall([3.9] * N_FEATURES, rate_10s=1.0))


def test_a_reason_does_not_say_fast_and_slow_at_once() -> None:
    usual = [1.0] * N_FEATURES
    built = fall(usual, 3.0, seconds_since_last=1.0, rate_60s=0.9, gap_cv=0.8)
    (found,) = reason_codes.rank_reasons(built)
    # long since the last request, so not many a second as well
    assert [one.feature.name for one in (found, *found.others)] == ["seconds_since_last", "gap_cv"]


def test_sign_ins_and_writes_are_one_reason() -> None:
    """Sign-ins are writes, so apart each would lead the other's list."""
    built = fall([0.0] * N_FEATURES, 0.8, sign_in_share_600s=1.0, write_share_600s=0.9)
    (found,) = reason_codes.rank_reasons(built)
    assert found.first == "80% of ten minutes' requests tried to sign in"
    assert [one.feature.name for one in found.others] == ["write_share_600s"]


def test_many_small_effects_of_one_cause_do_not_outweigh_a_strong_one() -> None:
    """A reader of the table of effects finds the strongest one named first."""
    names = ("rate_1s", "rate_10s", "rate_60s", "burst_ratio", "cost_rate_60s", "gap_cv")
    parts = dict.fromkeys(names, 0.15)
    sources, pace = reason_codes.rank_reasons(fall(**parts, distinct_sources_60s=0.5))
    assert (sources.feature.name, pace.feature.name) == ("distinct_sources_60s", "rate_1s")
    assert len(pace.others) == 2
    # what is named adds up to what is claimed
    assert pace.effect == pytest.approx(fall(rate_1s=0.45).effect(0.45), abs=0.011)


def test_what_hardly_adds_to_a_reason_is_not_told() -> None:
    (found,) = reason_codes.rank_reasons(fall(rate_1s=0.9, rate_10s=0.2))
    assert found.others == ()
    assert reason_codes.write_because([found]) == "because it sent 3 requests in the last second"


def test_a_reason_of_one_feature_has_the_effect_of_its_row() -> None:
    """The list and the waterfall say the same points of the same feature."""
    luck = np.random.default_rng(3)
    for _ in range(200):
        built = fall(**{f.name: float(luck.normal(0, 0.3)) for f in FEATURES})
        rows = {row.feature.name: row.effect for row in built.rows}
        for reason in reason_codes.rank_reasons(built):
            cause = [k for k, f in enumerate(FEATURES) if f.cause == reason.feature.cause]
            alone = not reason.others and all(built.contributions[k] >= 0 for k in cause)
            if alone and reason.feature.name in rows:
                assert reason.effect == rows[reason.feature.name]


def test_one_of_a_kind_is_written_in_the_singular() -> None:
    (found,) = reason_codes.rank_reasons(fall([0.0] * N_FEATURES, 1.0, abuse_history=1.0))
    assert found.text == "It has 1 confirmed abuse report. Usual in training: 0."


def test_what_is_usual_and_raises_the_risk_is_told_apart_from_the_reasons() -> None:
    built = fall([3.0] * N_FEATURES, tier=0.9, rate_10s=0.4, app_age=-0.5, verified=0.001)
    assert reason_codes.rank_reasons(built) == []
    assert [label for label, _ in reason_codes.list_usual(built)] == [
        "Tier",
        FEATURES[INDEX["rate_10s"]].label,
    ]
    effects = [effect for _, effect in reason_codes.list_usual(built)]
    assert effects == [built.effect(0.9), built.effect(0.4)]
    assert reason_codes.list_usual(fall(tier=0.9)) == []
    assert reason_codes.list_usual(fall([3.0] * N_FEATURES, math.nan, tier=0.9)) == []


def test_what_speaks_for_the_request_in_a_cause_lowers_its_effect() -> None:
    (found,) = reason_codes.rank_reasons(fall(rate_1s=0.9, rate_10s=0.4, rate_60s=-0.3))
    assert len(found.others) == 1
    assert found.effect == pytest.approx(fall(rate_1s=0.9, rate_10s=0.1).effect(1.0), abs=0.011)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("client_errors_60s", "1 answer in a minute was 4xx."),
        ("not_found_60s", "It asked for 1 thing a minute that does not exist."),
        ("refused_60s", "1 of its requests in a minute was refused and it went on."),
        ("retries_60s", "1 of its requests in a minute repeats one that was refused."),
        (
            "early_retries_60s",
            "1 of its requests in a minute was sent again before Retry-After had passed.",
        ),
        ("distinct_sources_60s", "It came from 1 IP address in two minutes."),
        ("distinct_endpoints_60s", "It called 1 endpoint, whatever the ids, in two minutes."),
        ("sign_ins_60s", "1 request in a minute tried to sign in."),
        ("rate_1s", "It sent 1 request in the last second."),
        ("unusual_answers_600s", "1 answer in ten minutes was unlike what these endpoints usually"),
    ],
)
def test_a_sentence_about_one_is_in_the_singular(name: str, says: str) -> None:
    (found,) = reason_codes.rank_reasons(fall([0.0] * N_FEATURES, 1.0, **{name: 1.0}))
    assert found.text.startswith(says)


@pytest.mark.parametrize(
    ("name", "value", "usual", "unexpected"),
    [
        ("rate_60s", 0.05, 0.14, True),
        ("seconds_since_last", 5.0, 1.0, True),
        ("rate_60s", 0.5, 0.14, False),
        ("seconds_since_last", 0.1, 1.0, False),
        ("distinct_paths_60s", 1.0, 3.0, False),
        ("cohort_prior", 0.05, 0.13, True),
        ("cohort_prior", 0.3, 0.13, False),
        ("app_age", 900.0, 200.0, True),
        ("app_age", 3.0, 200.0, False),
    ],
)
def test_a_sign_of_honesty_as_a_reason_is_said_to_count_against_the_app(
    name, value, usual, unexpected
) -> None:
    (found,) = reason_codes.rank_reasons(fall([usual] * N_FEATURES, value, **{name: 1.0}))
    assert ("The model counts that against it here." in found.text) == unexpected
    clause = reason_codes.write_clause(found)
    assert (", which the model counts against it here" in clause) == unexpected


@pytest.mark.parametrize(
    ("share", "count", "says"),
    [
        (0.44, 1.4, "44% (of about 3) of the last minute's answers"),
        (1.0, 0.6, "100% (of about 1) of the last minute's answers"),
        (0.44, 44.0, "44% of the last minute's answers"),
        (0.44, math.nan, "44% of the last minute's answers"),
    ],
)
def test_a_share_of_few_is_told_in_numbers_too(share: float, count: float, says: str) -> None:
    built = fall(payment_error_share_60s=1.0)
    values = [*built.values]
    values[INDEX["payment_error_share_60s"]] = share
    values[INDEX["payment_errors_60s"]] = count
    contributions = np.zeros(N_FEATURES)
    contributions[INDEX["payment_error_share_60s"]] = 1.0
    (found,) = reason_codes.rank_reasons(
        waterfall.build_waterfall(
            -1.0, contributions, np.array(values, np.float32), [0.0] * N_FEATURES, SAME
        )
    )
    assert found.text.startswith(says)
    assert found.shown_value == f"{share:.0%}"


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        # one of the two requests of ten minutes
        ("sign_in_share_600s", {"rate_600s": 2 / 600}, "50% (of about 2) of ten minutes' requests"),
        ("write_share_600s", {"rate_600s": 4 / 600}, "50% (of about 4) of ten minutes' requests"),
        ("write_share_60s", {"rate_60s": 6 / 60}, "50% (of about 6) of its requests"),
        ("sign_in_share_600s", {"rate_600s": 10 / 600}, "50% of ten minutes' requests"),
        (
            "auth_error_share_600s",
            {"client_error_share_600s": 1.0, "client_errors_600s": 2.0},
            "50% (of about 2) of ten minutes' answers",
        ),
        (
            "server_error_share_60s",
            {"not_found_share_60s": 0.25, "not_found_60s": 1.0},
            "50% (of about 4) of the last minute's answers",
        ),
        ("server_error_share_60s", {}, "50% of the last minute's answers"),
    ],
)
def test_every_share_of_few_is_told_in_numbers_too(name, known, says) -> None:
    values = np.zeros(N_FEATURES, np.float32)
    values[INDEX[name]] = 0.5
    for of, value in known.items():
        values[INDEX[of]] = value
    contributions = np.zeros(N_FEATURES)
    contributions[INDEX[name]] = 1.0
    (found,) = reason_codes.rank_reasons(
        waterfall.build_waterfall(-1.0, contributions, values, [0.0] * N_FEATURES, SAME)
    )
    assert found.text.startswith(says)


def a_reason(name: str, value: float, typical: float, effect: float) -> reason_codes.ReasonCode:
    feature = FEATURES[INDEX[name]]
    text = f"It has {value:g} of {name}."
    return reason_codes.ReasonCode(f"{name}_HIGH", text, effect, feature, value, typical)


def test_a_fact_that_weighs_as_much_as_the_first_is_named_before_the_behaviour() -> None:
    found = [
        a_reason("chargeback_history", 1.0, 0.0, 0.15),
        a_reason("cohort_prior", 0.2, 0.07, 0.15),
        a_reason("distinct_sources_60s", 4.0, 2.0, 0.13),
    ]
    told = reason_codes.write_because(found)
    assert "most of all" not in told
    assert re.search(
        r"^because it has 1 of chargeback_.*; as much because it has 0.2 of cohort_.*;"
        r" its behaviour added: it has 4 of distinct_",
        told,
    )
    found[1] = a_reason("cohort_prior", 0.2, 0.07, 0.1)
    mostly = reason_codes.write_because(found)
    assert mostly.startswith("most of all because it has 1 of chargeback_")
    assert "much because" not in mostly
