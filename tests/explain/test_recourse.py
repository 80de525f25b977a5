"""A way back to admit is real: decided again it is admitted, and only what an owner controls was
changed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from decider.contracts.event import Event
from decider.contracts.features import FEATURES
from decider.contracts.features import INDEX as F
from decider.contracts.signals import INDEX as S
from decider.contracts.vocabulary import Action, MlState, Reason
from decider.scoring.model import Model
from decider.whatif import replay
from decider.whatif.levers import BY_NAME, LEVERS
from explain.recourse import grid
from explain.recourse import search as recourse_search
from explain.recourse import text as recourse_text
from explain.recourse.ways import Recourse, Way
from learning.training import train
from tests.explain import world
from tests.learning import kept

NEVER = {f.name for f in FEATURES if f.source == "profile"} | {
    "hour_of_week",
    "service_utilisation",
    "service_latency_ratio",
    "service_error_share",
}
"""Features that no owner's doing moves: who the app is, what hour it is, how the service fares."""
NEVER_SEEN = {
    "tier",
    "ml_state",
    "observe_only",
    "list_verdict",
    "compliance",
    "quota_limit",
    "override_action",
    "override_multiplier",
    "bucket_rate",
    "bucket_burst",
    "service_utilisation",
    "tenant_fair_share",
    "prior_risk",
    "prior_value",
}


REFUSALS = 400


@pytest.fixture(scope="module")
def trained(small_training: train.Trained) -> Model:
    return Model.load(small_training.data)


@pytest.fixture(scope="module")
def refusals(small_training: train.Trained, kept_folder: Path) -> tuple[list[Event], dict]:
    found, documents = kept.refusals(kept_folder, small_training)
    return found[:REFUSALS], documents


@pytest.fixture(scope="module")
def ways(refusals, trained) -> list[tuple[Event, Recourse, int]]:
    """Each refusal with its ways back and with how many changed records were decided to find
    them.
    """
    counted = [0]

    class Counting(recourse_search._Case):
        def decide(self, x, s):
            counted[0] += len(x)
            return super().decide(x, s)

    def find(event: Event) -> tuple[Event, Recourse, int]:
        counted[0] = 0
        return (
            event,
            recourse_search.find_recourse(event, refusals[1][event.config_version], trained),
            counted[0],
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recourse_search, "_Case", Counting)
        return [find(event) for event in refusals[0]]


def moved(before: Event, after: Event) -> tuple[set[str], set[str]]:
    one, two = replay.vectors(before), replay.vectors(after)
    differs = [~((a == b) | (np.isnan(a) & np.isnan(b))) for a, b in zip(one, two, strict=True)]
    return {n for n, k in F.items() if differs[1][k]}, {
        n for n, k in S.items() if differs[0][k]
    } - {"retry_hint"}


@pytest.mark.parametrize(
    ("seconds", "told", "reason", "note"),
    [
        (20.0, 0, Reason.RISK_HIGH, ""),  # observe-only: nothing was told
        (20.0, 20, Reason.RISK_HIGH, "This is the Retry-After it got"),
        (
            30.0,
            1,
            Reason.LEASE_AWAITED,
            "The response said 1 s, for the quota alone. Other limits hold longer",
        ),
        (
            30.0,
            20,
            Reason.RISK_HIGH,
            "The response said 20 s, which holds if the app sends nothing meanwhile. The record"
            " lacks some of the decider's counters, so from it only 30 s is certain",
        ),
    ],
)
def test_a_wait_stands_beside_the_retry_after_that_was_answered(
    seconds: float, told: int, reason: Reason, note: str
) -> None:
    assert recourse_text._against_told(seconds, told, reason) == note


def test_nearly_every_simulated_refusal_has_a_way_back(ways) -> None:
    assert len(ways) == REFUSALS
    waits = [found for e, found, _ in ways if e.action != Action.BLOCK]
    # 0.90 measured: cohort and history weigh more in the model than they did
    assert sum(bool(found.ways) for found in waits) / len(waits) >= 0.85
    assert all(bool(found.none) != bool(found.ways) for _, found, _ in ways)
    assert all(recourse_search.UNTRIED in found.none for found in waits if not found.ways)


def test_after_a_block_no_wait_is_a_way_back(ways) -> None:
    blocks = [found for e, found, _ in ways if e.action == Action.BLOCK]
    assert blocks
    for found in blocks:
        assert not any(c.lever == "wait" for w in (*found.ways, *found.missed) for c in w.changes)
        assert found.ways or recourse_search.NO_WAIT in found.none


def test_as_many_changes_as_it_takes_are_found_wherever_all_together_admit(
    refusals, ways, trained
) -> None:
    looked = 0
    for e in refusals[0]:
        if e.action != Action.BLOCK:
            continue
        case = recourse_search._Case(e, refusals[1][e.config_version], trained)
        levels = {
            lever.name: found
            for lever in LEVERS
            if lever.name not in ("wait", "batch", "spread")
            and len(found := grid.list_levels(lever.name, case.x, case.s, False, e.reason))
        }
        if "paths" in levels:  # the same change and more
            levels.pop("resources", None)
        if len(levels) < 3:
            continue
        looked += 1
        ends = {name: float(found[-1]) for name, found in levels.items()}
        together = bool(recourse_search._admitted(case, ends).all())
        way = recourse_search._search_more(case, levels)
        assert (way is not None) == together
        if way is not None:
            assert way.admits and {c.lever for c in way.changes} <= set(levels)
            # none is larger than its end
            assert all(c.after >= ends[c.lever] for c in way.changes)
    assert looked > 20


def test_none_takes_more_than_a_bounded_number_of_decisions(ways) -> None:
    """All levels of eleven levers, of which seven have at most 90 a decade; then every pair at
    coarse levels; then as many as it takes, each at all its levels once more; then all at once.
    """
    singles = len(grid.WAITS_S) + len(grid.BATCH_SIZES) + 2 * 100 + 7 * 90 * 5
    pairs = len(LEVERS) * (len(LEVERS) - 1) // 2 * recourse_search.PAIR_LEVELS**2
    assert 0 < max(count for *_, count in ways) <= 2 * singles + pairs + 2 * len(LEVERS)


def test_every_way_is_admitted_when_the_changed_record_is_decided_again(
    refusals, ways, trained
) -> None:
    count = 0
    for e, found, _ in ways:
        document = refusals[1][e.config_version]
        for way in found.ways:
            again = replay.decide_under(
                recourse_search.apply_changes(e, document, way.changes), document, trained
            )
            assert again.action == Action.ADMIT == way.action
            assert again.risk == way.risk
            count += 1
    assert count >= REFUSALS


def test_the_risk_of_a_way_is_on_the_right_side_of_its_own_edge(ways) -> None:
    """Not of the record's: load, tokens and value move with the change, and the edge with them."""
    edges = 0
    for event, found, _ in ways:
        for way in (*found.ways, *found.missed):
            if way.edge is None or way.risk is None:
                continue
            assert (way.risk < way.edge) == way.admits, (event.reason, way)
            risk, edge = map(float, way.figures)
            assert (risk < edge) == way.admits, way.figures
            edges += 1
    assert edges > 200


def test_no_way_moves_what_an_owner_cannot_change(refusals, ways) -> None:
    for e, found, _ in ways:
        for way in found.ways:
            features, signals = moved(
                e, recourse_search.apply_changes(e, refusals[1][e.config_version], way.changes)
            )
            allowed = set().union(*(BY_NAME[c.lever].features for c in way.changes))
            assert features <= allowed
            assert signals <= set().union(*(BY_NAME[c.lever].signals for c in way.changes))
            assert not features & NEVER
            assert not signals & NEVER_SEEN
            assert signals or features


def test_a_wait_longer_than_the_response_said_says_so_and_none_is_shorter(ways) -> None:
    longer = 0
    for e, found, _ in ways:
        told = math.ceil(e.retry_after)
        for way in found.ways:
            wait = next((c.after for c in way.changes if c.lever == "wait"), None)
            if wait is None or not told:
                assert "The response said" not in way.sentence
                continue
            assert wait >= told
            assert ("The response said" in way.sentence) == (wait > told + 0.5)
            longer += wait > told + 0.5
    # few: a wait that was told holds the place, so hardly any way back needs a longer one
    assert longer > 0


def test_steady_ways_come_before_those_on_the_edge(ways) -> None:
    for _, found, _ in ways:
        assert len({way.steady for way in found.ways}) <= 1
        assert all(way.steady or "on the edge" in way.sentence for way in found.ways)


@pytest.mark.parametrize(
    ("admitted", "found"),
    [
        ([0, 1, 0, 1, 1, 1], (3, True)),
        ([0, 1, 0, 1, 0, 0], (1, False)),
        ([0, 0, 0, 0, 1, 1], (4, True)),
        ([0, 0], None),
    ],
)
def test_the_first_level_is_the_first_whose_next_ones_are_admitted_too(admitted, found) -> None:
    assert recourse_search._first_admitted(np.array(admitted, bool)) == found


def test_a_level_on_the_edge_is_left_out_when_another_lever_has_a_steady_one(monkeypatch) -> None:
    """Waiting is admitted at one level alone; spreading from its third level on."""
    row = world.rows(60, seed=2, missing=False)
    event = next(
        e
        for e in (world.decided(r, seen_tokens=100.0) for r in row)
        if e.reason == Reason.RISK_HIGH
    )
    case = recourse_search._Case(event, world.config(), world.model())
    levels = {"wait": np.arange(1.0, 9.0), "spread": np.arange(8.0, 0.0, -1.0)}
    actions = np.array(
        [Action.DEFER] * 4
        + [Action.ADMIT]
        + [Action.DEFER] * 3
        + [Action.DEFER] * 2
        + [Action.ADMIT] * 6
    )
    monkeypatch.setattr(
        recourse_search._Case,
        "decide",
        lambda self, x, s: (actions[: len(x)], np.full(len(x), 0.5)),
    )
    monkeypatch.setattr(
        recourse_search.replay,
        "decide_under",
        lambda *_: replay.Again(0, 3, 30, 0.0, 0.1, 0.5, False),
    )
    both, _ = recourse_search._search_single(case, levels)
    assert [(way.changes[0].lever, way.steady) for way in both] == [("spread", True)]
    alone, _ = recourse_search._search_single(case, {"wait": levels["wait"]})
    assert [(way.changes[0].lever, way.steady) for way in alone] == [("wait", False)]
    assert "on the edge" in alone[0].sentence


@settings(max_examples=60)
@given(
    k=st.integers(0, 199),
    lever=st.sampled_from(LEVERS),
    share=st.floats(0.0, 1.0),
    tokens=st.floats(-300.0, 300.0),
    price=st.floats(0.0, 3.0),
)
def test_a_lever_moves_only_what_it_says_and_no_feature_leaves_its_range(
    k, lever, share, tokens, price
) -> None:
    row = world.rows(200, seed=11)[k]
    event = world.decided(
        row,
        seen_tokens=tokens,
        seen_service_price=price,
        seen_tenant_usage=4.0,
        seen_quota_reset=3600.0,
    )
    case = recourse_search._Case(event, world.config(), None)
    level = np.array([600.0 * share if lever.rises else share * 20.0])
    x, s = case.moved((lever, level))
    changed = {
        n
        for n, i in F.items()
        if not (x[0, i] == case.x[i] or (np.isnan(x[0, i]) and np.isnan(case.x[i])))
    }
    assert changed <= lever.features
    assert {n for n, i in S.items() if s[0, i] != case.s[i]} <= lever.signals
    for feature in FEATURES:
        value = x[0, F[feature.name]]
        assert np.isnan(value) or value >= 0.0
        assert (
            np.isnan(value)
            or feature.unit != "share"
            or value <= 1.0
            or value == case.x[F[feature.name]]
        )
    assert s[0, S["tokens"]] <= s[0, S["bucket_burst"]]
    assert 0.0 <= s[0, S["service_price"]] <= price


def test_fewer_paths_bound_all_that_they_spread_over() -> None:
    case = recourse_search._Case(
        world.decided(world.rows(1, seed=3, missing=False)[0]), world.config(), world.model()
    )
    case.x[F["path_entropy_600s"]], case.x[F["busiest_path_share_600s"]] = 3.9, 0.1
    case.x[F["distinct_paths_60s"]] = 5.0
    assert grid.find_level("paths", case.x, case.s) == 15.0  # 2^3.9 is 14.9
    x, _ = case.moved((BY_NAME["paths"], np.array([4.0, 1.0])))
    assert x[:, F["path_entropy_600s"]].tolist() == [2.0, 0.0]
    assert (x[:, F["distinct_paths_60s"]] <= [4.0, 1.0]).all()
    assert (x[:, F["busiest_path_share_600s"]] == [0.25, 1.0]).all()
    assert x[1, F["busiest_step_share_600s"]] == 1.0


def test_who_sends_from_many_addresses_may_be_told_of_fewer() -> None:
    case = recourse_search._Case(
        world.decided(world.rows(1, seed=3, missing=False)[0]), world.config(), world.model()
    )
    case.x[F["distinct_sources_60s"]] = 20.0
    levels = grid.list_levels("addresses", case.x, case.s, batchable=False, reason=Reason.RISK_HIGH)
    assert levels.tolist() == [float(n) for n in range(18, 0, -1)]
    x, _ = case.moved((BY_NAME["addresses"], levels))
    assert (x[:, F["distinct_sources_60s"]] == levels).all()


def a_case():
    return recourse_search._Case(
        world.decided(world.rows(1, seed=3, missing=False)[0]), world.config(), world.model()
    )


def levels_of(case, name: str, told: float = 0.0) -> list[float]:
    found = grid.list_levels(name, case.x, case.s, False, Reason.RISK_HIGH, told)
    return list(found.tolist())


def test_of_few_answers_or_requests_only_none_is_advised() -> None:
    case = a_case()
    case.x[F["client_error_share_60s"]] = 1 / 3
    case.x[F["client_errors_60s"]] = 1.0
    assert levels_of(case, "errors") == [0.0]
    case.x[F["client_errors_60s"]] = 10.0  # of thirty
    assert len(levels_of(case, "errors")) > 30
    case.x[F["refused_share_60s"]], case.x[F["rate_60s"]] = 0.5, 4 / 60
    assert levels_of(case, "retries") == [0.0]
    case.x[F["rate_60s"]] = 40 / 60
    assert len(levels_of(case, "retries")) == 50


@pytest.mark.parametrize("share", [0.314, 0.316, 0.305, 0.0949, 0.02])
def test_a_share_is_advised_below_the_one_that_is_shown(share: float) -> None:
    case = a_case()
    case.x[F["client_error_share_60s"]] = share
    first = levels_of(case, "errors")[0]
    assert recourse_text.format_percent(first) != recourse_text.format_percent(share)
    assert share - 0.02 <= first < share


def test_no_change_of_less_than_a_tenth_is_advised() -> None:
    case = a_case()
    for name in ("rate_1s", "rate_10s", "rate_60s"):
        case.x[F[name]] = 3.9
    case.s[S["bucket_rate"]] = 5.0
    assert levels_of(case, "pace")[0] == 3.5
    case.x[F["distinct_tokens_60s"]] = 12.0
    assert levels_of(case, "credentials")[0] == 10.0


@pytest.mark.parametrize("tokens", [0.0, 40.0])
def test_no_pace_is_advised_that_the_bucket_does_not_sustain(tokens: float) -> None:
    case = a_case()
    case.x[F["rate_1s"]] = 80.0
    for name in ("rate_10s", "rate_60s"):
        case.x[F[name]] = 39.9
    case.s[S["bucket_rate"]], case.s[S["tokens"]] = 5.0, tokens
    assert levels_of(case, "pace")[0] == 5.0
    assert levels_of(case, "spread") == []


def test_no_wait_is_advised_that_is_shorter_than_the_response_said() -> None:
    waits = levels_of(a_case(), "wait", told=30.2)
    assert waits[:3] == [31.0, 32.0, 33.0] and waits[-1] == grid.WAITS_S[-1]
    assert levels_of(a_case(), "wait")[0] == 1.0


def test_paths_in_twenty_minutes_are_at_least_those_of_two() -> None:
    case = a_case()
    case.x[F["path_entropy_600s"]], case.x[F["distinct_paths_60s"]] = 3.6, 39.0
    assert grid.find_level("paths", case.x, case.s) == 39.0
    assert levels_of(case, "paths")[0] == 11.0


def test_who_was_asked_to_batch_sees_what_a_batch_leads_to(refusals, ways, trained) -> None:
    asked = [way for e, way, _ in ways if e.action == Action.BATCH]
    assert asked
    for way in asked:
        shown = {c.lever for one in (*way.ways, *way.missed) for c in one.changes}
        assert "batch" in shown


def test_the_levers_name_features_of_the_registry_and_cover_what_it_says_an_owner_controls() -> (
    None
):
    named = set().union(*(lever.features for lever in LEVERS))
    assert named <= set(F)
    assert set().union(*(lever.signals for lever in LEVERS)) <= set(S)
    assert not named & NEVER
    untouched = {f.name for f in FEATURES if f.owner_controls} - named
    assert untouched <= {
        "payload_mean_60s",
        "payload_now",
    }  # what a request carries is the customer's business


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"seen_list_verdict": 2.0}, "block list"),
        ({"seen_compliance": 1.0}, "compliance rule"),
        ({"seen_override_action": float(Action.SHED), "seen_tokens": 100.0}, "override"),
    ],
)
def test_what_is_not_the_owners_to_change_has_no_way_back_and_says_why(seen, said) -> None:
    found = recourse_search.find_recourse(
        world.decided(world.rows(1, seed=3, missing=False)[0], **seen),
        world.config(),
        world.model(),
    )
    assert found.ways == ()
    assert said in found.none


def test_a_spent_quota_comes_back_with_the_day_or_with_fewer_requests_over_it() -> None:
    row = world.rows(1, seed=3, missing=False)[0]
    row[F["quota_used"]] = 1.0
    event = world.decided(row, seen_quota_left=0.0, seen_quota_reset=3600.0, seen_tokens=200.0)
    assert event.reason == Reason.QUOTA_EXHAUSTED
    found = recourse_search.find_recourse(event, world.config(), world.model())
    assert {way.changes[0].lever for way in found.ways} == {"wait", "day"}
    day = next(way for way in found.ways if way.changes[0].lever == "day")
    assert "over the whole day instead of" in day.sentence
    assert day.changes[0].after < 2_000_000 / 86_400


def test_a_lease_that_is_awaited_is_a_matter_of_waiting_for_it() -> None:
    calm = next(
        r
        for r in world.rows(60, seed=3, missing=False)
        if world.decided(r, seen_tokens=200.0).action == Action.ADMIT
    )
    event = world.decided(
        calm, seen_quota_left=0.0, seen_quota_reset=3600.0, seen_lease_due=2.0, seen_tokens=200.0
    )
    assert (event.reason, event.retry_after) == (Reason.LEASE_AWAITED, 2.0)
    found = recourse_search.find_recourse(event, world.config(), world.model())
    assert ("wait", 2.0) in {(way.changes[0].lever, way.changes[0].after) for way in found.ways}
    hasty = world.decided(
        world.rows(1, seed=3, missing=False)[0],
        seen_quota_left=0.7,
        seen_quota_reset=3600.0,
        seen_lease_due=2.0,
        seen_tokens=-200.0,
        seen_headroom_withheld=1e6,
    )
    said = recourse_search.find_recourse(hasty, world.config(), world.model()).ways[0]
    assert said.changes[0].after > 2.0
    assert said.sentence.endswith(
        "The response said 2 s, for the quota alone. Other limits hold longer."
    )


def test_an_empty_bucket_without_a_model_is_a_matter_of_pace() -> None:
    row = world.rows(1, seed=3, missing=False)[0]
    for name in ("rate_1s", "rate_10s", "rate_60s", "rate_600s"):
        row[F[name]] = 40.0
    event = world.decided(row, ml_state=MlState.SWITCHED_OFF, seen_tokens=-2.0)
    assert event.reason == Reason.TOKENS_EMPTY
    found = recourse_search.find_recourse(event, world.config(), None)
    pace = next(way for way in found.ways if way.changes[0].lever == "pace")
    assert pace.changes[0].after == 15.0  # what standard tier is refilled at
    assert (
        pace.sentence
        == "At 15 requests a second, spread over time, instead of 40 requests a second at its"
        " fastest, this request would have been admitted."
    )


def test_without_its_model_nothing_is_claimed() -> None:
    events = (world.decided(row) for row in world.rows(40, seed=2))
    refused = next(e for e in events if e.action != Action.ADMIT)
    assert (
        recourse_search.find_recourse(refused, world.config(), None).none
        == recourse_search.MODEL_AWAY
    )


def test_one_whom_nothing_helps_is_told_what_stands_in_the_way() -> None:
    row = world.rows(1, seed=3, missing=False)[0]
    row[F["abuse_history"]], row[F["app_age"]], row[F["cohort_prior"]] = 40.0, 0.5, 0.9
    for name in ("rate_1s", "rate_10s", "rate_60s", "rate_600s"):
        row[F[name]] = 60.0
    document = world.config()
    harsh = structs.replace(
        document, tiers=[structs.replace(t, harm=60.0, rank_from=0.0) for t in document.tiers]
    )
    found = recourse_search.find_recourse(world.decided(row, document=harsh), harsh, world.model())
    assert found.ways == ()
    assert "With all of it at once it would still have been blocked: risk" in found.none


def find_named(refusals, trained, named: str) -> list[Recourse]:
    found = [
        recourse_search.find_recourse(e, refusals[1][e.config_version], trained, named)
        for e in refusals[0][:80]
    ]
    return [one for one in found if one.ways]


def touches(way: Way, named: str) -> bool:
    return any(named in BY_NAME[change.lever].features for change in way.changes)


def test_ways_that_change_the_strongest_reason_come_first(refusals, trained) -> None:
    named, first, reordered = "path_entropy_600s", 0, 0
    for one in find_named(refusals, trained, named):
        places = [touches(way, named) for way in one.ways]
        assert places == sorted(places, reverse=True)
        assert bool(one.aside) == (not any(places))
        first += places[0]
        efforts = [way.effort for way in one.ways]
        reordered += efforts != sorted(efforts)
    assert first and reordered


def test_it_is_said_where_no_way_changes_the_strongest_reason(refusals, trained) -> None:
    # No lever moves an app's history, so nothing could be tried.
    found = find_named(refusals, trained, "abuse_history")
    assert found
    for one in found:
        assert one.aside == (
            "None of these changes its strongest reason, “Confirmed abuse reports”: its owner"
            " cannot change it."
        )
    assert not any(one.aside for one in find_named(refusals, trained, ""))


def test_a_lever_of_the_strongest_reason_that_is_not_enough_is_shown(refusals, trained) -> None:
    found = find_named(refusals, trained, "client_error_share_60s")
    alone = [one for one in found if "alone would not have been enough" in one.aside]
    assert alone
    for one in alone:
        assert touches(one.missed[0], "client_error_share_60s")
        assert not any(touches(way, "client_error_share_60s") for way in one.ways)
