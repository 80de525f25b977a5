"""The engine with real compiled passes and a real model."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from decider import policy
from decider.contracts import defaults
from decider.contracts.config import Config, ListEntry, ModelRef, Override, Sampling, Switch
from decider.contracts.features import INDEX
from decider.contracts.requests import CheckRequest, Outcome
from decider.contracts.signals import N_SIGNALS, unpack
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action, MlState, Reason, Stage, Tier
from decider.engine import kernels
from decider.engine.buffers import BAD_SCORES, WAITS
from decider.engine.engine import APPS_PER_SOURCE, Engine
from decider.engine.known_apps import table as known_apps
from decider.engine.memory import app_state, retries, source_table, usual
from decider.engine.shared import state as shared_state
from decider.engine.shared.tenants import MAX_TENANTS
from decider.whatif.replay import decide_again
from tests.decider.model import small_model
from tests.decider.test_config import in_format_1

NOW = 1_790_000_000.0
KEEP_ALL = Sampling(budget_per_s=1e9, admit=1.0, refuse=1.0, block=1.0, enterprise_refuse=1.0)


def config(**changes: object) -> Config:
    patient = {"ml_time_limit_ms": 1e6, **changes}  # a busy machine must not make the model late
    return msgspec.structs.replace(defaults.config(), sampling=KEEP_ALL, **patient)


def with_model(**changes: object) -> Config:
    return config(model=ModelRef("test", 1, small_model().digest), **changes)


def engine(document: Config | None = None, *, ml: bool = False, **options: object) -> Engine:
    made = Engine("d01", "local", b"k" * 32, **{"capacity": 4096, **options})
    made.apply(document or (with_model() if ml else config()), small_model() if ml else None)
    return made


def ask(
    made: Engine,
    now: float,
    app: str = "app_1",
    count: int = 1,
    path: str = "/v2/orders/1",
    **more: object,
) -> list:
    return made.decide([CheckRequest(app, "GET", path, **more) for _ in range(count)], now)


def of_tier(
    made: Engine, tier: Tier, app: str = "app_1", tenant: str = "t1", **more: object
) -> None:
    made.know([Profile(app, app, tenant, int(tier), NOW - 9e6, True, **more)], NOW)


def test_without_a_model_the_fallback_admits_a_burst_and_then_defers_until_a_token_is_back() -> (
    None
):
    made = engine()
    of_tier(made, Tier.STANDARD)
    answers = ask(made, NOW, count=301)
    assert [a.action for a in answers[:300]] == [Action.ADMIT] * 300
    last = answers[300]
    assert (last.action, last.stage, last.reason) == (
        Action.DEFER,
        Stage.FALLBACK,
        Reason.TOKENS_EMPTY,
    )
    assert ask(made, NOW + last.retry_after)[0].action == Action.ADMIT


def test_one_batch_decides_as_one_request_after_the_other_does() -> None:
    together, apart = engine(ml=True), engine(ml=True)
    for made in (together, apart):
        of_tier(made, Tier.STANDARD)
    many = [a.action for a in ask(together, NOW, count=700)]
    one_by_one = [ask(apart, NOW)[0].action for _ in range(700)]
    assert Action.ADMIT in many and set(many) != {Action.ADMIT}
    assert [a == Action.ADMIT for a in many].count(True) == [
        a == Action.ADMIT for a in one_by_one
    ].count(True)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 40)), min_size=1, max_size=40),
    st.integers(1, 60),
)
def test_a_quota_is_never_exceeded_whatever_the_traffic(
    bursts: list[tuple[float, int]], quota: int
) -> None:
    tiers = [msgspec.structs.replace(t, quota_per_day=quota) for t in defaults.TIERS]
    made = engine(config(tiers=tiers))
    now, admitted = NOW, 0
    for gap, count in bursts:
        now += gap
        admitted += sum(a.action == Action.ADMIT for a in ask(made, now, count=count))
    assert admitted <= quota
    assert made.last_decision_at // 86_400 == NOW // 86_400


def test_quota_exhausted_defers_until_the_day_ends_and_binds_the_allow_list_too() -> None:
    tiers = [msgspec.structs.replace(t, quota_per_day=3) for t in defaults.TIERS]
    made = engine(
        config(tiers=tiers, lists=[ListEntry(verdict="allow", kind="app", subject="app_1")])
    )
    answers = ask(made, NOW, count=4)
    assert [a.stage for a in answers] == [Stage.GUARD] * 4
    assert (answers[3].action, answers[3].reason) == (Action.DEFER, Reason.QUOTA_EXHAUSTED)
    # with the jitter that keeps all clients from coming back at midnight sharp
    assert 0.0 <= (NOW + answers[3].retry_after) % 86_400 <= 60.0
    assert ask(made, NOW + answers[3].retry_after + 1)[0].action == Action.ADMIT


def test_records_of_before_a_signal_are_read_with_none_of_it() -> None:
    row = np.arange(N_SIGNALS, dtype="<f8")
    assert unpack(row.tobytes()).tolist() == row.tolist()
    assert unpack(row[:-1].tobytes()).tolist() == [*row[:-1], 0.0]
    for other in (row[:5].tobytes(), np.zeros(N_SIGNALS + 1).tobytes(), b"rubbish"):
        with pytest.raises(ValueError):
            unpack(other)


def test_block_and_compliance_lists_block_and_end_by_themselves() -> None:
    for verdict, reason in (("block", Reason.BLOCK_LISTED), ("compliance", Reason.COMPLIANCE)):
        for kind, subject in (("app", "app_1"), ("tenant", "t1"), ("source", "203.0.113.7")):
            made = engine(
                config(
                    lists=[ListEntry(verdict=verdict, kind=kind, subject=subject, until=NOW + 10)]
                )
            )
            of_tier(made, Tier.ENTERPRISE)
            first = ask(made, NOW, source="203.0.113.7")[0]
            assert (first.action, first.stage, first.reason) == (
                Action.BLOCK,
                Stage.GUARD,
                reason,
            ), (verdict, kind)
            assert ask(made, NOW + 11, source="203.0.113.7")[0].action == Action.ADMIT


def test_an_override_forces_an_action_until_it_expires_though_nobody_pushes() -> None:
    forced = Override(
        id="o1", kind="app", subject="app_1", until=NOW + 60, action=int(Action.DEFER)
    )
    made = engine(config(overrides=[forced]))
    first = ask(made, NOW)[0]
    assert (first.action, first.stage, first.reason) == (
        Action.DEFER,
        Stage.OVERRIDE,
        Reason.OVERRIDE_REFUSE,
    )
    assert ask(made, NOW + 61)[0].action == Action.ADMIT


def test_an_override_of_a_tenant_stretches_the_plan_of_all_its_apps() -> None:
    made = engine(
        config(
            overrides=[
                Override(id="o1", kind="tenant", subject="t1", until=NOW + 60, multiplier=2.0)
            ]
        )
    )
    of_tier(made, Tier.FREE)
    assert ask(made, NOW)[0].limit == 100
    assert ask(made, NOW + 61)[0].limit == 50


def test_the_guard_is_not_overruled_by_an_override() -> None:
    made = engine(
        config(
            lists=[ListEntry(verdict="block", kind="app", subject="app_1")],
            overrides=[Override(id="o", kind="app", subject="app_1", until=NOW + 60, action=0)],
        )
    )
    assert ask(made, NOW)[0].action == Action.BLOCK


def test_switching_all_ml_off_hands_over_to_the_fallback_until_the_switch_ends() -> None:
    made = engine(ml=True)
    of_tier(made, Tier.STANDARD)
    assert ask(made, NOW)[0].stage == Stage.TRIAGE
    made.apply(with_model(switches=[Switch("all_ml", until=NOW + 60)]), small_model())
    assert made.ml_state(NOW) == MlState.SWITCHED_OFF
    assert ask(made, NOW + 1)[0].stage == Stage.FALLBACK
    assert ask(made, NOW + 61)[0].stage == Stage.TRIAGE


def test_observe_only_records_the_decision_and_admits() -> None:
    made = engine(
        config(
            switches=[Switch("observe_only")],
            lists=[ListEntry(verdict="block", kind="app", subject="app_1")],
        )
    )
    answer = ask(made, NOW)[0]
    assert (answer.action, answer.retry_after) == (Action.ADMIT, 0.0)
    event = made.take_events()[0]
    assert (event.action, event.observed) == (Action.BLOCK, True)


def test_a_model_that_answers_nan_leaves_the_decision_to_the_fallback() -> None:
    made = engine(ml=True)
    made.model.score_into = lambda *_: None  # type: ignore[union-attr, method-assign]
    try:
        of_tier(made, Tier.FREE, cohort_prior=0.9)
        answer = ask(made, NOW)[0]
        assert answer.stage == Stage.FALLBACK
        assert made.take_events()[0].ml_state == MlState.BAD_SCORE
        assert made.batch.serial[BAD_SCORES] == 1
    finally:
        del made.model.score_into  # type: ignore[union-attr]


def test_a_slow_model_counts_as_late_for_a_while() -> None:
    made = engine(with_model(ml_time_limit_ms=1e-6), ml=True)
    of_tier(made, Tier.FREE, cohort_prior=0.9)
    for _ in range(3):
        assert ask(made, NOW)[0].stage != Stage.FALLBACK
    assert made.ml_state(NOW + 0.5) == MlState.LATE
    assert ask(made, NOW + 0.5)[0].stage == Stage.FALLBACK
    assert made.ml_state(NOW + 1.6) == MlState.LIVE


def test_a_storm_is_ranked_and_refused_and_the_wait_it_is_told_is_true() -> None:
    made = engine(ml=True)
    of_tier(made, Tier.STANDARD, cohort_prior=0.3)
    refused = [a for a in ask(made, NOW, count=80) if a.action in (Action.DEFER, Action.BATCH)]
    assert refused
    wait = refused[-1].retry_after
    assert wait > 0
    assert ask(made, NOW + wait + 0.01)[0].action == Action.ADMIT


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(0, 90), st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=6
    ),
    st.integers(0, 7),
)
def test_a_forecast_looks_at_what_the_request_that_comes_again_will_show(
    bursts, which: int
) -> None:
    """The retry counts itself, as a retry, in every window: after silence the features are those of
    the forecast, to the bit.
    """
    made, now = engine(ml=True), NOW
    of_tier(made, Tier.FREE, cohort_prior=0.5)
    for gap, count, path in bursts:
        now += gap
        asked = f"/v2/orders/word{path}"
        answers = ask(made, now, count=count, path=asked)
    assume(answers[-1].action != Action.ADMIT)
    made.batch.rows[0], row = count - 1, made.batch.request[count - 1]
    step = np.array([which])
    # the client is told this wait, and not the one that was found
    request = [np.uint64(row[part]) for part in ("path", "token", "endpoint")]
    retries.note(made.state.refused, made.slot_of("app_1"), now, *request, float(WAITS[which]))
    kernels.project(made.arena.table, step, step, 1, now)
    forecast = made._ahead.features[0].copy()
    ask(made, now + float(WAITS[which]), path=asked)
    later = made.features[0]
    moving = [
        INDEX["quota_used"],
        INDEX["quota_pace"],
        INDEX["tenant_share"],
        INDEX["pace_over_tier"],
        INDEX["pace_over_tenant"],
    ]  # what others and admits do meanwhile is not forecast
    assert np.delete(forecast, moving).tolist() == np.delete(later, moving).tolist()


def test_every_kept_decision_decides_the_same_again_to_the_bit() -> None:
    made, document = engine(ml=True), with_model()
    rng = np.random.default_rng(5)
    for app in range(40):
        of_tier(made, Tier(app % 4), f"app_{app}", f"t{app % 7}", cohort_prior=float(rng.random()))
    now = NOW
    for _ in range(60):
        now += float(rng.exponential(0.3))
        asked = [
            CheckRequest(
                f"app_{int(rng.pareto(1)) % 40}", "GET", f"/v2/orders/{rng.integers(9)}", "tok"
            )
            for _ in range(80)
        ]
        made.decide(asked, now)
        made.learn(
            [
                Outcome(q.app, "orders-read", now, int(rng.choice([200, 404, 401, 503])), 30.0)
                for q in asked[:20]
            ],
            now,
        )
        made.tick(now)
    events = made.take_events()
    assert len(events) == 4800
    assert {e.stage for e in events} >= {Stage.TRIAGE, Stage.RANK}
    assert {e.action for e in events} >= {Action.ADMIT, Action.DEFER}
    for event in events:
        assert decide_again(event, document, small_model()).identical, event


def test_an_overloaded_service_gets_a_price_and_sheds_whoever_is_over_the_fair_share() -> None:
    made = engine(ml=True)
    of_tier(made, Tier.STANDARD, "greedy", "t_greedy")
    of_tier(made, Tier.STANDARD, "modest", "t_modest")
    now, greedy, modest = NOW, [], []
    for step in range(300):
        now += 0.05
        greedy += made.decide(
            [CheckRequest("greedy", "POST", "/v2/payments/charges") for _ in range(12)], now
        )
        if step % 10 == 0:
            modest += made.decide([CheckRequest("modest", "POST", "/v2/payments/charges")], now)
        if step % 4 == 0:
            made.tick(now)
    events = [e for e in made.take_events() if e.action != Action.ADMIT]
    assert made.shared.service[3, shared_state.UTILISATION] > 0
    assert any(e.stage in (Stage.RERANK, Stage.TRIAGE, Stage.RANK) for e in events)
    assert sum(a.action == Action.ADMIT for a in modest) / len(modest) > 0.95
    assert sum(a.action == Action.ADMIT for a in greedy) / len(greedy) < 0.6


def test_an_overload_passes_so_nobody_is_sent_away_for_minutes_because_of_it() -> None:
    made = engine()
    made.apply(with_model(tiers=in_format_1().tiers), small_model())
    of_tier(made, Tier.STANDARD)
    made.shared.service[3, shared_state.PRICE] = 0.9
    made.shared.service[3, shared_state.LEVEL :] = 0.0  # higher tiers leave no room
    answer = ask(made, NOW, path="/v2/payments/charges")[0]
    assert (answer.action, answer.reason) == (Action.DEFER, Reason.SERVICE_OVERLOADED)
    assert 1 <= answer.retry_after <= 30


def test_outcomes_reach_the_features_of_their_app() -> None:
    made = engine()
    ask(made, NOW)
    made.learn(
        [Outcome("app_1", "auth", NOW, 401, 10.0)] * 3 + [Outcome("app_1", "auth", NOW, 200, 10.0)],
        NOW,
    )
    made.learn(
        [
            Outcome("app_1", "no-such-service", NOW, 500, 10.0),
            Outcome("nobody", "auth", NOW, 500, 1.0),
        ],
        NOW,
    )
    ask(made, NOW + 1)
    assert made.features[0, INDEX["auth_error_share_60s"]] == pytest.approx(0.75)
    assert made.features[0, INDEX["feedback_age"]] == pytest.approx(1.0)


def test_rates_and_bursts_are_what_was_sent() -> None:
    made = engine()
    for k in range(1500):
        ask(made, NOW + k * 0.1)
    row = made.features[0]
    assert row[INDEX["rate_1s"]] == pytest.approx(10, rel=0.11)
    assert row[INDEX["rate_10s"]] == pytest.approx(10, rel=0.05)
    assert row[INDEX["rate_60s"]] == pytest.approx(10, rel=0.05)
    assert row[INDEX["burst_ratio"]] == pytest.approx(1, rel=0.15)
    assert row[INDEX["gap_cv"]] < 0.2
    assert row[INDEX["distinct_endpoints_60s"]] == pytest.approx(1, abs=0.1)


def test_time_that_runs_backwards_breaks_nothing() -> None:
    made = engine(ml=True)
    ask(made, NOW, count=10)
    answers = ask(made, NOW - 3600, count=10)
    assert len(answers) == 10
    assert np.isfinite(made.features[:10]).all()
    assert made.features[0, INDEX["seconds_since_last"]] == 0.0


def test_an_unknown_app_is_asked_for_once_and_known_when_its_profile_comes() -> None:
    made = engine()
    ask(made, NOW, app="new")
    assert list(made.wanted_profiles) == ["new"]
    made.wanted_profiles.clear()
    ask(made, NOW, app="new")
    assert not made.wanted_profiles
    made.know([Profile("new", "New", "t9", int(Tier.PREMIUM))], NOW)
    assert ask(made, NOW, app="new")[0].limit == 1000


def test_memory_stays_within_800_bytes_an_app_and_is_bounded_by_eviction() -> None:
    made = engine(capacity=5000)
    shared = (*source_table.allocate(1_000_000 // APPS_PER_SOURCE), *usual.allocate(MAX_TENANTS))
    per_app = app_state.bytes_per_app(app_state.allocate(1_000_000))
    assert per_app + sum(a.nbytes for a in shared) / 1_000_000 < 800
    for k in range(30):
        made.decide([CheckRequest(f"app_{k}_{i}", "GET", "/") for i in range(1000)], NOW + k)
    assert made.apps == 5000
    assert made.state.meta[app_state.M_EVICTED] == 25_000


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=600))
def test_the_slot_table_finds_every_tracked_app_through_any_evictions(apps: list[int]) -> None:
    slots, unknown = app_state.allocate(64), np.zeros(app_state.N_PROFILE, np.float32)
    for step, app in enumerate(apps):
        key = np.uint64(app * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFF0)  # many share a home
        slot = app_state.place(slots, key, float(step + 1), unknown, known_apps.empty())
        assert slots.key[slot] == key
        assert app_state.find(slots, key) == slot
    tracked = [int(slots.key[s]) for s in range(int(slots.meta[app_state.M_USED]))]
    assert len(set(tracked)) == len(tracked)
    assert all(slots.key[app_state.find(slots, np.uint64(k))] == k for k in tracked)
    assert np.count_nonzero(slots.table) == len(tracked)


def test_the_sample_weighs_up_to_the_truth_and_keeps_to_its_budget() -> None:
    made = engine(config(lists=[ListEntry(verdict="block", kind="app", subject="bad")]))
    sampling = Sampling(budget_per_s=200, admit=0.05, refuse=0.5)
    made.apply(msgspec.structs.replace(made.config, sampling=sampling), None)
    total, kept_most, estimates = 0, 0, []
    for second in range(60):
        before = len(estimates)
        for part in range(10):
            apps = ["bad"] * 50 + [f"app_{second}_{part}_{k}" for k in range(100)]
            made.decide([CheckRequest(a, "GET", "/") for a in apps], NOW + second + part * 0.09)
            total += len(apps)
        estimates += [1 / e.inclusion_probability for e in made.take_events()]
        kept_most = max(kept_most, len(estimates) - before)
    assert kept_most <= 230
    assert sum(estimates) == pytest.approx(total, rel=0.15)


def test_ids_of_one_process_only_grow() -> None:
    made = engine()
    ids = [a.id for k in range(30) for a in ask(made, NOW + k * 1e-4, count=300)]
    assert ids == sorted(set(ids))


@settings(max_examples=200, deadline=None)
@given(
    risk=st.floats(0, 1),
    more=st.floats(0, 1),
    value=st.floats(0, 1),
    tokens=st.floats(-300, 300),
    price=st.floats(0, 4),
    tier=st.integers(0, 3),
    batchable=st.booleans(),
    left=st.sampled_from([0.0, 0.05, 0.7, math.inf]),
)
def test_more_risk_never_turns_a_refusal_into_an_admit(
    risk: float,
    more: float,
    value: float,
    tokens: float,
    price: float,
    tier: int,
    batchable: bool,
    left: float,
) -> None:
    rules = policy.rules_of(defaults.config())
    signals = np.zeros(len(policy.S))
    for name, figure in {
        "tier": tier,
        "quota_left": 10,
        "override_action": -1,
        "tokens": tokens,
        "bucket_rate": 15,
        "bucket_burst": 300,
        "cost": 1,
        "batchable": batchable,
        "service_price": price,
        "tenant_fair_share": math.inf,
        "error_budget_left": left,
        "error_budget_rate": 0.0001,
        "prior_risk": 0.05,
        "prior_value": 0.5,
    }.items():
        signals[policy.S[name]] = figure
    features = np.zeros(len(INDEX), np.float32)
    low, high = sorted((risk, more))
    at_low = policy.decide(signals, features, low, value, rules)[0]
    at_high = policy.decide(signals, features, high, value, rules)[0]
    assert at_low == Action.ADMIT or at_high != Action.ADMIT
