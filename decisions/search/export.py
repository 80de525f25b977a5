"""Decisions as CSV (RFC 4180), streamed: a server-side cursor hands over a few thousand at a time,
however many there are.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from django.db import transaction
from django.db.models import QuerySet

from control import patience
from control.directory import apps as directory
from decider.contracts.vocabulary import Action, Arm, Reason, Stage, Tier
from decisions.models import Decision

# Rows in memory at once. Chosen: some megabytes, and few round trips to the server.
CHUNK = 2_000
# Seconds. Chosen: the first rows of a wide search take long to find, and a slow reader may leave
# the rest waiting for a while, but not hold a snapshot of the tables for good.
STATEMENT_S, IDLE_S = 120.0, 120.0
COLUMNS = (
    "decision",
    "at",
    "request_id",
    "app",
    "app_name",
    "tenant",
    "tier",
    "action",
    "stage",
    "reason",
    "method",
    "endpoint",
    "service",
    "retry_after_s",
    "risk",
    "value",
    "arm",
    "model",
    "config_version",
    "observed",
    "region",
    "node",
    "latency_us",
    "payload_bytes",
    "inclusion_probability",
    "weight",
)
# First characters of a cell that a spreadsheet would run as a formula (OWASP, CSV Injection).
# Full-width signs are among them, as some spreadsheets read them as the plain ones.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class _EchoFile:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        """Return the text."""
        return text


def safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: one that could be gets an apostrophe
    in front, inside the quotes.
    """
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def lines(rows: QuerySet[Decision]) -> Iterator[str]:
    """Yield the text of the file in pieces: the header line, then the lines of up to CHUNK rows at
    a time. All rows come from one snapshot.
    """
    # quote all cells, so that no reader guesses where a cell ends or what type it has
    writer = csv.writer(_EchoFile(), quoting=csv.QUOTE_ALL)
    yield writer.writerow(COLUMNS)
    # a server-side cursor lives in a transaction
    with transaction.atomic():
        patience.set_limits(statement_s=STATEMENT_S, idle_s=IDLE_S)
        for some in _chunks(rows.defer("features", "signals").iterator(chunk_size=CHUNK)):
            # one query for the names of a chunk, not one per row
            names = directory.names(d.app for d in some)
            yield "".join(writer.writerow(_cells(d, names[d.app])) for d in some)


def _chunks(rows: Iterable[Decision]) -> Iterator[list[Decision]]:
    """Yield rows in lists of at most CHUNK."""
    held: list[Decision] = []
    for row in rows:
        held.append(row)
        if len(held) >= CHUNK:
            yield held
            held = []
    if held:
        yield held


def _cells(d: Decision, name: str) -> list[object]:
    """Return the cells of one row, in the order of COLUMNS. Texts from outside are made safe;
    numbers stay numbers.
    """
    return [
        d.name,
        d.at.isoformat(timespec="microseconds"),
        safe(d.request_id),
        safe(d.app),
        safe(name),
        safe(d.tenant),
        Tier(d.tier).word,
        Action(d.action).word,
        Stage(d.stage).name.lower(),
        Reason(d.reason).name.lower(),
        safe(d.method),
        safe(d.endpoint),
        safe(d.service),
        d.retry_after,
        _blank(d.risk),
        _blank(d.value),
        Arm(d.arm).name.lower(),
        d.model,
        d.config_version,
        int(d.observed),
        safe(d.region),
        safe(d.node),
        d.latency_us,
        d.payload_bytes,
        d.inclusion_probability,
        d.weight,
    ]


def _blank(value: float | None) -> float | str:
    """Return a number, or an empty text for none."""
    return "" if value is None else value
