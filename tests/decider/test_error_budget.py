"""The false-throttle error budget: in every hour and day a share of the app's requests, no more."""

from __future__ import annotations

import copy
import hashlib
import math
import random
from collections import defaultdict
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider import policy
from decider.contracts import config as configs
from decider.contracts import defaults, features
from decider.contracts.config import Override
from decider.contracts.event import Event
from decider.contracts.requests import CheckRequest
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import N_SIGNALS, unpack
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action, MlState, Reason, Stage, Tier
from decider.engine import kernels
from decider.engine.buffers import WAITS
from decider.engine.engine import Engine
from decider.engine.memory import app_state, error_budget
from decider.engine.memory.windows import EPOCH
from decider.engine.shared import service_control
from decider.engine.shared import state as shared_state
from decider.whatif.replay import decide_again
from tests.decider.model import small_model
from tests.decider.test_config import in_format_1
from tests.decider.test_engine import NOW, ask, of_tier, with_model

ML = (Stage.TRIAGE, Stage.RANK, Stage.RERANK)
RATE = 0.0001
# Larger than the promise, so that short histories come to its edge.
LOOSE = 0.05


def of_risk(risk: float, rate: float | None = None, **changes: object) -> Engine:
    """Return an engine whose model finds every request of this risk, with an enterprise app."""
    model = copy.copy(small_model())
    tiers = [msgspec.structs.replace(each, error_budget=1.0) for each in defaults.TIERS]
    tiers[3] = msgspec.structs.replace(tiers[3], error_budget=rate)
    made = Engine("d01", "local", b"k" * 32, capacity=64)
    made.apply(with_model(tiers=tiers, **changes), model)
    find(made, risk)
    of_tier(made, Tier.ENTERPRISE, cohort_prior=0.9)
    return made


def find(made: Engine, risk: float) -> None:
    """Let the model find this risk from now on."""

    def score_into(_, rows, count, scores, *__) -> None:
        scores[rows[:count]] = (0.0, 0.0, risk, 0.5)

    made.model.score_into = score_into


def spending(events: list[Event]) -> float:
    return sum(1.0 - e.risk for e in events if e.action != Action.ADMIT and e.stage in ML)


class Ledger:
    """Requests and spending in clock windows of one length, as the events say."""

    def __init__(self, length: float) -> None:
        self.length = length
        self.asked: dict[int, float] = defaultdict(float)
        self.spent: dict[int, float] = defaultdict(float)

    def note(self, events: list[Event], at: float) -> None:
        bucket = math.floor((at - EPOCH) / self.length)
        self.asked[bucket] += len(events)
        self.spent[bucket] += spending(events)

    def held(self, at: float) -> tuple[float, float]:
        """Return requests and spending in the sliding window up to `at`, of two buckets."""
        place = (at - EPOCH) / self.length
        number = math.floor(place)
        keep = 1.0 - (place - number)
        return (
            self.asked[number] + keep * self.asked[number - 1],
            self.spent[number] + keep * self.spent[number - 1],
        )


STEPS = st.tuples(
    st.sampled_from([0.0, 1.0, 20.0, 700.0, 3_599.0, 9_000.0, 50_000.0, 100_000.0]),
    st.integers(1, 120),
    st.floats(0.3, 1.0),
)
# Prices of a service that has no room for the tier; 0 while it has.
PRICES = st.lists(st.sampled_from([0.0, 0.0, 0.9, 4.0]), min_size=25, max_size=25)


def set_price(made: Engine, price: float) -> None:
    made.shared.service[0, shared_state.PRICE] = price
    made.shared.service[0, shared_state.LEVEL :] = 0.0 if price > 0.0 else math.inf


@settings(max_examples=60, deadline=None)
@given(
    st.lists(STEPS, min_size=1, max_size=25), PRICES, st.lists(st.floats(0, 200_000), max_size=8)
)
def test_no_hour_and_no_day_ever_holds_more_than_the_rate(steps, prices, later) -> None:
    made, now = of_risk(0.0, LOOSE), NOW
    slot, ledgers = made.slot_of("app_1"), [Ledger(s) for s in app_state.BUDGET_WINDOWS.tolist()]
    for (gap, count, risk), price in zip(steps, prices, strict=False):
        now += gap
        find(made, risk)
        set_price(made, price)
        ask(made, now, count=count)
        events = made.take_events()
        for k, ledger in enumerate(ledgers):
            ledger.note(events, now)
            place = error_budget.position_in(made.state, slot, k, now)
            own = [
                error_budget.in_window(column, slot, k, *place)
                for column in (made.state.asked, made.state.spent)
            ]
            assert own == pytest.approx(ledger.held(now), rel=1e-5, abs=1e-6)
    # nor when the windows move on and the app falls silent
    for wait in (0.0, *later):
        for ledger in ledgers:
            asked, spent = ledger.held(now + wait)
            assert spent <= LOOSE * asked + 1e-5


# Which of three deciders answers a step, and whether it was started anew just before.
ROUTES = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=25, max_size=25)


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=25), ROUTES, PRICES)
def test_the_region_keeps_the_rate_wherever_an_apps_requests_go(steps, routes, prices) -> None:
    """A share of the requests adds up: what each decider keeps, all keep together, also when one
    loses its memory.
    """
    nodes, now = [of_risk(0.0, LOOSE) for _ in range(3)], NOW
    ledgers = [Ledger(s) for s in app_state.BUDGET_WINDOWS.tolist()]
    for (gap, count, risk), (which, anew), price in zip(steps, routes, prices, strict=False):
        now += gap
        if anew:
            nodes[which] = of_risk(0.0, LOOSE)
        find(nodes[which], risk)
        set_price(nodes[which], price)
        ask(nodes[which], now, count=count)
        events = nodes[which].take_events()
        for ledger in ledgers:
            ledger.note(events, now)
            asked, spent = ledger.held(now)
            assert spent <= LOOSE * asked + 1e-5


def test_a_burst_of_high_risk_is_refused_only_as_far_as_its_requests_allow() -> None:
    made = of_risk(0.9)
    for k in range(20):
        ask(made, NOW + 5 * k, count=1_000)
    events = made.take_events()
    refused = [e for e in events if e.action != Action.ADMIT]
    assert 0.9 * RATE * len(events) <= spending(events) <= RATE * len(events) + 1e-6
    assert {Reason(e.reason) for e in refused} == {Reason.RISK_HIGH}
    spared = [e for e in events if e.action == Action.ADMIT]
    # the request is the same each time, so some of them are repeats that waited
    why = {(Stage.RERANK, Reason.ERROR_BUDGET_SPENT), (Stage.RERANK, Reason.WAITED)}
    assert (Stage.RERANK, Reason.ERROR_BUDGET_SPENT) in {(e.stage, e.reason) for e in spared} <= why


def test_a_tier_without_a_budget_is_refused_as_before() -> None:
    made = of_risk(0.9)
    of_tier(made, Tier.PREMIUM, cohort_prior=0.9)
    ask(made, NOW, count=200)
    events = made.take_events()
    assert all(e.action != Action.ADMIT for e in events)
    assert not made.state.asked.any() and not made.state.spent.any()
    assert all(unpack(e.signals)[S["error_budget_left"]] == math.inf for e in events)


def test_the_bottom_of_the_headroom_refuses_without_spending() -> None:
    made = of_risk(0.1)
    for _ in range(9):
        ask(made, NOW, count=1_000)
    events = made.take_events()
    refused = [e for e in events if e.action != Action.ADMIT]
    assert len(refused) == 1_001  # it ends a whole burst below zero
    assert {Reason(e.reason) for e in refused} == {Reason.BURST_EXHAUSTED}
    assert not made.state.spent.any() and not made.state.ml_refused.any()


def test_an_override_that_refuses_spends_nothing_and_is_not_held_up() -> None:
    forced = Override(id="o", kind="app", subject="app_1", until=NOW + 60, action=1)
    made = of_risk(0.1, overrides=[forced])
    assert {a.action for a in ask(made, NOW, count=50)} == {Action.DEFER}
    assert not made.state.spent.any()


def test_the_budget_holds_where_the_tier_does_not_fit_its_service_too() -> None:
    made = of_risk(0.3, 0.01)
    set_price(made, 4.0)
    answers = ask(made, NOW, count=1_000)
    refused = sum(a.action != Action.ADMIT for a in answers)
    assert refused == math.floor(0.01 * 1_000 / 0.7)


def with_budget(tier: Tier, risk: float, short: bool) -> Engine:
    """Return an engine with an app of `tier`, of which ML may refuse a tenth wrongly."""
    made = of_risk(risk)
    tiers = [msgspec.structs.replace(each, error_budget=0.1) for each in defaults.TIERS]
    made.apply(with_model(tiers=tiers), made.model)
    of_tier(made, tier, cohort_prior=0.9)
    if short:
        row = made.shared.service[0]
        row[shared_state.PRICE] = service_control.PRICE_MAX
        row[shared_state.LEVEL :] = 0.0
    return made


@pytest.mark.parametrize("tier", Tier)
def test_where_nothing_is_short_every_tier_has_its_budget(tier: Tier) -> None:
    made = with_budget(tier, 0.8, short=False)
    answers = [ask(made, NOW + k)[0] for k in range(100)]
    assert 30 <= sum(a.action != Action.ADMIT for a in answers) <= 50
    assert spending(made.take_events()) <= 0.1 * 100


@pytest.mark.parametrize("tier", Tier)
def test_below_enterprise_a_short_service_refuses_and_spends_nothing(tier: Tier) -> None:
    made = with_budget(tier, 0.3, short=True)
    # each time another request, so that none of them has a place
    answers = [ask(made, NOW + k, path=f"/v2/orders/{k}")[0] for k in range(60)]
    refused = sum(answer.action != Action.ADMIT for answer in answers)
    spent = float(made.state.spent[made.slot_of("app_1")].sum())
    if tier == Tier.ENTERPRISE:
        assert refused <= 0.1 * 60 / 0.7
    else:
        assert (refused, spent) == (60, 0.0)


def test_under_overload_the_lower_tiers_pay_and_enterprise_is_hardly_refused() -> None:
    made = of_risk(0.2)
    of_tier(made, Tier.ENTERPRISE, "big", "t_big", cohort_prior=0.9)
    of_tier(made, Tier.FREE, "small", "t_small", cohort_prior=0.9)
    now = NOW
    for step in range(1_200):
        now += 0.05
        path = {"method": "POST", "path": "/v2/payments/charges"}
        apps = ["big"] + ["small"] * (2 if step > 100 else 0)
        made.decide([CheckRequest(app, **path) for app in apps], now)
        if step % 4 == 0:
            made.tick(now)
    refused = defaultdict(list)
    for event in made.take_events():
        refused[event.app].append(event.action != Action.ADMIT)
    assert np.mean(refused["big"]) <= RATE
    assert np.mean(refused["small"]) > 0.3


def test_a_batch_is_allowed_what_one_request_after_the_other_is() -> None:
    together, apart = of_risk(0.9, 0.01), of_risk(0.9, 0.01)
    many = [a.action for a in ask(together, NOW, count=300)]
    assert many == [ask(apart, NOW)[0].action for _ in range(300)]
    assert set(many) == {Action.ADMIT, Action.DEFER}


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=6), st.integers(0, 7))
def test_the_forecast_finds_the_budget_that_the_retry_finds(steps, which: int) -> None:
    made, now = of_risk(0.0, LOOSE), NOW
    for gap, count, risk in steps:
        now += gap
        find(made, risk)
        ask(made, now, count=count)
    made.batch.rows[0], step = steps[-1][1] - 1, np.array([which])
    kernels.project(made.arena.table, step, step, 1, now)
    forecast = made._ahead.signals[0, policy.S_BUDGET]
    ask(made, now + float(WAITS[which]))
    assert forecast == made.signals[0, policy.S_BUDGET]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(STEPS, st.sampled_from(Tier)), min_size=1, max_size=12))
def test_every_decision_under_a_budget_decides_the_same_again_to_the_bit(steps) -> None:
    made, now = of_risk(0.0, LOOSE), NOW
    for (gap, count, risk), tier in steps:
        now += gap
        find(made, risk)
        made.know([Profile(f"app_{tier}", "", "t2", tier, NOW, True, cohort_prior=0.9)], NOW)
        ask(made, now, app=f"app_{tier}", count=count)
    for event in made.take_events():
        assert decide_again(event, made.config, None).identical, event


def test_an_evicted_app_begins_with_nothing_asked_and_nothing_spent() -> None:
    made = of_risk(0.9, LOOSE)
    ask(made, NOW, count=200)
    slot = made.slot_of("app_1")
    assert made.state.spent[slot].any()
    for k in range(200):
        ask(made, NOW + 10_000 + k, app=f"other_{k}")
    assert made.slot_of("app_1") < 0
    assert not made.state.spent.any() and not made.state.asked.any()


def test_time_that_runs_backwards_gives_no_budget_back() -> None:
    made = of_risk(0.9, LOOSE)
    ask(made, NOW, count=400)
    left = made.signals[399, policy.S_BUDGET]
    assert left < 0.1
    ask(made, NOW - 7_200)
    assert made.signals[0, policy.S_BUDGET] <= left + LOOSE + 1e-9


def old_records() -> Iterator[tuple[np.ndarray, float, float]]:
    """Yield signals as they were recorded before the budget was a rate, with risk and value."""
    draw = random.Random(24)
    for _ in range(3_000):
        tier, short = draw.randrange(4), draw.random() < 0.3
        plan = defaults.TIERS[tier]
        seen = {
            "tier": tier,
            "ml_state": MlState.LIVE,
            "override_action": -1,
            "override_multiplier": 1,
            "quota_left": 100,
            "quota_limit": 1e6,
            "bucket_rate": plan.rate,
            "bucket_burst": plan.burst,
            "tokens": draw.uniform(1.0, plan.burst),
            "cost": 2.0,
            "batchable": draw.randrange(2),
            "service_price": draw.uniform(0.0, 2.0) if short else 0.0,
            "tenant_usage": draw.uniform(0.0, 20.0),
            "tenant_fair_share": 10.0 if short else math.inf,
            "error_budget_left": draw.uniform(0.0, plan.error_budget_per_hour),
            "prior_risk": draw.uniform(0.0, 0.3),
            "prior_value": 0.5,
        }
        row = np.zeros(S["lease_due"] + 1)
        for name, value in seen.items():
            row[S[name]] = value
        yield unpack(row.tobytes()), draw.random(), draw.random()


def test_records_of_before_the_rate_are_decided_as_they_were() -> None:
    """The digest is of what the code decided that recorded them."""
    # the weights of harm that the starting document had then
    then = [
        msgspec.structs.replace(tier, harm=harm)
        for tier, harm in zip(defaults.TIERS, (1.4, 1.2, 1.1, 1.0), strict=True)
    ]
    rules = policy.rules_of(msgspec.structs.replace(defaults.config(), tiers=then))
    x = np.zeros(features.N_FEATURES, np.float32)
    x[features.INDEX["cohort_prior"]] = 1.0
    found = [policy.decide(s, x, risk, value, rules) for s, risk, value in old_records()]
    text = ";".join(f"{int(a)},{int(s)},{int(r)},{wait:.6f}" for a, s, r, wait in found)
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == "11e0b73bcf5ba966"


def test_a_document_of_before_the_rate_is_read_and_means_the_tiers_own() -> None:
    plain = msgspec.to_builtins(in_format_1())
    assert all(tier.pop("error_budget") is None for tier in plain["tiers"])
    del plain["format"]
    found = configs.decode(msgspec.msgpack.encode(plain))
    assert [configs.error_budget_of(found, tier) for tier in Tier] == [1.0, 1.0, 1.0, RATE]
    # older deciders can still read a document that sets no budget
    assert configs.needed_format(in_format_1()) == (1, "")
    assert "error_budget" not in msgspec.msgpack.decode(configs.encode(found))["tiers"][3]


def test_a_budget_of_its_own_needs_the_format_that_has_it() -> None:
    plain = in_format_1()
    tiers = [*plain.tiers[:3], msgspec.structs.replace(plain.tiers[3], error_budget=0.001)]
    own = msgspec.structs.replace(plain, tiers=tiers)
    assert configs.needed_format(own) == (3, "tiers.*.error_budget")
    assert configs.error_budget_of(configs.decode(configs.encode(own)), Tier.ENTERPRISE) == 0.001
    for wrong in (0.0, -0.1, 1.1, math.nan):
        bad = [*defaults.TIERS[:3], msgspec.structs.replace(defaults.TIERS[3], error_budget=wrong)]
        with pytest.raises(configs.ConfigError):
            configs.decode(configs.encode(msgspec.structs.replace(own, tiers=bad)))


def test_the_budget_costs_an_app_no_more_than_40_bytes() -> None:
    state = app_state.allocate(1_000)
    arrays = (state.asked, state.ml_refused, state.spent)
    assert sum(a.nbytes for a in arrays) / 1_000 <= 40


def test_the_signals_of_a_decision_say_what_the_budget_was() -> None:
    made = of_risk(0.9, LOOSE)
    ask(made, NOW, count=10)
    seen = [unpack(e.signals) for e in made.take_events()]
    assert len(seen[0]) == N_SIGNALS
    assert {s[S["error_budget_rate"]] for s in seen} == {LOOSE}
    assert [s[S["error_budget_left"]] for s in seen[:2]] == pytest.approx([LOOSE, 2 * LOOSE])
