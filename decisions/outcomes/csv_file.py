"""Outcomes from a CSV file (RFC 4180, UTF-8, a header line). All of its lines are good, or none is
used.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from control.audit.actors import Actor
from control.errors import Refused
from decider.contracts.ids import parse_decision_id
from decisions.outcomes import reports
from decisions.outcomes.reports import Invalid, Report, Reported

# Bytes of a file at most.
LARGEST = 2_000_000
REQUIRED = ("key", "kind", "occurred_at")
COLUMNS = (
    *REQUIRED,
    "reported_at",
    "matured_at",
    "app",
    "token_digest",
    "request_id",
    "decision",
    "weight",
    "note",
)
_TIMES = ("occurred_at", "reported_at", "matured_at")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What is wrong with one line."""

    line: int
    """As an editor counts them, from 1; 0 for the whole file."""
    column: str
    text: str


class BadFile(Refused):
    """A file that was not used. `problems` says why, line by line."""

    def __init__(self, problems: Sequence[LineProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(problems[0].text)


def upload(data: bytes, *, by: Actor, reason: str) -> Reported:
    """Stores the outcomes of a file. Raises BadFile, with nothing stored; Refused for a blank
    reason.
    """
    numbered = read(data)
    try:
        return reports.report_all([r for _, r in numbered], by=by, reason=reason, source="csv")
    except Invalid as error:
        raise BadFile(
            [LineProblem(numbered[p.number][0], p.field, p.text) for p in error.problems]
        ) from error


def read(data: bytes) -> list[tuple[int, Report]]:
    """The reports of a file with their lines. Raises BadFile with every line that cannot be
    read.
    """
    if len(data) > LARGEST:
        raise _whole(f"The file has {len(data):,} bytes; at most {LARGEST:,} are taken. Split it.")
    rows = _rows(_text(data))
    header = _header(next(rows, (1, []))[1])
    found: list[tuple[int, Report]] = []
    problems: list[LineProblem] = []
    for line, cells in rows:
        if not any(cells):
            continue
        one = _report(header, cells, line)
        if isinstance(one, Report):
            found.append((line, one))
        else:
            problems += one
        if len(found) > reports.MOST:
            raise _whole(f"The file has more than {reports.MOST:,} outcomes. Split it.")
    if problems:
        raise BadFile(problems)
    if not found:
        raise _whole("The file has no outcome below its header.")
    return found


def _whole(text: str) -> BadFile:
    return BadFile([LineProblem(0, "", text)])


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadFile(
            [LineProblem(line, "", "The file is not UTF-8 here. Save it as “CSV UTF-8”.")]
        ) from error
    if "\x00" in text:
        raise BadFile(
            [
                LineProblem(
                    text.count("\n", 0, text.index("\x00")) + 1, "", "A zero byte is no text."
                )
            ]
        )
    return text


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines with the number of their first physical line. Raises BadFile for what is no CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadFile([LineProblem(start, "", f"This is no CSV: {error}.")]) from error
        yield start, [cell.strip() for cell in cells]
        start = reader.line_num + 1


def _header(cells: list[str]) -> list[str]:
    """The columns of the file. Raises BadFile."""
    names = [cell.lower() for cell in cells]
    known = f"The columns are {', '.join(COLUMNS)}; {', '.join(REQUIRED)} must be there."
    if missing := [name for name in REQUIRED if name not in names]:
        raise BadFile(
            [LineProblem(1, missing[0], f"The header lacks {', '.join(missing)}. {known}")]
        )
    if strange := [name for name in names if name not in COLUMNS]:
        raise BadFile(
            [
                LineProblem(
                    1, strange[0][:_SHOWN], f"The header names “{strange[0][:_SHOWN]}”. {known}"
                )
            ]
        )
    if len(set(names)) != len(names):
        raise BadFile([LineProblem(1, "", "The header names a column twice.")])
    return names


def _report(header: list[str], cells: list[str], line: int) -> Report | list[LineProblem]:
    if len(cells) != len(header):
        return [
            LineProblem(line, "", f"It has {len(cells)} cells where the header has {len(header)}.")
        ]
    values: dict[str, object] = {}
    problems = []
    for name, cell in zip(header, cells, strict=True):
        if not cell:
            continue
        try:
            values[name] = _value(name, cell)
        except ValueError as error:
            problems.append(LineProblem(line, name, str(error)))
    problems += [
        LineProblem(line, name, "It is empty.")
        for name in REQUIRED
        if not cells[header.index(name)]
    ]
    if problems:
        return problems
    report = Report(**values)  # type: ignore[arg-type]
    return [LineProblem(line, p.field, p.text) for p in reports.check(report)] or report


def _value(name: str, cell: str) -> object:
    """A cell as its column's type. Raises ValueError with a whole sentence; what was typed is shown
    cut, never as it is.
    """
    if name in _TIMES:
        return _time(cell)
    if name == "weight":
        try:
            return float(cell)
        except ValueError:
            raise ValueError(f"“{cell[:_SHOWN]}” is no number.") from None
    if name == "decision":
        return _decision(cell)
    if cell.startswith(_FORMULA):
        raise ValueError(
            f"It begins with “{cell[0]}”, which a spreadsheet would run. Write it otherwise."
        )
    return cell.lower() if name in ("kind", "token_digest") else cell


def _time(cell: str) -> datetime:
    try:
        at = datetime.fromisoformat(cell)
        return at.astimezone(UTC) if at.tzinfo else at
    except (ValueError, OverflowError):
        raise ValueError(
            f"“{cell[:_SHOWN]}” is no time. Use for example 2026-01-31T16:30:00Z."
        ) from None


def _decision(cell: str) -> uuid.UUID:
    if (raw := parse_decision_id(cell)) is None:
        raise ValueError(
            f"“{cell[:_SHOWN]}” is no decision id: it would be dec_ and 32 hexadecimal digits."
        )
    return uuid.UUID(bytes=raw)


def problems_of(error: Refused) -> tuple[LineProblem, ...]:
    """What to show of an upload that was refused."""
    return error.problems if isinstance(error, BadFile) else (LineProblem(0, "", str(error)),)
