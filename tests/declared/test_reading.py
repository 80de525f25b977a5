"""A wrong file says line, column and what would be right; a right one is taken as it stands."""

from __future__ import annotations

import jsonschema
import pytest

from control.declared import reading, schema
from control.declared.yaml_text import DeclarationError

RIGHT = """\
sluice: 1
gateways:
  edge: {kind: envoy}
services:
  orders:
    routes: [/v2/orders]
    capacity: 400
    latency_ms: 12
    endpoints:
      GET /v2/orders/{id}: {batch: "POST /v2/orders:batchGet"}
      "POST /v2/orders:batchGet": {cost: 4, costs: {stock: 1}, sign_in: false}
  stock: {routes: [], capacity: 80.5, latency_ms: 3, target: 0.7}
tiers:
  free: {rate: 5, burst: 50, quota_per_day: 50000, headroom_to: all}
tenants:
  acme: {name: Acme Ltd, weight: 2}
unknown_apps: {tier: standard, treatment: share}
lists:
  block:
    - source: 192.0.2.0/24
    - app: app_1
sampling: {admit: 0.01}
retention: {days: 30}
"""


def test_a_right_file_is_taken_as_it_stands() -> None:
    found = reading.read(RIGHT)
    assert found.services["orders"].endpoints["POST /v2/orders:batchGet"].costs == {"stock": 1.0}
    assert found.services["stock"].target == 0.7
    assert found.lists.block[1].app == "app_1"
    assert found.retention.days == 30


def test_the_schema_is_shipped_as_the_code_has_it() -> None:
    assert schema.SHIPPED.read_text() == schema.text()
    jsonschema.Draft202012Validator.check_schema(schema.schema())


def places(old: str, new: str) -> list[str]:
    assert old in RIGHT
    with pytest.raises(DeclarationError) as raised:
        reading.read(RIGHT.replace(old, new, 1))
    return [str(fault) for fault in raised.value.faults]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "capacity: 400",
            "capcity: 400",
            "line 7, column 5: `capcity` is not known here: write `capacity`",
        ),
        (
            "    capacity: 400\n",
            "",
            "line 5, column 3: `capacity` is missing here: cost units a second",
        ),
        (
            "capacity: 400",
            "capacity: fast",
            "line 7, column 15: `fast` is not a number: write one (Cost units",
        ),
        ("capacity: 400", 'capacity: "400"', "is not a number"),
        ("sluice: 1", "sluice: 1\nwidgets: []", "may stand here: sluice, gateways, services"),
        (
            "capacity: 400",
            "capacity: -1",
            "line 7, column 15: `-1` is out of range: write more than 0, and at most",
        ),
        ("capacity: 400", "capacity: 1e3", "`1e3` is a number to some readers"),
        ("[/v2/orders]", "[v2/orders]", "`v2/orders` does not begin with a slash: write a path"),
        ("[/v2/orders]", "/v2/orders", "is not a list, such as [a, b]"),
        ("kind: envoy", "kind: enovy", "line 3, column 16: `enovy` is not known here: write envoy"),
        ("  free:", "  fre:", "line 14, column 3: `fre` is not known here: write free"),
        ("  acme:", "  a cme:", "`a cme` is no name: write 1 to 128 visible ASCII"),
        ("GET /v2/orders/{id}:", "get /v2/orders:", "`get /v2/orders` is no endpoint"),
        ("sign_in: false", "sign_in: no", "`no` is true or false to some readers: write false"),
        ("sign_in: false", "sign_in: 0", "`0` is not true or false"),
        ("admit: 0.01", "admit: 1.01", "`1.01` is out of range: write 0 to 1"),
        ("days: 30", "days: 30.5", "`30.5` is not a whole number"),
        ("days: 30", "days: 0", "`0` is out of range: write 1 to 3650"),
        ("- app: app_1", "- {app: a, tenant: b}", "line 21, column 7: an entry names one app"),
        ("- app: app_1", "- {}", "an entry names one app, tenant or source"),
        ("192.0.2.0/24", "192.0.2.7/24", "write 192.0.2.0/24"),
        ("192.0.2.0/24", "nowhere", "line 20, column 15: `nowhere` cannot be used"),
        ("sluice: 1", "sluice: 2", "`2` is not known here: write one of 1"),
        (
            "sluice: 1",
            "sluice: 1\nswitches: []",
            "`switches` is not known here: a switch is engaged in the",
        ),
    ],
)
def test_a_wrong_file_says_where_and_what_would_be_right(old: str, new: str, says: str) -> None:
    assert any(says in place for place in places(old, new)), places(old, new)


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    wrong = RIGHT.replace("kind: envoy", "kind: x").replace("days: 30", "days: 0")
    with pytest.raises(DeclarationError) as raised:
        reading.read(wrong.replace("target: 0.7", "target: 7"))
    assert [fault.line for fault in raised.value.faults] == [3, 12, 23]


@pytest.mark.parametrize("text", ["", "[]", "- 1", "words", "null"])
def test_a_file_without_a_mapping_says_how_to_begin(text: str) -> None:
    with pytest.raises(DeclarationError, match="line 1, column 1: "):
        reading.read(text)
