"""When a service counts as short of room, and who pays then: the lowest tier first."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider import policy
from decider.contracts import defaults
from decider.contracts.features import N_FEATURES
from decider.contracts.signals import INDEX, N_SIGNALS
from decider.contracts.vocabulary import Action, MlState, Reason, Tier
from decider.engine.shared import service_control, tenant_use
from decider.engine.shared import state as shared

CAPACITY, TICK_S, NOW = 100.0, 0.2, 1_790_000_000.0
RULES = policy.rules_of(defaults.config())


def region(tenants: dict[int, tuple[Tier, float]] | None = None) -> shared.Region:
    """Return one service, and tenants by row: tier, and cost units a second asked for."""
    made = shared.allocate(1, 64)
    row = made.service[0]
    row[shared.CAPACITY], row[shared.TARGET], row[shared.USUAL_MS] = CAPACITY, 0.85, 20.0
    row[shared.LATENCY], row[shared.ABLE], row[shared.LEVEL :] = 20.0, 1.0, math.inf
    for tenant, (tier, demand) in (tenants or {}).items():
        made.tier[tenant], made.weight[tenant] = tier, 1.0
        at = tenant_use.note_demand(made, 0, tenant, tenant, 0.0, NOW)
        made.pair[at]["demand"] = demand
    return made


def load(made: shared.Region, rate: float, seconds: float, *, latency_ms: float = 20.0) -> float:
    """Ask for and admit `rate` cost units a second. Return the highest price on the way."""
    highest = 0.0
    for step in range(round(seconds / TICK_S)):
        now, row = NOW + step * TICK_S, made.service[0]
        for column in (shared.OFFERED, shared.ADMITTED, shared.ADMITS):
            row[column] = rate * TICK_S
        row[shared.ANSWERS], row[shared.FEEDBACK_AT] = rate * TICK_S, now
        row[shared.MS_SUM] = rate * TICK_S * latency_ms
        service_control.control(made, TICK_S, now)
        service_control.share_out(made, 0, now)
        highest = max(highest, row[shared.PRICE])
    return highest


@pytest.mark.parametrize("rate", [50.0, 90.0, 99.0])
def test_a_load_that_fits_the_capacity_has_no_price(rate: float) -> None:
    assert load(region(), rate, 120.0) == 0.0


def test_a_burst_that_is_worked_off_has_no_price() -> None:
    made = region()
    load(made, 60.0, 20.0)
    # 0.4 s of work
    assert load(made, 140.0, 1.0) == 0.0
    assert load(made, 60.0, 10.0) == 0.0


def test_a_lasting_overload_has_a_price_within_seconds_and_it_goes_as_fast() -> None:
    made = region()
    load(made, 60.0, 20.0)
    assert load(made, 200.0, 3.0) > 0.0
    load(made, 60.0, 30.0)
    assert made.service[0, shared.PRICE] == 0.0
    assert made.service[0, shared.QUEUE] == 0.0


def test_a_service_that_turns_slow_under_load_is_given_less_and_all_of_it_again_later() -> None:
    made = region()
    load(made, 80.0, 20.0)
    load(made, 80.0, 20.0, latency_ms=400.0)
    assert made.service[0, shared.ABLE] < 0.8
    assert made.service[0, shared.PRICE] > 0.0
    load(made, 20.0, 60.0)
    assert made.service[0, shared.ABLE] == 1.0


def test_a_backlog_that_is_worked_off_leaves_no_price_and_no_doubt_behind() -> None:
    made = region()
    load(made, 80.0, 20.0)
    for latency_ms in (300.0, 700.0, 1000.0, 1000.0):
        load(made, 130.0, 1.0, latency_ms=latency_ms)
    assert made.service[0, shared.PRICE] > 0.0
    for latency_ms in (600.0, 200.0, 20.0):
        load(made, 60.0, 1.0, latency_ms=latency_ms)
    load(made, 60.0, 5.0)
    assert made.service[0, shared.PRICE] == 0.0
    assert made.service[0, shared.ABLE] > 0.8


def test_without_answers_the_work_that_was_given_counts_as_waiting() -> None:
    made = region()
    row = made.service[0]
    for step in range(25):
        row[shared.OFFERED] = row[shared.ADMITTED] = row[shared.ADMITS] = 180.0 * TICK_S
        service_control.control(made, TICK_S, NOW + step * TICK_S)
    assert row[shared.PRICE] > 0.0
    assert row[shared.QUEUE] > service_control.UNSEEN_S


def test_a_service_that_is_slow_with_little_to_do_is_given_as_much_as_before() -> None:
    made = region()
    load(made, 10.0, 60.0, latency_ms=400.0)
    assert made.service[0, shared.ABLE] == 1.0


def levels(tenants: dict[int, tuple[Tier, float]]) -> list[float]:
    made = region(tenants)
    made.service[0, shared.PRICE], made.service[0, shared.ROOM] = 1.0, 100.0
    service_control.share_out(made, 0, NOW)
    return made.service[0, shared.LEVEL :].tolist()


def test_the_lowest_tier_pays_first() -> None:
    asked = {1: (Tier.FREE, 60.0), 2: (Tier.STANDARD, 30.0), 3: (Tier.ENTERPRISE, 50.0)}
    free, standard, premium, enterprise = levels(asked)
    assert free == pytest.approx(20.0, abs=1e-3)
    assert standard == premium == enterprise == math.inf
    free, standard, *_, enterprise = levels(asked | {4: (Tier.ENTERPRISE, 35.0)})
    assert (free, enterprise) == (0.0, math.inf)
    assert standard == pytest.approx(15.0, abs=1e-3)


@given(
    st.dictionaries(
        st.integers(1, 63),
        st.tuples(st.sampled_from(Tier), st.floats(0.1, 80.0)),
        min_size=1,
        max_size=20,
    )
)
def test_no_tier_pays_while_a_lower_one_has_room(asked) -> None:
    found = levels(asked)
    given = 0.0
    for tier in Tier:
        mine = [demand for of, demand in asked.values() if of == tier]
        given += sum(min(demand, found[tier]) for demand in mine)
        if found[tier] != math.inf:  # all below it are without room
            assert all(found[lower] == 0.0 for lower in range(tier) if _asks(asked, lower))
    total = sum(demand for _, demand in asked.values())
    assert given == pytest.approx(min(total, 100.0), abs=1e-3)


def _asks(asked: dict[int, tuple[Tier, float]], tier: int) -> bool:
    return any(of == tier for of, _ in asked.values())


FIGURES = {
    "tier": st.integers(0, 3),
    "service_price": st.floats(0.0, 4.0),
    "tenant_usage": st.floats(0.0, 500.0),
    "tenant_fair_share": st.one_of(st.just(math.inf), st.floats(0.0, 500.0)),
    "cost": st.floats(0.5, 5.0),
    "tokens": st.floats(1.0, 300.0),
    "prior_risk": st.floats(0.0, 0.2),
}


def decide(figures: dict[str, float], risk: float, value: float) -> tuple[int, int, int, float]:
    signals = np.zeros(N_SIGNALS)
    fixed = {
        "ml_state": MlState.LIVE,
        "quota_left": 1e6,
        "override_action": -1,
        "bucket_rate": 15.0,
        "bucket_burst": 300.0,
        "error_budget_left": math.inf,
        "error_budget_rate": 1.0,
        "prior_value": 0.5,
    }
    for name, figure in (fixed | figures).items():
        signals[INDEX[name]] = figure
    features = np.zeros(N_FEATURES, np.float32)
    features[:] = 1.0  # stands out, so that the model is asked
    return policy.decide(signals, features, risk, value, RULES)


@given(st.fixed_dictionaries(FIGURES), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_where_nothing_is_scarce_neither_value_nor_share_refuses(figures, risk, value) -> None:
    idle = {"service_price": 0.0, "tenant_fair_share": math.inf}
    for free in (figures | idle, figures | {"tenant_fair_share": math.inf}):
        action, _, reason, _ = decide(free, risk, value)
        assert reason not in (Reason.VALUE_LOW, Reason.TENANT_OVER_SHARE)
        if action != Action.ADMIT:
            # one of the usual value would have been refused as well, and so in an idle world
            assert decide(free, risk, 0.5)[0] != Action.ADMIT
            assert decide(figures | idle, risk, 0.5)[0] != Action.ADMIT
