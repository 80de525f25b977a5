"""A parameter that no operation knows is refused and named: an ignored filter would answer with
everything.
"""

from __future__ import annotations

import json
import keyword
import re
import time

import pytest

from decisions.models.decision import SavedSearch
from decisions.search.filters import DIMENSIONS
from tests.api.conftest import problem
from tests.decisions.factory import event
from tests.pages import shown

LIST, EXPORT, PAGE_EXPORT = "/api/v1/decisions", "/api/v1/exports/decisions", "/lookup.csv"


@pytest.fixture
def schema(caller) -> dict:
    return caller().get("/api/v1/schema?format=json").json()


def test_every_operation_refuses_a_parameter_that_it_does_not_know(schema, caller) -> None:
    client, seen = caller("support"), 0
    for path, methods in schema["paths"].items():
        if "{" in path or "get" not in methods or "/tokens" in path:
            continue
        answer = client.get(path, {"aktion": "block"})
        if answer.status_code == 403:
            continue
        seen += 1
        told = problem(answer)
        assert told["status"] == 400, path
        assert [fault["pointer"] for fault in told["errors"]] == ["/aktion"]
        for parameter in methods["get"].get("parameters", []):
            if parameter.get("in") == "query":
                assert parameter["name"] in told["detail"]
    assert seen >= 5


def test_an_operation_that_changes_something_takes_no_parameter(caller) -> None:
    answer = caller().post("/api/v1/lookup?text=x", {"text": "x"}, format="json")
    assert "takes none" in problem(answer)["detail"]


def test_a_parameter_that_counts_once_is_not_given_twice(caller) -> None:
    told = problem(caller().get(f"{LIST}?range=1h&range=7d&action=block&action=shed"))
    assert [(f["pointer"], f["detail"]) for f in told["errors"]] == [
        ("/range", "It is given 2 times; give it once.")
    ]


def test_a_stranger_learns_no_parameters(client, db) -> None:
    assert problem(client.get(f"{LIST}?aktion=block"))["status"] == 401


@pytest.mark.parametrize("address", [EXPORT, PAGE_EXPORT])
def test_an_export_with_a_mistyped_filter_exports_nothing(store, caller, browser, address) -> None:
    store([event(app="app_other")])
    client = caller() if address == EXPORT else browser()
    answer = client.get(f"{address}?range=all&ap=app_7q2m4kx9")
    assert answer.status_code == 400
    assert (
        "“ap”" in shown(answer) if address == PAGE_EXPORT else "“ap”" in problem(answer)["detail"]
    )
    assert "not_action" in answer.content.decode()


def test_lookup_says_that_it_does_not_know_a_filter(browser, db) -> None:
    answer = browser().get("/lookup?f=1&aktion=block")
    assert answer.status_code == 422
    assert "There is no filter “aktion”." in shown(answer)


def test_the_live_tail_refuses_a_filter_it_does_not_know(browser, db) -> None:
    after = "after=019e7044-8800-7659-9965-58f77ba88f92"
    assert browser().get(f"/ui/lookup/tail?{after}&f=1&aktion=block").status_code == 400


def test_every_name_in_the_document_is_one_that_generated_code_can_have(schema) -> None:
    names = [
        (path, parameter["name"])
        for path, methods in schema["paths"].items()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
        if "name" in parameter
    ]
    assert names
    word = re.compile(r"[a-z][a-z0-9_]*")
    assert [name for name in names if not word.fullmatch(name[1])] == []
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            mine = [p["name"] for p in operation.get("parameters", []) if "name" in p]
            # generators turn a keyword into "from_", which must not meet another name
            told = [f"{name}_" if keyword.iskeyword(name) else name for name in mine]
            assert len(set(told)) == len(told), path
            assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"])


def test_each_facet_has_a_name_for_what_it_excludes(schema) -> None:
    names = {p["name"] for p in schema["paths"][LIST]["get"]["parameters"] if "name" in p}
    assert {d.without for d in DIMENSIONS} <= names
    assert not any(name.startswith("-") for name in names)


def test_a_link_and_a_saved_search_of_before_still_exclude(store, browser) -> None:
    store([event(at=time.time() - 20)])
    client = browser()
    old = shown(client.get("/lookup?range=1h&f=1&-action=defer"))
    assert "Without Defer" in old
    assert "not_action=defer" in old
    assert re.findall(r'href="[^"]*-action=|name="-action"', old) == []
    client.post("/lookup/saved", {"name": "One", "query": "range=1h&f=1&-action=defer"})
    assert SavedSearch.objects.get().query == "range=1h&f=1&not_action=defer"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2025-11-18T14:21", "2025-11-18T15:21"),
        ("2025-11-18T14:21Z", "2025-11-18T15:21"),
        ("2025-11-18", "2025-11-19"),
        ("2025-11-18T14:21 01:00", "2025-11-18T15:21Z"),
    ],
)
def test_a_time_without_a_zone_is_refused(caller, start: str, end: str) -> None:
    for address in (LIST, f"{LIST}/counts", EXPORT):
        told = problem(caller().get(address, {"from": start, "to": end}))
        assert told["status"] == 400
        for fault in told["errors"]:
            assert "with its zone, as 2025-11-18T14:21Z" in fault["detail"]


def test_a_time_with_a_zone_is_read(caller) -> None:
    times = {"from": "2025-11-18T14:21+01:00", "to": "2025-11-18T15:21Z"}
    assert caller().get(LIST, times).status_code == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"NaN"', '"inf"'])
def test_a_number_that_json_does_not_have_is_refused(caller, number: str) -> None:
    one = {"key": "k", "kind": "churn", "app": "a", "occurred_at": "2026-01-14T09:30:00Z"}
    body = json.dumps({"reason": "a test", "outcomes": [one]})
    body = body.replace('"kind"', f'"weight": {number}, "kind"')
    answer = caller("policy_admin").generic(
        "POST", "/api/v1/outcomes", body, content_type="application/json"
    )
    assert problem(answer)["status"] == 400
