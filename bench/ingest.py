"""Storing decision events: our binary COPY against psycopg's text COPY of the same rows."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import psycopg

from bench import events
from console.local import servers
from decider.contracts import features, ids, signals
from decider.contracts.event import Event
from decisions.store import copy_format

# Rows of one measurement.
ROWS = 20_000
# Rows of one transaction, what a busy ingest takes at once.
COMMIT = 5_000
# Target: ratio to the peer. Chosen: below it the binary format is not worth its code.
TARGET = 2.3
TEXT_COPY = copy_format.copy_into("decisions_decision").replace(" (FORMAT BINARY)", "")


def measure(rounds: int = 3) -> list[dict[str, object]]:
    """Return the row: the median of `rounds` interleaved rounds, after one that is not counted.

    Client and server share one core.
    """
    with _one_core(), _database() as connection:
        ours, theirs = [], []
        for _ in range(rounds + 1):
            theirs.append(_rate(connection, _copy_text))
            ours.append(_rate(connection, _copy_binary))
    return [_row(statistics.median(ours[1:]), statistics.median(theirs[1:]), rounds)]


def _row(figure: float, peer: float, rounds: int) -> dict[str, object]:
    return {
        "name": "ingest",
        "figure": round(figure),
        "unit": "rows/s",
        "peer": "psycopg text COPY, write_row",
        "peer_figure": round(peer),
        "ratio": round(figure / peer, 2),
        "target": TARGET,
        "met": figure / peer >= TARGET,
        "conditions": (
            f"{ROWS} decision events into one day of the partitioned table with its 3 indexes"
            f" and range check, {COMMIT} rows a transaction, one connection, PostgreSQL and the"
            f" client on one core, median of {rounds} rounds"
        ),
    }


def _rate(
    connection: psycopg.Connection, copy: Callable[[psycopg.Cursor, list[Event]], None]
) -> float:
    """Return rows a second, from events in memory to committed rows."""
    rows = _events(ROWS)
    connection.execute("TRUNCATE decisions_decision")
    connection.commit()
    start = time.perf_counter()
    for at in range(0, ROWS, COMMIT):
        with connection.cursor() as cursor:
            copy(cursor, rows[at : at + COMMIT])
        connection.commit()
    return ROWS / (time.perf_counter() - start)


def _copy_binary(cursor: psycopg.Cursor, events: list[Event]) -> None:
    texts = copy_format.Texts()
    with cursor.copy(copy_format.copy_into("decisions_decision")) as copy:
        for block in copy_format.blocks(events, texts):
            copy.write(block)


def _copy_text(cursor: psycopg.Cursor, events: list[Event]) -> None:
    """Copy Python values row by row, as psycopg's documentation shows."""
    plain = copy_format.COLUMNS[2:]
    with cursor.copy(TEXT_COPY) as copy:
        for e in events:
            values = [getattr(e, name) for name in plain]
            copy.write_row([uuid.UUID(bytes=e.id), datetime.fromtimestamp(e.at, UTC), *values])


def _events(count: int) -> list[Event]:
    """Return events like those of a busy decider: 300 apps, half of them scored."""
    rng = np.random.default_rng(7)
    now, source = time.time(), ids.IdSource()
    rows = rng.gamma(1.0, 10.0, (count, features.N_FEATURES)).astype(np.float32)
    seen = rng.gamma(1.0, 10.0, (count, signals.N_SIGNALS))
    apps, risk = rng.integers(0, 300, count).tolist(), rng.random(count).tolist()
    place = events.Place("orders-read", "/v2/orders/{id}")
    return [
        events.stored_event(
            raw,
            now + k * 1e-4,
            apps[k],
            f"{apps[k] * 7919:032x}",
            place,
            events.Outcome(k % 5, 3, 31, 1, 0.5),
            (rows[k].tobytes(), seen[k].tobytes()),
            risk=risk[k] if k % 2 == 0 else None,
            config_version=42,
        )
        for k, raw in enumerate(source.many(count, now))
    ]


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep the client and its child, the server, on one core where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def _database() -> Iterator[psycopg.Connection]:
    """Start a PostgreSQL as `manage.py up` runs it, with the decision table and its partitions."""
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        server = stack.enter_context(_server(Path(folder)))
        connection = stack.enter_context(psycopg.connect(server.url()))
        connection.execute(import_module("decisions.migrations.0001_initial").FORWARD)
        today = datetime.now(UTC).date()
        for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
            connection.execute(_partition(day))
        connection.commit()
        yield connection


@contextmanager
def _server(folder: Path) -> Iterator[servers.Postgres]:
    servers.let_pass(folder)
    server = servers.Postgres(folder / "postgres", servers.free_port(), "bench")
    server.make()
    process = subprocess.Popen(
        server.command(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    try:
        servers.wait_until_ready(server)
        server.make_database()
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _partition(day: date) -> str:
    name, end = f"decisions_decision_{day:%Y%m%d}", day + timedelta(days=1)
    return (
        f"CREATE TABLE {name} PARTITION OF decisions_decision FOR VALUES FROM ('{day} 00:00+00') TO"
        f" ('{end} 00:00+00')"
    )
