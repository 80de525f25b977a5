"""What must survive what, with real processes: each part of a whole installation is killed, halted
or cut off during traffic, and afterwards every request and every decision is accounted for.

The rows are those of the table "What survives what" in the README.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import pytest

from console.local.programs import DECIDERS
from tests.faults import installation
from tests.faults.client import THREADS, Fate, Request, share
from tests.faults.installation import Installation
from tests.gateway.running import until

# one installation for all: each test leaves it whole
pytestmark = [pytest.mark.parts, pytest.mark.in_order, pytest.mark.long]


class Fault(StrEnum):
    KILLED = "killed"
    HALTED = "halted"
    SILENT = "network silent"
    CUT = "network cut"
    FULL = "full"
    AHEAD = "clock an hour ahead"
    BEHIND = "clock an hour behind"


@dataclass(frozen=True)
class Row:
    """A fault, and what must hold while it lasts. Afterwards the same holds for all
    (`check_recovery`, `check_counts`).
    """

    part: str
    fault: Fault
    lasts_s: float = 3.0
    """Seconds from its begin until it is mended. A killed part is started again by itself."""
    fate: Fate = Fate.DECIDED
    """What becomes of requests meanwhile."""
    share: float = 0.9
    """Least share of the requests that meet this fate."""
    from_s: float = 0.0
    """From when on, seconds after its begin: Envoy needs some failures to leave a decider out."""
    console: int | None = None
    """What the console says meanwhile where the database is needed; None: not asked."""

    def __str__(self) -> str:
        return f"{self.part} {self.fault}"


# Status of the console for a token that is unknown, and where it cannot know.
UNKNOWN_TOKEN, NOT_NOW = 401, 503

SHORT = [
    # PostgreSQL gone: deciders unaffected, the stream keeps events, the console says so
    Row("postgres", Fault.KILLED),
    Row("postgres", Fault.HALTED, lasts_s=4.0, console=NOT_NOW),
    # Valkey gone: deciders go on by what they know
    Row("valkey", Fault.KILLED),
    Row("valkey", Fault.HALTED, lasts_s=4.0),
    # ingest killed at any point: every event is stored once
    Row("ingest", Fault.KILLED, console=UNKNOWN_TOKEN),
    Row("ingest", Fault.HALTED, console=UNKNOWN_TOKEN),
    # a decider killed: its apps move to the other one
    Row("d01", Fault.KILLED, from_s=1.5),
    # each second Envoy tries a halted one again with some requests
    Row("d02", Fault.HALTED, lasts_s=6.0, from_s=2.0, share=0.75),
    # none of the others stands between a request and its decision
    Row("feedback", Fault.KILLED),
    Row("feedback", Fault.HALTED),
    Row("worker", Fault.KILLED, console=UNKNOWN_TOKEN),
    Row("worker", Fault.HALTED, console=UNKNOWN_TOKEN),
    Row("beat", Fault.KILLED),
    Row("beat", Fault.HALTED),
    Row("console", Fault.KILLED),
    Row("console", Fault.HALTED),
    # without the gateway nothing is served; what was decided is accounted for all the same
    Row("envoy", Fault.KILLED, fate=Fate.FAILED, share=0.01),
    # what waits when it goes on is served, which is up to every second request in so short a time
    Row("envoy", Fault.HALTED, fate=Fate.FAILED, share=0.4),
    # the gateway reaches no decider: it goes on by its own limit, and marks what it answers
    Row("envoy", Fault.CUT, fate=Fate.UNANSWERED),
    # a clock that steps there and back: neither ids nor budgets nor leases follow it
    Row("d01", Fault.AHEAD),
    Row("d02", Fault.BEHIND),
    # the disk of all parts is full: deciding goes on, and what could not be written comes later
    Row("disk", Fault.FULL, lasts_s=5.0),
]
# The parts that others reach, or that reach others, over a network.
REACHED = ("postgres", "valkey", "feedback", "ingest", "worker", "beat", "console")
# Seconds of a fault that lasts. Chosen: longer than each timeout of a connection to Valkey, and
# than each pause before the next try.
LASTS_S = 15.0
LONG = [
    *(
        Row(part, fault, lasts_s=LASTS_S)
        for part in REACHED
        for fault in (Fault.SILENT, Fault.CUT, Fault.HALTED)
    ),
    # Envoy asks a decider that does not answer again and again
    Row("d01", Fault.SILENT, lasts_s=LASTS_S, from_s=2.0, share=0.75),
    Row("d01", Fault.CUT, lasts_s=LASTS_S, from_s=2.0),
    Row("d02", Fault.HALTED, lasts_s=LASTS_S, from_s=2.0, share=0.75),
    Row("envoy", Fault.SILENT, lasts_s=LASTS_S, fate=Fate.UNANSWERED),
    Row("disk", Fault.FULL, lasts_s=LASTS_S),
]


# Commands of an operator: a change, and which is the newest.
CHANGE = """
from control.audit.actors import SYSTEM
from control.config import changes
changes.make_version(
    by=SYSTEM, reason="during a fault", action="config.test", subject="nothing",
    summary="changed nothing", edit=lambda old: old,
)
"""
NEWEST = "from control.config import changes; print(changes.current().version)"


@pytest.fixture(scope="module")
def whole() -> Iterator[Installation]:
    with installation.running() as it:
        yield it


@contextmanager
def broken(it: Installation, row: Row) -> Iterator[None]:
    """Break the part, and mend it whatever happens in the body."""
    wires = it.wires.touching(row.part)
    match row.fault:
        case Fault.KILLED:
            it.kill(row.part)
            yield
        case Fault.HALTED:
            halted = it.halt(row.part)
            assert halted
            try:
                yield
            finally:
                it.go_on(halted)
        case Fault.SILENT | Fault.CUT:
            assert wires
            (it.wires.freeze if row.fault is Fault.SILENT else it.wires.cut)(*wires)
            try:
                yield
            finally:
                it.wires.mend(*wires)
        case Fault.AHEAD | Fault.BEHIND:
            steps = getattr(it.node(row.part), "clock_steps", 0)
            it.step_clock(row.part, 3600.0 if row.fault is Fault.AHEAD else -3600.0)
            try:
                yield
            finally:
                it.step_clock(row.part, 0.0)
            until(lambda: getattr(it.node(row.part), "clock_steps", 0) >= steps + 2, "both steps")
        case Fault.FULL:
            with it.disk_full():
                yield


def check_meanwhile(row: Row, requests: list[Request]) -> None:
    """Assert that decisions go on while the fault lasts."""
    # a thread of the client sends nothing while it waits for a response
    assert len(requests) >= THREADS, "the client stood still"
    assert share(requests, row.fate) >= row.share
    if row.fate is not Fate.FAILED:
        assert share(requests, Fate.FAILED) == 0.0


def check_recovery(it: Installation) -> None:
    """Assert that all parts do their work again."""

    def decides() -> bool:
        last = it.client.sent(time.monotonic() - 1.5)
        return len(last) > 20 and share(last) >= 0.95

    until(decides, "decisions as before", 30)
    until(lambda: it.api_status() == UNKNOWN_TOKEN, "the console", 30)
    until(lambda: it.node("d01") is not None and it.node("d02") is not None, "heartbeats", 30)
    scheduled = it.scheduled()
    until(lambda: it.scheduled() > scheduled, "the scheduler", 30)
    until(lambda: it.waiting_tasks() <= 1, "the worker", 60)


def check_counts(
    it: Installation, row: Row, requests: list[Request], at: float, log_from: int
) -> None:
    """Assert that every request and every decision since the begin is accounted for."""
    found = {fate: [one for one in requests if one.fate is fate] for fate in Fate}
    assert found[Fate.UNMARKED] == []
    check_log(it, row, found, log_from)
    check_stored(it, row, found[Fate.DECIDED], at)


def check_log(it: Installation, row: Row, found: dict[Fate, list[Request]], log_from: int) -> None:
    """Assert that the gateway logged each request: decided, or unanswered."""
    # what Envoy had not written yet ends with it, and what finds no room is not written
    if row.fault is Fault.FULL or (row.part, row.fault) == ("envoy", Fault.KILLED):
        return
    answered = len(found[Fate.DECIDED]) + len(found[Fate.UNANSWERED])
    until(lambda: len(it.logged(log_from)) >= answered, "the gateway's log")
    lines = it.logged(log_from)
    decided = [line["decision"] for line in lines if line.get("decision")]
    unanswered = [line for line in lines if line.get("unasked") == "true"]
    # a request whose client gave up is logged, too
    assert len(lines) <= answered + len(found[Fate.FAILED])
    assert len(set(decided)) == len(decided)
    assert {one.decision.hex() for one in found[Fate.DECIDED]} <= {
        text.removeprefix("dec_") for text in decided
    }
    assert len(unanswered) >= len(found[Fate.UNANSWERED])
    if not found[Fate.FAILED]:
        assert len(decided) + len(unanswered) == len(lines) == answered


def check_stored(it: Installation, row: Row, decided: list[Request], at: float) -> None:
    """Assert that each decision was stored once, or counted as dropped; of a decider that was
    killed, all but those of its last batch.
    """
    sent = {one.decision: one.at for one in decided}

    def missing() -> set[bytes]:
        stored = it.stored()
        assert len(stored) == len(set(stored)), "a decision was stored twice"
        # a decider sends every 0.2 s, and waits for the store before it sends on
        lost_with_it = row.fault is Fault.KILLED and row.part in {"d01", "d02"}
        return {
            one
            for one in sent.keys() - set(stored)
            if not (lost_with_it and at - 0.6 < sent[one] < at + 0.1)
        }

    until(lambda: len(missing()) <= it.dropped(), "all decisions in the database", 60)
    assert it.buried() == 0


def play(it: Installation, row: Row) -> None:
    """Break a part during traffic, and assert all that must hold."""
    log_from, began = it.log_end(), time.monotonic()
    it.client.resume()
    try:
        time.sleep(1.0)
        with broken(it, row):
            at = time.monotonic()
            if row.console is not None:
                assert it.api_status() == row.console
            time.sleep(max(0.0, at + row.lasts_s - time.monotonic()))
            ended = time.monotonic()
        check_recovery(it)
    finally:
        it.client.pause()
        # Envoy writes its log every half second
        time.sleep(0.7)
    # requests are judged by when they were sent, those included that ended later
    check_meanwhile(row, it.client.sent(at + row.from_s, ended))
    check_counts(it, row, it.client.sent(began), at, log_from)


@pytest.mark.parametrize("row", SHORT, ids=str)
def test_during_a_short_fault_decisions_go_on_and_nothing_is_lost(
    whole: Installation, row: Row
) -> None:
    play(whole, row)


def test_a_change_made_while_valkey_is_away_reaches_every_decider_and_survives_a_crash(
    whole: Installation,
) -> None:
    """What an operator was told is done stays done, whichever server fails next."""
    halted = whole.halt("valkey")
    try:
        whole.manage("shell", "--no-imports", "-c", CHANGE)
        # told to be done, so it is on the disk
        whole.kill("postgres")
    finally:
        whole.go_on(halted)
    until(lambda: whole.api_status() == UNKNOWN_TOKEN, "the database", 30)
    version = int(whole.manage("shell", "--no-imports", "-c", NEWEST))
    for node in DECIDERS:
        until(lambda node=node: whole.version_of(node) == version, f"the change at {node}", 30)


@pytest.mark.long
@pytest.mark.parametrize("row", LONG, ids=str)
def test_during_a_long_fault_decisions_go_on_and_nothing_is_lost(
    whole: Installation, row: Row
) -> None:
    play(whole, row)
