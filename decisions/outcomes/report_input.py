"""Outcome reports from values as they come in: the one rule for a CSV cell and a JSON value.

An entry point (file, REST) hands over the values of one report by field and turns each `Problem`
into its own form. An entry point never judges a value itself.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from django.utils.dateparse import parse_datetime

from decider.contracts.ids import parse_decision_id
from decisions.outcomes import reports
from decisions.outcomes.reports import Problem, Report

REQUIRED = ("key", "kind", "occurred_at")
FIELDS = (
    *REQUIRED,
    "reported_at",
    "matured_at",
    "app",
    "token_digest",
    "request_id",
    "decision",
    "receipt",
    "weight",
    "note",
)
# Fields for which JSON's null means "not given"; for the others a null is a mistake.
_NULLABLE = ("reported_at", "matured_at", "decision")
# First characters of a text that a spreadsheet would run as a formula (OWASP, CSV Injection). Lists
# of outcomes end up in spreadsheets, however they came in.
_FORMULA = ("=", "+", "-", "@")
# A number as JSON writes it. Python's float() would also take "nan", "1_000" and other digits.
_NUMBER = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
# Characters of a wrong value that a message repeats: enough to find it, too few to spread a secret.
SHOWN = 40


def read_report(given: Mapping[str, object], number: int = 0) -> Report | list[Problem]:
    """Return a report, or all that is wrong with its values.

    `given` holds values by field: texts, or a number as the weight. A value is taken as it is
    written, or refused. An empty text is a value that is not given. `number` is the report's place
    among several, from 0, and goes into each problem.
    """
    values: dict[str, object] = {}
    found: list[tuple[str, str]] = []
    # in the order in which they came, so that the problems read like the input
    for name in (*given, *(name for name in REQUIRED if name not in given)):
        if name not in FIELDS:
            continue
        raw = given.get(name, "")
        if raw == "" or (raw is None and name in _NULLABLE):
            if name in REQUIRED:
                found.append((name, "It is empty."))
            continue
        try:
            values[name] = _READERS.get(name, _read_text)(raw)
        except ValueError as error:
            found.append((name, str(error)))
    if found:
        return [Problem(number, field, text) for field, text in found]
    report = Report(**values)  # type: ignore[arg-type]  # _READERS gives each field its type
    return reports.check(report, number) or report


def _text(raw: object) -> str:
    """Return a value that is a text. Raise ValueError with a whole sentence."""
    if not isinstance(raw, str):
        raise ValueError("It must be text.")
    if raw != raw.strip():
        raise ValueError("It begins or ends with white space. Take that out.")
    return raw


def _read_text(raw: object) -> str:
    """Return a text that no spreadsheet would run. Raise ValueError with a whole sentence."""
    text = _text(raw)
    if text.startswith(_FORMULA):
        raise ValueError(
            f"It begins with “{text[0]}”, which a spreadsheet would run as a formula."
            " Begin with a letter or a digit."
        )
    return text


def _read_time(raw: object) -> datetime:
    """Return an ISO 8601 time, in UTC where it has a zone. Raise ValueError."""
    text = _text(raw)
    wrong = f"“{text[:SHOWN]}” is not a time. Use for example 2026-01-31T16:30:00Z."
    try:
        at = parse_datetime(text)
        if at is None:
            raise ValueError(wrong)
        # a time without a zone stays as it is: `reports.check` refuses it
        return at.astimezone(UTC) if at.tzinfo else at
    except (ValueError, OverflowError):
        # OverflowError: in UTC it would lie before the year 1 or after 9999
        raise ValueError(wrong) from None


def _read_weight(raw: object) -> float:
    """Return a number. Raise ValueError."""
    # True is an int to Python, and no weight
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError("It must be a number.")
    if isinstance(raw, str) and not _NUMBER.fullmatch(raw):
        raise ValueError(f"“{raw[:SHOWN]}” is not a number.")
    try:
        return float(raw)
    except OverflowError:
        # JSON may hold a whole number beyond any float
        raise ValueError("The number is too large.") from None


def _read_decision(raw: object) -> uuid.UUID:
    """Return the UUID of a decision id. Raise ValueError."""
    text = _text(raw)
    if (found := parse_decision_id(text)) is None:
        raise ValueError(
            f"“{text[:SHOWN]}” is not a decision id."
            " A decision id is dec_ and 32 hexadecimal digits."
        )
    return uuid.UUID(bytes=found)


_READERS: dict[str, Callable[[object], object]] = {
    "occurred_at": _read_time,
    "reported_at": _read_time,
    "matured_at": _read_time,
    "weight": _read_weight,
    "decision": _read_decision,
}
