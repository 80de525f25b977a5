"""Decisions as CSV (RFC 4180), streamed: however many there are, a server-side cursor hands over a
few thousand at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from django.db import transaction
from django.db.models import QuerySet

from control.directory import apps as directory
from decider.contracts.vocabulary import Action, Arm, Reason, Stage, Tier
from decisions.models import Decision

# Rows in memory at once.
CHUNK = 2_000
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
# How a cell begins that a spreadsheet would run (OWASP, CSV Injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class _Line:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        return text


def safe(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that could be gets an apostrophe in
    front, inside the quotes.
    """
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def lines(rows: QuerySet[Decision]) -> Iterator[str]:
    """The lines of the file, header first. Reads one snapshot, in chunks."""
    writer = csv.writer(
        _Line(), quoting=csv.QUOTE_ALL
    )  # no reader is left to guess where a cell ends, or its type
    yield writer.writerow(COLUMNS)
    with transaction.atomic():
        for some in _chunks(rows.defer("features", "signals").iterator(chunk_size=CHUNK)):
            names = directory.names(d.app for d in some)
            yield "".join(writer.writerow(_cells(d, names[d.app])) for d in some)


def _chunks(rows: Iterable[Decision]) -> Iterator[list[Decision]]:
    held: list[Decision] = []
    for row in rows:
        held.append(row)
        if len(held) >= CHUNK:
            yield held
            held = []
    if held:
        yield held


def _cells(d: Decision, name: str) -> list[object]:
    """One row. Texts from outside are made safe; numbers are numbers."""
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
    return "" if value is None else value
