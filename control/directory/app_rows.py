"""Rows of an import of apps, read from CSV or JSON Lines. Values are taken as written or refused,
and each fault is told by line.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from control.errors import Refused
from decider.contracts.config import Name

# Bytes of a line. Chosen: an app's fields take a few hundred.
MOST_LINE = 10_000
# Faults that one refusal tells. Chosen: a person mends a screen of them and reads again.
MOST_FAULTS = 50

Form = Literal["csv", "jsonl"]
Shown = Annotated[str, Meta(min_length=1, max_length=200)]


class AppLine(Struct, frozen=True, forbid_unknown_fields=True):
    """What a line says of an app. A field that it leaves out stays as it is; a new app needs
    `tenant` and `tier`.
    """

    id: Name
    tenant: Name | UnsetType = UNSET
    tier: Literal["free", "standard", "premium", "enterprise"] | UnsetType = UNSET
    name: Shown | UnsetType = UNSET
    verified: bool | UnsetType = UNSET
    created_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    cohort_prior: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


COLUMNS = AppLine.__struct_fields__


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line, and what would be right."""

    line: int
    """From 1, as editors count; 0 for the whole file."""
    says: str

    def __str__(self) -> str:
        return f"line {self.line:,}: {self.says}" if self.line else self.says


class BadRows(Refused):
    """An import that was refused whole. `faults`: the first of what is wrong; `more`: how many
    further lines are.
    """

    def __init__(self, faults: list[Fault], count: int | None = None) -> None:
        self.faults = faults[:MOST_FAULTS]
        self.more = (len(faults) if count is None else count) - len(self.faults)
        lines = [str(fault) for fault in self.faults]
        super().__init__("\n".join(lines + ([f"and {self.more:,} more"] if self.more else [])))


def read(lines: Iterable[bytes], form: Form) -> dict[str, tuple[int, AppLine]]:
    """Return the apps of a file by id, each with its line. `lines` end with their line ends. Raise
    BadRows, which tells every wrong line up to MOST_FAULTS.
    """
    found: dict[str, tuple[int, AppLine]] = {}
    faults: list[Fault] = []
    count = 0
    for line, row in _rows(lines, form):
        if isinstance(row, AppLine) and row.id in found:
            row = f"{row.id} stands in line {found[row.id][0]:,} already: keep one of them"
        if isinstance(row, AppLine):
            found[row.id] = (line, row)
            continue
        count += 1
        if len(faults) < MOST_FAULTS:
            faults.append(Fault(line, row))
    if faults:
        raise BadRows(faults, count)
    if not found:
        raise BadRows([Fault(0, "The file holds no app.")])
    return found


def _rows(lines: Iterable[bytes], form: Form) -> Iterator[tuple[int, AppLine | str]]:
    """Yield each line's number and its row, or what is wrong with it."""
    numbered = enumerate(lines, start=1)
    yield from (_csv_rows if form == "csv" else _json_rows)(numbered)


_decoder = msgspec.json.Decoder(AppLine)


def _json_rows(numbered: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, AppLine | str]]:
    for line, raw in numbered:
        if raw.isspace():
            continue
        if len(raw) > MOST_LINE:
            yield line, f"this has {len(raw):,} bytes: write at most {MOST_LINE:,}"
            continue
        try:
            row = _decoder.decode(raw)
        except msgspec.ValidationError as error:
            yield line, _said(str(error))
        except msgspec.MsgspecError as error:
            yield line, f"this is no JSON: {error}"
        except (UnicodeDecodeError, RecursionError):
            yield line, "this is no text in UTF-8"
        else:
            yield line, _checked(row)


def _csv_rows(numbered: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, AppLine | str]]:
    """Read a file whose first line names its columns. A value holds no line break."""
    header: list[str] | None = None
    for line, raw in numbered:
        if len(raw) > MOST_LINE:
            yield line, f"this has {len(raw):,} bytes: write at most {MOST_LINE:,}"
            continue
        try:
            # spreadsheets begin a file in UTF-8 with a mark
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
            cells = next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            yield line, f"this cannot be read as CSV in UTF-8: {error}"
            if header is None:
                return
            continue
        if header is None:
            if fault := _header_fault(cells, text):
                yield line, fault
                return
            header = cells
        elif any(cells):
            yield line, _from_cells(header, cells)


def _header_fault(cells: list[str], text: str) -> str:
    """Return what is wrong with the line of column names, "" when nothing is."""
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(cells) == 1 and sign in text:
            return f"the columns are separated by {name}: write commas"
    if unknown := [cell for cell in cells if cell not in COLUMNS]:
        return f"there is no column {unknown[0][:40]!r}: there are {', '.join(COLUMNS)}"
    if twice := [cell for cell in cells if cells.count(cell) > 1]:
        return f"the column {twice[0]} stands here twice"
    return "" if "id" in cells else "the column id is missing"


def _from_cells(header: list[str], cells: list[str]) -> AppLine | str:
    if len(cells) != len(header):
        return f"this has {len(cells)} values, and the first line names {len(header)} columns"
    values: dict[str, Any] = {}
    # an empty value says nothing of its column
    for name, cell in zip(header, cells, strict=True):
        if not cell:
            continue
        if name == "verified" and cell in ("true", "false"):
            values[name] = cell == "true"
        elif name == "cohort_prior" and _is_plain_number(cell):
            values[name] = float(cell)
        else:
            values[name] = cell
    try:
        return _checked(msgspec.convert(values, AppLine))
    except msgspec.ValidationError as error:
        return _said(str(error))


def _is_plain_number(cell: str) -> bool:
    whole, _, rest = cell.partition(".")
    return len(cell) <= 30 and cell.isascii() and whole.isdigit() and (not rest or rest.isdigit())


def _checked(row: AppLine) -> AppLine | str:
    """Return the row, or what is wrong that types cannot say."""
    if isinstance(row.name, str) and not row.name.isprintable():
        return "name holds a control character: take it out"
    if isinstance(row.created_at, datetime) and not 0 <= _seconds(row.created_at) < 7e9:
        return f"created_at is {row.created_at.isoformat()}: write a time from 1970 to 2191"
    if isinstance(row.cohort_prior, float) and not math.isfinite(row.cohort_prior):
        return "cohort_prior is no number: write 0 to 1"
    return row


def _seconds(at: datetime) -> float:
    try:
        return at.timestamp()
    except (OverflowError, ValueError):
        return -1.0


# What each field takes.
_TAKES = {
    "id": "write 1 to 128 visible ASCII characters without spaces",
    "tenant": "write 1 to 128 visible ASCII characters without spaces",
    "tier": "write free, standard, premium or enterprise",
    "name": "write 1 to 200 characters",
    "verified": "write true or false",
    "created_at": "write a time with its zone, such as 2026-01-31T12:00:00Z",
    "cohort_prior": "write a number from 0 to 1, such as 0.05",
}


def _said(error: str) -> str:
    """Return an error of msgspec as a clause that says what would be right."""
    # its paths begin with "$."
    field = error.partition(" - at `$.")[2].rstrip("`")
    if field in _TAKES:
        return f"{field}: {_TAKES[field]}"
    if "missing required field `id`" in error:
        return "id is missing"
    if unknown := error.partition("unknown field ")[2]:
        return f"there is no field {unknown}: there are {', '.join(COLUMNS)}"
    if error.startswith("Expected `object`"):
        return 'write an object on each line, such as {"id": "app_1"}'
    return error
