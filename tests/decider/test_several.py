"""Endpoints that load several services: each counts, and the one that is short decides."""

from __future__ import annotations

import math

import msgspec
import pytest

from control.config import faults
from decider.contracts import config as configs
from decider.contracts import defaults
from decider.contracts.config import Config
from decider.contracts.requests import CheckRequest
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import unpack
from decider.contracts.vocabulary import Action, Reason, Tier
from decider.engine.engine import Engine
from decider.engine.routing import endpoints_at
from decider.engine.shared import several
from decider.engine.shared import state as shared
from decider.whatif.replay import decide_again
from tests.decider.model import small_model
from tests.decider.test_engine import NOW, of_tier, with_model

CHARGES = "/v2/payments/charges"
COSTS = {"payments": 1.0, "ledger-write": 2.0, "auth": 0.5}


def document(**costs: float) -> Config:
    """The starting document, in which a charge loads these services."""
    services = [
        msgspec.structs.replace(
            s,
            endpoints=[
                msgspec.structs.replace(e, cost=1.0, costs=costs) if e.template == CHARGES else e
                for e in s.endpoints
            ],
        )
        for s in defaults.SERVICES
    ]
    return with_model(services=services)


def engine(costs: dict[str, float] | None = None, tier: Tier = Tier.STANDARD) -> Engine:
    made = Engine("d01", "local", b"k" * 32, capacity=64)
    made.apply(document(**(COSTS if costs is None else costs)), small_model())
    of_tier(made, tier)
    return made


def ask(made: Engine, now: float, count: int = 1, path: str = CHARGES, service: str = "") -> list:
    request = CheckRequest("app_1", "POST", path, service=service)
    return made.decide([request] * count, now)


def set_price(made: Engine, service: str, price: float, level: float = 0.0) -> None:
    row = made.shared.service[made.router.index[service]]
    row[shared.PRICE], row[shared.LEVEL :] = price, level


def column(made: Engine, which: int) -> dict[str, float]:
    found = made.shared.service[:, which]
    return {name: float(found[row]) for name, row in made.router.index.items() if found[row]}


def test_a_request_counts_at_each_of_its_services() -> None:
    made = engine()
    assert [d.action for d in ask(made, NOW, 4)] == [Action.ADMIT] * 4
    each = {name: 4.0 * cost for name, cost in COSTS.items()}
    assert column(made, shared.OFFERED) == each
    assert column(made, shared.ADMITTED) == each


def test_where_no_service_is_short_its_own_stands_in_the_record() -> None:
    made = engine()
    ask(made, NOW)
    (event,) = made.take_events()
    assert event.service == "payments"
    assert unpack(event.signals)[S["cost"]] == 1.0


@pytest.mark.parametrize("short", sorted(COSTS))
def test_the_service_that_is_short_decides_and_is_named(short: str) -> None:
    made = engine()
    set_price(made, short, 8.0)
    refused = ask(made, NOW)[0]
    assert refused.action not in (Action.ADMIT, Action.BLOCK)
    (event,) = made.take_events()
    assert (event.service, event.endpoint) == (short, CHARGES)
    assert event.reason == Reason.SERVICE_OVERLOADED
    seen = unpack(event.signals)
    assert (seen[S["cost"]], seen[S["service_price"]]) == (COSTS[short], 8.0)
    assert column(made, shared.ADMITTED) == {}
    assert decide_again(event, made.config, made.model).action == event.action


def test_of_several_short_services_the_one_that_costs_most_decides() -> None:
    made = engine()
    for name, price in (("payments", 3.0), ("ledger-write", 2.0), ("auth", 4.0)):
        set_price(made, name, price)
    ask(made, NOW)
    assert made.take_events()[0].service == "ledger-write"  # 2 * 2.0 is more than 3.0 and 0.5 * 4.0


def test_a_wait_is_booked_at_the_service_that_is_short() -> None:
    made = engine()
    set_price(made, "ledger-write", 8.0)
    ask(made, NOW)
    assert list(column(made, shared.BOOKED)) == ["ledger-write"]


def test_an_endpoint_without_costs_is_decided_as_before() -> None:
    told, plain = engine(), engine({})
    for made in (told, plain):
        set_price(made, "ledger-write", 1.0, math.inf)
        ask(made, NOW, 40, "/v2/ledger/entries")
    for one, other in zip(told.take_events(), plain.take_events(), strict=True):
        assert (one.action, one.signals, one.features) == (
            other.action,
            other.signals,
            other.features,
        )


def test_no_spelling_of_a_path_is_cheaper() -> None:
    """A gateway may read a path that Sluice cannot: then it costs what the dearest endpoint does,
    at each service.
    """
    made = engine()
    ask(made, NOW, path="", service="payments")
    assert column(made, shared.OFFERED) == COSTS


def test_a_short_last_service_is_held_at_its_target() -> None:
    """A charge is nothing for payments and everything for the ledger."""
    made = engine({"payments": 0.1, "ledger-write": 2.0}, Tier.ENTERPRISE)
    capacity = next(s.capacity for s in defaults.SERVICES if s.name == "ledger-write")
    admitted, backlog, step = [], 0.0, 0.05
    for k in range(round(40.0 / step)):
        now = NOW + k * step
        request = [CheckRequest(f"app_{k % 7}", "POST", CHARGES) for _ in range(8)]
        taken = sum(d.action == Action.ADMIT for d in made.decide(request, now))
        backlog = max(0.0, backlog + 2.0 * taken - capacity * step)
        admitted.append(2.0 * taken / step)
        if k % 4 == 0:
            made.tick(now)
    settled = sum(admitted[len(admitted) // 2 :]) / (len(admitted) // 2)
    # 320 units a second are asked for
    assert settled == pytest.approx(0.85 * capacity, rel=0.15)


def test_costs_at_several_services_need_a_format_that_has_them() -> None:
    assert configs.needed_format(document(**COSTS))[0] == 4
    assert configs.needed_format(document())[0] < 4
    assert configs.decode(configs.encode(document(**COSTS))).services == document(**COSTS).services


def test_a_service_that_is_not_there_is_refused_and_read_as_none() -> None:
    new = document(payments=1.0, nowhere=2.0)
    (fault,) = set(faults.faults(new, NOW)) - set(faults.faults(document(), NOW))
    assert "'nowhere', which is no service" in fault
    made = engine({"payments": 1.0, "nowhere": 2.0})
    ask(made, NOW)
    assert column(made, shared.OFFERED) == {"payments": 1.0}


def test_two_costs_at_the_own_service_and_too_many_services_are_refused() -> None:
    twice = [
        msgspec.structs.replace(
            s, endpoints=[msgspec.structs.replace(e, cost=e.cost + 2.0) for e in s.endpoints]
        )
        for s in document(payments=2.0).services
    ]
    twofold = msgspec.structs.replace(document(), services=twice)
    (fault,) = [f for f in faults.faults(twofold, NOW) if "charges" in f]
    assert "two costs at its own service" in fault
    many = [
        msgspec.structs.replace(defaults.SERVICES[-1], name=f"s{k}", prefixes=[f"/s{k}"])
        for k in range(several.MOST_EACH)
    ]
    base = document(**{s.name: 1.0 for s in many})
    found = list(
        faults.faults(msgspec.structs.replace(base, services=[*base.services, *many]), NOW)
    )
    assert any("loads more than 8 services" in fault for fault in found)


def test_the_endpoints_at_a_service_have_their_cost_there() -> None:
    services = document(**COSTS).services
    at_ledger = endpoints_at(services, "ledger-write")
    assert at_ledger["POST", CHARGES].cost == 2.0
    assert at_ledger["POST", "/v2/ledger/entries"].cost == 2.0
    assert endpoints_at(services, "payments")["POST", CHARGES].cost == 1.0
    assert ("POST", CHARGES) not in endpoints_at(services, "search")
