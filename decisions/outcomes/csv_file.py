"""Outcomes from a CSV file (RFC 4180, UTF-8, a header line). The whole file is stored, or nothing
of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from control.audit.actors import Actor
from control.errors import Refused
from decisions.outcomes import report_input, reports
from decisions.outcomes.reports import Invalid, Report, Reported

# Bytes of a file at most: room for MOST outcomes with notes of usual length.
LARGEST = 2_000_000
# First bytes of files that spreadsheets write when nobody chose CSV, and what they are.
_NO_TEXT = {
    b"PK\x03\x04": "a workbook (.xlsx or .ods)",
    b"\xd0\xcf\x11\xe0": "an old workbook (.xls)",
    b"\x1f\x8b": "compressed (gzip)",
    b"%PDF": "a PDF",
}
# What stands between the columns of files that are almost CSV.
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What is wrong with one line."""

    line: int
    """As an editor counts them, from 1; 0 for the whole file."""
    column: str
    text: str


class BadFile(Refused):
    """A file that was refused. `problems` says why, line by line."""

    def __init__(self, problems: Sequence[LineProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(problems[0].text)


def upload(data: bytes, *, by: Actor, reason: str) -> Reported:
    """Store the outcomes of a CSV file and return how many were new and how many were repeated.
    Raise BadFile for a file that cannot be read or stored, and Refused for an empty reason; then
    nothing is stored.
    """
    numbered = parse_reports(data)
    try:
        return reports.report_all([r for _, r in numbered], by=by, reason=reason, source="csv")
    except Invalid as error:
        raise BadFile(
            [LineProblem(numbered[p.number][0], p.field, p.text) for p in error.problems]
        ) from error


def parse_reports(data: bytes) -> list[tuple[int, Report]]:
    """Return the reports of a file with their line numbers. Raise BadFile with every line that
    cannot be read.
    """
    check_size(len(data))
    rows = _rows(_text(data))
    header = _header(next(rows, (1, []))[1])
    found: list[tuple[int, Report]] = []
    problems: list[LineProblem] = []
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        one = _read_line(header, cells, line)
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


def check_size(size: int) -> None:
    """Raise BadFile for a file of more than LARGEST bytes, which need not be read for that."""
    if size > LARGEST:
        raise _whole(f"The file has {size:,} bytes; the limit is {LARGEST:,}. Split it.")


def _whole(text: str) -> BadFile:
    return BadFile([LineProblem(0, "", text)])


def _text(data: bytes) -> str:
    for start, kind in _NO_TEXT.items():
        if data.startswith(start):
            raise _whole(f"The file is {kind}, not CSV. Save it as “CSV UTF-8”.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = "The file is not UTF-8 here. Save it as “CSV UTF-8”."
        raise BadFile([LineProblem(line, "", text)]) from error
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise BadFile([LineProblem(line, "", "The file holds a zero byte here: it is not text.")])
    return text


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line with the number of its first physical line. Raise BadFile for a
    text that is not CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadFile([LineProblem(start, "", f"This is not CSV: {error}.")]) from error
        yield start, cells
        start = reader.line_num + 1


def _header(cells: list[str]) -> list[str]:
    """Return the columns of the file. Raise BadFile."""
    names = [cell.strip().lower() for cell in cells]
    all_names, needed = ", ".join(report_input.FIELDS), ", ".join(report_input.REQUIRED)
    known = f"The columns are {all_names}; {needed} must be there."
    for sign, word in _OTHER_SEPARATORS.items():
        if len(names) == 1 and sign in names[0]:
            text = f"The columns are separated by {word}. Save the file as CSV with commas."
            raise BadFile([LineProblem(1, "", text)])
    if missing := [name for name in report_input.REQUIRED if name not in names]:
        text = f"The header lacks {', '.join(missing)}. {known}"
        raise BadFile([LineProblem(1, missing[0], text)])
    if strange := [name[: report_input.SHOWN] for name in names if name not in report_input.FIELDS]:
        text = f"The header names an unknown column “{strange[0]}”. {known}"
        raise BadFile([LineProblem(1, strange[0], text)])
    if len(set(names)) != len(names):
        raise BadFile([LineProblem(1, "", "The header names a column twice.")])
    return names


def _read_line(header: list[str], cells: list[str], line: int) -> Report | list[LineProblem]:
    """Return the report of a line, or what is wrong with the line."""
    if len(cells) != len(header):
        text = f"This line has {len(cells)} cells, but the header has {len(header)}."
        return [LineProblem(line, "", text)]
    found = report_input.read_report(dict(zip(header, cells, strict=True)))
    if isinstance(found, Report):
        return found
    return [LineProblem(line, p.field, p.text) for p in found]


def problems_of(error: Refused) -> tuple[LineProblem, ...]:
    """Return the problems to show for an upload that was refused."""
    return error.problems if isinstance(error, BadFile) else (LineProblem(0, "", str(error)),)
