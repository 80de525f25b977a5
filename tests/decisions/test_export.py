"""CSV export: every row with its weight, nothing a spreadsheet would run, only for who may, and on
record.
"""

from __future__ import annotations

import csv
import io
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.models import AuditEntry
from decisions.models import Decision
from decisions.search import export, lookup
from decisions.search.filters import Filters
from tests.decisions.factory import event, unranked

pytestmark = pytest.mark.django_db
CSV = "/lookup.csv"


def rows_of(response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))


def test_it_holds_what_the_search_finds_with_the_weight(store, known, browser) -> None:
    refused, _ = store([event(inclusion_probability=0.25), unranked()])
    response = browser().get(CSV, {"f": "1", "action": "defer"})
    (row,) = rows_of(response)
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert (row["decision"], row["weight"], row["inclusion_probability"]) == (
        f"dec_{refused.id.hex()}",
        "4.0",
        "0.25",
    )
    assert (row["action"], row["app_name"], row["reason"]) == ("defer", "Order sync", "risk_high")


def test_who_took_what_is_in_the_audit_log(store, known, browser) -> None:
    store([event()])
    rows_of(browser().get(CSV, {"q": "order sync", "f": "1", "-action": "block"}))
    entry = AuditEntry.objects.get(action="decisions.export")
    assert entry.actor_login == "support@example.org"
    assert entry.summary == "exported decisions of app Order sync as CSV"
    assert entry.after == {"filters": "range=1h&f=1&not_action=block", "apps": ["app_7q2m4kx9"]}


@pytest.mark.parametrize("role", ["ml_owner", "policy_admin", ""])
def test_others_may_not_and_nothing_is_recorded(store, browser, role) -> None:
    store([event()])
    assert browser(role).get(CSV).status_code == 403
    assert {entry.action for entry in AuditEntry.objects.all()} <= {"access.denied"}


@pytest.mark.parametrize(
    "query", ["?action=explode", "?as=x", "?q=nothing+like+this", "?q=token:" + "ab" * 16]
)
def test_what_cannot_be_read_is_refused_and_not_recorded(browser, query) -> None:
    assert browser().get(CSV + query).status_code == 400
    assert not AuditEntry.objects.exists()


@given(st.text(max_size=20), st.sampled_from(["=", "+", "-", "@", "\t", "\r", " =", "\n+"]))
def test_no_cell_begins_as_a_formula(text, start) -> None:
    assert export.safe(start + text).startswith("'")
    assert export.safe("a" + text) == "a" + text


def test_hostile_texts_stay_text(store, browser) -> None:
    store([event(app="=HYPERLINK(1)", endpoint='/x,"y"\n', request_id="@cmd", service="-1")])
    (row,) = rows_of(browser().get(CSV))
    assert (row["app"], row["endpoint"], row["request_id"], row["service"]) == (
        "'=HYPERLINK(1)",
        '/x,"y"\n',
        "'@cmd",
        "'-1",
    )


def test_every_cell_is_quoted(store, browser) -> None:
    store([event(app="=1+1", risk=None, raw_risk=None), event(request_id='a"b')])
    head, *lines = b"".join(browser().get(CSV).streaming_content).decode().splitlines()
    assert head == ",".join(f'"{name}"' for name in export.COLUMNS)
    for line in lines:
        assert re.fullmatch(r'"(?:[^"]|"")*"(?:,"(?:[^"]|"")*")*', line)
    assert any(',"\'=1+1",' in line for line in lines)
    assert any(',"a""b",' in line for line in lines)


def test_few_rows_are_held_at_once(store, monkeypatch) -> None:
    store([event() for _ in range(25)])
    monkeypatch.setattr(export, "CHUNK", 10)
    made = export.lines(lookup.rows(lookup.interpret(""), Filters(range="all"), time.time()))
    assert [line.count("\r\n") for line in made] == [1, 10, 10, 5]
    assert Decision.objects.count() == 25
