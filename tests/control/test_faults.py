"""Rules that can never match are refused when a change brings them in, with what to write."""

from __future__ import annotations

import math
import re
import time

import msgspec
import pytest

from control.config import changes, faults
from control.errors import Refused
from decider.contracts import config as document
from decider.contracts import defaults
from decider.contracts.config import (
    Config,
    EndpointPolicy,
    ListEntry,
    Override,
    Service,
    Switch,
    TenantPolicy,
    UnknownApps,
)
from tests.control.conftest import DELE

pytestmark = pytest.mark.usefixtures("first")

START = defaults.config()
NOW = 1_790_000_000.0
FREE, *OTHER_TIERS = START.tiers


def change(**fields: object) -> Config:
    changes.make_version(
        by=DELE,
        reason="A test",
        action="test.change",
        subject="config",
        summary="changed something",
        edit=lambda c: msgspec.structs.replace(c, **fields),
    )
    return changes.current()


def payments(**fields: object) -> dict[str, object]:
    """The services of the starting document, with changes to payments."""
    rows = [
        msgspec.structs.replace(s, **fields) if s.name == "payments" else s for s in START.services
    ]
    return {"services": rows}


def endpoint(method: str, template: str, batch: str = "") -> dict[str, object]:
    return payments(endpoints=[EndpointPolicy(method, template, batch=batch)])


def free(**fields: object) -> dict[str, object]:
    return {"tiers": [msgspec.structs.replace(FREE, **fields), *OTHER_TIERS]}


def override(**fields: object) -> dict[str, object]:
    base = {"id": "ovr_1", "kind": "app", "subject": "app_1", "until": 9e9}
    return {"overrides": [Override(**(base | fields))]}


CHARGES = "/v2/payments/charges"
REFUSED = [
    (
        payments(prefixes=["/v2/payments/"]),
        "prefix '/v2/payments/' of service payments .* write /v2/payments[.]",
    ),
    (payments(prefixes=["/v2/payments\n"]), r"prefix '/v2/payments\\n' .* is no path"),
    (payments(prefixes=["/v2/payments?a"]), "write /v2/payments[.]"),
    (payments(prefixes=["/v2/%70ayments"]), "write /v2/payments[.]"),
    (payments(prefixes=["/v2/{tenant}/pay"]), "prefix .* has a parameter.* the part before it"),
    (payments(prefixes=["/v2/payments%2F"]), "is no path: write one such as /v2/orders"),
    (
        payments(prefixes=["/v2/payments", "/v2/search"]),
        "prefix /v2/search of service payments is also one of search, .* once",
    ),
    (payments(prefixes=["/v2/payments"] * 2), "prefix /v2/payments of service payments is also"),
    (payments(name="pay\n"), r"name 'pay\\n' of a service is not 1 to 128 visible"),
    (payments(name="search"), "two services have the name search"),
    (endpoint("POST", CHARGES + "/"), f"'POST {CHARGES}/' .* write {CHARGES}, where"),
    (endpoint("GET", CHARGES + "/:id"), f"write {CHARGES}/{{id}}, where"),
    (endpoint("GET", CHARGES + "/{charge_id}"), f"write {CHARGES}/{{id}}, where"),
    (endpoint("GET", CHARGES + "/<id>/lines/*"), f"write {CHARGES}/{{id}}/lines/{{id}}, where"),
    (endpoint("GET", CHARGES + "/17"), f"write {CHARGES}/{{id}}, where"),
    (endpoint("GET", CHARGES + "/{id}:void"), "{id} as a whole segment"),
    (endpoint("GET", CHARGES + "%2F"), "write a path such as"),
    (endpoint("GET", CHARGES + "?a=b"), f"write {CHARGES}, where"),
    (endpoint("GET", "/" + "long/" * 50), "write at most 200 characters"),
    (endpoint("GET\n", CHARGES), "has no method of 3 to 7 capital letters"),
    (payments(endpoints=[EndpointPolicy("POST", CHARGES)] * 2), f"endpoint POST {CHARGES} 2 times"),
    (endpoint("POST", CHARGES, "batch"), "'batch' .* names none of its endpoints.* such as POST"),
    (endpoint("POST", CHARGES, "POST /v2/orders:batchGet"), "names none of its endpoints"),
    (endpoint("POST", CHARGES, "POST /v2/payments/charges/"), "names none of its endpoints"),
    (payments(capacity=0.0), r"Expected `float` > 0.0 - at `\$.services\[3\].capacity`"),
    (payments(capacity=math.nan), r"Expected `float` > 0.0 - at `\$.services\[3\].capacity`"),
    (payments(capacity=math.inf), r"<= 1000000000000.0 - at `\$.services\[3\].capacity`"),
    (payments(latency_ms=1e9), "latency_ms of service payments is 1e[+]09: write milliseconds"),
    (payments(target=0.0), "target of service payments is 0"),
    ({"tenants": [TenantPolicy("ten_1", -1.0)]}, r"> 0.0 - at `\$.tenants\[0\].weight`"),
    ({"tenants": [TenantPolicy("ten_1")] * 2}, "tenant ten_1 has 2 weights: name it once"),
    ({"tenants": [TenantPolicy("ten_1\n")]}, r"tenant 'ten_1\\n' is not 1 to 128"),
    (free(weight=-1.0), r"> 0.0 - at `\$.tiers\[0\].weight`"),
    (free(burst=0.5), "burst of tier free is 0.5, .* write at least 1"),
    (free(quota_per_day=0.2), "quota per day of tier free is 0.2, .* write at least 1"),
    ({"unknown_apps": UnknownApps(burst=0.5)}, "burst of unknown apps is 0.5"),
    ({"ml_time_limit_ms": 5_000.0}, "ml_time_limit_ms is 5000: write milliseconds from 0.01 to"),
    (override(multiplier=1e-5), "times override ovr_1 is 0.04, .* write at least 1"),
    (
        override(until=1_790_000_000_000.0),
        "override ovr_1 is 1790000000000, in milliseconds: write seconds, 1790000000",
    ),
    (override(until=3_600.0), "override ovr_1 is 3600, which is past: write unix seconds"),
    (
        {"lists": [ListEntry(verdict="block", kind="app", subject="app_1", until=1.79e12)]},
        "block app app_1 is 1790000000000, in milliseconds",
    ),
    ({"switches": [Switch("all_ml", until=1.79e12)]}, "switch all_ml is .* in milliseconds"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED)
def test_a_rule_that_can_never_work_is_refused_with_what_to_write(
    fields: dict[str, object], said: str
) -> None:
    before = changes.current()
    with pytest.raises(Refused) as refused:
        change(**fields)
    assert re.search(said, str(refused.value)), str(refused.value)
    assert changes.current() == before


def test_the_first_document_has_no_fault() -> None:
    assert list(faults.faults(START, NOW)) == []


def test_what_is_right_is_accepted() -> None:
    pay = Service(
        name="pay",
        prefixes=["/pay", "/pay/refunds"],
        capacity=10,
        latency_ms=20,
        endpoints=[
            EndpointPolicy("GET", "/pay/{id}", 2, "POST /pay:batchGet"),
            EndpointPolicy("POST", "/pay:batchGet", 4),
        ],
    )
    root = Service(name="site", prefixes=["/"], capacity=10, latency_ms=20)
    found = change(services=[*START.services, pay, root], **override(multiplier=0.5))
    assert [s.name for s in found.services][-2:] == ["pay", "site"]


def test_a_fault_of_before_stops_no_other_change(monkeypatch: pytest.MonkeyPatch) -> None:
    old = endpoint("GET", CHARGES + "/:id") | override(until=time.time() - 5)
    with monkeypatch.context() as before:
        before.setattr(changes.faults, "check", lambda new, old, now: None)
        change(**old)
    assert change(ml_time_limit_ms=7.0).services == old["services"]
    with pytest.raises(Refused, match="GET /v2/payments/:no"):
        change(**endpoint("GET", "/v2/payments/:no"))


def test_deciders_still_read_what_older_versions_published() -> None:
    for fields, said in REFUSED:
        # these the decider itself refuses, now as before
        if "Expected `float`" in said or "at `" in said or "two services" in said:
            continue
        payload = document.encode(msgspec.structs.replace(START, **fields))
        assert document.decode(payload).services
