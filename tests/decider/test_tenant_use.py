"""Pairs of services and tenants: found again whatever happens to the tables, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts.config import Service
from decider.engine.shared import state as shared
from decider.engine.shared import tables, tenant_use

NOW = 1_790_000_000.0


def region(services: int = 3) -> shared.Region:
    made = shared.allocate(services, 8)
    made.weight[:] = 1.0
    made.service[:, shared.CAPACITY] = 100.0
    made.service[:, shared.LEVEL :] = math.inf
    return made


def ask(made: shared.Region, service: int, tenant: int, cost: float = 1.0, at: float = NOW) -> int:
    return tenant_use.note_demand(made, service, tenant, 1, cost, at)


def demand_of(made: shared.Region, service: int, tenant: int) -> float:
    at = tenant_use.find(made, service, tenant)
    return float(made.pair[at]["demand"]) if at >= 0 else 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 2), st.integers(-3, 40), st.integers(1, 5)),
            st.just("rotate"),
        ),
        max_size=120,
    )
)
def test_what_a_pair_asks_for_is_what_a_plain_dictionary_counts(steps) -> None:
    """A pair that is used at least once between two rotations loses nothing."""
    made, plain = region(), {}
    for step in steps:
        if step == "rotate":
            for service, tenant in plain:
                ask(made, service, tenant, 0.0)
            made = tables.rotate(made)
        else:
            service, tenant, cost = step
            ask(made, service, tenant, cost)
            plain[service, tenant] = plain.get((service, tenant), 0.0) + cost
    for (service, tenant), cost in plain.items():
        ask(made, service, tenant, 0.0)
        assert demand_of(made, service, tenant) == pytest.approx(cost / tenant_use.DEMAND_TAU_S)
    for service in range(3):
        own = tenant_use.own_pairs(made, service, NOW)
        assert sorted(own["tenant"]) == sorted(t for s, t in plain if s == service)


def test_a_pair_tells_what_it_asks_for_and_uses_as_of_now() -> None:
    made = region()
    at = ask(made, 0, 7, 9.0)
    tenant_use.note_admitted(made, at, 3.0)
    later = tenant_use.USE_TAU_S
    own = tenant_use.own_pairs(made, 0, NOW + later)[0]
    use_tau, demand_tau = tenant_use.USE_TAU_S, tenant_use.DEMAND_TAU_S
    assert own["use"] == pytest.approx(3.0 / use_tau * math.exp(-later / use_tau))
    assert own["demand"] == pytest.approx(9.0 / demand_tau * math.exp(-later / demand_tau))


def test_a_pair_that_nobody_uses_is_forgotten_after_two_rotations() -> None:
    made = region()
    ask(made, 0, 7)
    made = tables.rotate(made)
    assert len(tenant_use.own_pairs(made, 0, NOW)) == 1
    made = tables.rotate(made)
    assert len(tenant_use.own_pairs(made, 0, NOW)) == 0


def test_the_table_grows_with_the_pairs_in_use_and_shrinks_again() -> None:
    made = region()
    assert len(made.pair) < shared.LEAST_ROWS + 16
    for tenant in range(20_000):
        ask(made, tenant % 3, tenant)
        if tables.wants_rotation(made, 0.0):
            made = tables.rotate(made)
    assert 20_000 < made.pairs_of[shared.SIZE] <= 131_072
    for _ in range(2):
        ask(made, 0, 1)
        made = tables.rotate(made)
    assert made.pairs_of[shared.SIZE] == shared.LEAST_ROWS


def test_a_full_table_shares_rows_by_service_and_tier_and_goes_on() -> None:
    made = region()
    for tenant in range(2 * shared.LEAST_ROWS):
        ask(made, 0, tenant)
    assert made.pairs_of[shared.USED] <= shared.LEAST_ROWS
    spare = ask(made, 0, 10**9)
    assert spare >= made.pairs_of[shared.SIZE]
    assert made.pair[spare]["demand"] > 500.0
    # of another service it is another row
    assert ask(made, 1, 10**9) != spare


def test_256_services_and_a_million_tenants_take_memory_only_for_pairs_in_use() -> None:
    made = shared.allocate(256, 1_000_001)
    made.weight[:] = 1.0
    rng = np.random.default_rng(1)
    services, tenants = rng.integers(0, 256, 50_000), rng.integers(1, 1_000_001, 50_000)
    for service, tenant in zip(services.tolist(), tenants.tolist(), strict=True):
        ask(made, service, tenant)
        if tables.wants_rotation(made, 0.0):
            made = tables.rotate(made)
    assert made.pair.nbytes + made.earlier.nbytes < 50e6


def service(name: str) -> Service:
    return Service(name=name, prefixes=[f"/{name}"], capacity=100.0, latency_ms=10.0)


def test_pairs_follow_their_services_through_a_new_document() -> None:
    names = ["a", "b", "c"]
    made = tables.carry_over(None, {}, [service(n) for n in names], 8)
    made.weight[:] = 1.0
    ask(made, 0, 5, 10.0)
    ask(made, 2, 5, 30.0)
    index = {name: k for k, name in enumerate(names)}
    same = tables.carry_over(made, index, [service(n) for n in names], 8)
    assert same is made
    # a is gone, c comes first, and d is new
    other = tables.carry_over(made, index, [service("c"), service("d"), service("b")], 8)
    assert demand_of(other, 0, 5) == 15.0
    assert demand_of(other, 1, 5) == 0.0
    assert len(tenant_use.own_pairs(other, 2, NOW)) == 0


def test_a_share_is_divided_by_what_is_asked_at_each_decider() -> None:
    made = region()
    at = ask(made, 0, 5, 20.0)  # 10 a second here
    made.service[0, shared.LEVEL :] = 12.0
    assert tenant_use.fair_share(made, at) == 12.0
    named = np.zeros(1, tenant_use.NAMED)
    named[0] = (0, 0, 1.0, 30.0, 30.0, 5)
    made.pairs_of[shared.MERGE] += 1
    tenant_use.take_others(made, np.zeros(1, np.int64), named)
    assert tenant_use.fair_share(made, at) == 3.0
    assert tenant_use.share_of_capacity(made, at) == pytest.approx(0.4)
    # figures of the merge before do not count
    made.pairs_of[shared.MERGE] += 1
    assert tenant_use.fair_share(made, at) == 12.0


def test_tenants_that_others_do_not_name_have_their_part_of_the_room() -> None:
    made = region()
    ask(made, 0, 5, 200.0)  # 100 a second
    made.rest[0, :2] = (100.0, 3.0)  # of tier 0, as three tenants of weight 1
    tenant_use.share_levels(made, 0, 80.0, NOW)
    assert made.service[0, shared.LEVEL] == pytest.approx(20.0, abs=0.01)
