"""A value of an outcome has one rule, whether it comes in a CSV file or over REST."""

from __future__ import annotations

import csv
import io

import pytest
from rest_framework.exceptions import ValidationError

from console.pages.outcomes.api import OutcomesIn
from decisions.outcomes import csv_file, report_input
from decisions.outcomes.csv_file import BadFile
from decisions.outcomes.reports import Report

GOOD = {
    "key": "cb-1",
    "kind": "chargeback",
    "occurred_at": "2026-01-14T09:30:00Z",
    "app": "app_1",
}


def from_file(values: dict[str, str]) -> Report | dict[str, str]:
    """Return the report of a file with this one line, or the sentences by column."""
    out = io.StringIO()
    writer = csv.DictWriter(out, values)
    writer.writeheader()
    writer.writerow(values)
    try:
        [(_, report)] = csv_file.parse_reports(out.getvalue().encode())
    except BadFile as error:
        return {p.column: p.text for p in error.problems}
    return report


def from_rest(values: dict[str, object]) -> Report | dict[str, str]:
    """Return the report of a request with this one outcome, or the sentences by field."""
    asked = OutcomesIn(data={"outcomes": [values], "reason": "a test"})
    try:
        asked.is_valid(raise_exception=True)
    except ValidationError as error:
        wrong = error.detail["outcomes"]
        return {field: str(texts[-1]) for field, texts in wrong[0].items()}
    (report,) = asked.validated_data["outcomes"]
    return report


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"occurred_at": "2026-01-14T10:30:00.25+01:00"},
        {"reported_at": "2026-01-15T00:00:00Z", "matured_at": "2026-01-16T00:00:00Z"},
        {"token_digest": "ab" * 16, "app": ""},
        {"decision": "dec_0197a5b2c3d47e8f9a0b1c2d3e4f5a6b"},
        {"weight": "2.5"},
        {"weight": "1e3"},
        {"note": ""},
        {"request_id": "ünï req"},
    ],
)
def test_a_good_value_becomes_the_same_report_through_both_doors(changes) -> None:
    report = from_file(GOOD | changes)
    assert isinstance(report, Report)
    assert from_rest(GOOD | changes) == report


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"key": ""}, "key"),
        ({"key": "dispute:1"}, "key"),
        ({"key": "k" * 201}, "key"),
        ({"key": "=cmd"}, "key"),
        ({"kind": "luck"}, "kind"),
        ({"kind": "Chargeback"}, "kind"),
        ({"key": " cb-1"}, "key"),
        ({"note": "twice\u00a0"}, "note"),
        ({"occurred_at": " 2026-01-14T09:30:00Z"}, "occurred_at"),
        ({"occurred_at": ""}, "occurred_at"),
        ({"occurred_at": "yesterday"}, "occurred_at"),
        ({"occurred_at": "2026-01-14"}, "occurred_at"),
        ({"occurred_at": "2026-01-14T09:30:00"}, "occurred_at"),
        ({"occurred_at": "2026-02-30T09:30:00Z"}, "occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
        ({"occurred_at": "2099-01-01T00:00:00Z"}, "occurred_at"),
        ({"reported_at": "2025-01-01T00:00:00Z"}, "reported_at"),
        ({"matured_at": "2025-01-01T00:00:00Z"}, "matured_at"),
        ({"app": ""}, "app"),
        ({"app": "two words"}, "app"),
        ({"app": "+1"}, "app"),
        ({"app": "a" * 129}, "app"),
        ({"token_digest": "ab"}, "token_digest"),
        ({"token_digest": "AB" * 16}, "token_digest"),
        ({"request_id": "=1+1"}, "request_id"),
        ({"request_id": "two\nlines"}, "request_id"),
        ({"decision": "dec_1"}, "decision"),
        ({"weight": "heavy"}, "weight"),
        ({"weight": "0"}, "weight"),
        ({"weight": "nan"}, "weight"),
        ({"weight": "Infinity"}, "weight"),
        ({"weight": "1_000"}, "weight"),
        ({"weight": "\uff11"}, "weight"),
        ({"weight": " 1"}, "weight"),
        ({"weight": "-1"}, "weight"),
        ({"weight": "2e9"}, "weight"),
        ({"note": "@home"}, "note"),
        ({"note": "n" * 501}, "note"),
    ],
)
def test_a_bad_value_gets_the_same_sentence_through_both_doors(changes, field) -> None:
    wrong = from_file(GOOD | changes)
    assert isinstance(wrong, dict)
    assert set(wrong) == {field}
    assert from_rest(GOOD | changes) == wrong


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", 7),
        ("note", None),
        ("app", ["app_1"]),
        ("occurred_at", 1_768_383_000),
        ("weight", True),
        ("weight", 10**400),
        ("note", "\ud800"),
        ("request_id", "\udfff"),
        ("decision", 1),
    ],
)
def test_a_json_value_of_another_type_is_refused_at_its_field(field, value) -> None:
    wrong = from_rest(GOOD | {field: value})
    assert isinstance(wrong, dict)
    assert set(wrong) == {field}


def test_a_null_stands_for_an_optional_value_that_is_not_given() -> None:
    nulls = dict.fromkeys(("reported_at", "matured_at", "decision"))
    assert from_rest(GOOD | nulls) == from_rest(GOOD)


def test_a_number_in_json_weighs_as_its_text_in_a_file() -> None:
    assert from_rest(GOOD | {"weight": 3}) == from_file(GOOD | {"weight": "3"})


def test_every_field_of_a_report_can_come_in() -> None:
    assert set(report_input.FIELDS) == set(Report.__dataclass_fields__)
