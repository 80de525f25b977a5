"""The faults that befall an installation, and what must hold meanwhile, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tests.faults.client import Fate


class Fault(StrEnum):
    KILLED = "killed"
    HALTED = "halted"
    SILENT = "network silent"
    CUT = "network cut"
    FULL = "full"
    AHEAD = "clock an hour ahead"
    BEHIND = "clock an hour behind"
    MISSING = "missing"
    NAN = "without numbers"
    FORGED = "signed by another key"
    MALFORMED = "of another form"


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
    home: str = ""
    """Words of the home page meanwhile; "" when it is not asked."""

    def __str__(self) -> str:
        return f"{self.part} {self.fault}"


# Status of the console for a token that is unknown, and where it cannot know.
UNKNOWN_TOKEN, NOT_NOW = 401, 503

SHORT = [
    # PostgreSQL gone: deciders unaffected, the stream keeps events, the console says so
    Row("postgres", Fault.KILLED),
    Row("postgres", Fault.HALTED, lasts_s=4.0, console=NOT_NOW),
    # Valkey gone: deciders go on by what they know; halted, it is gone in a test of its own
    Row("valkey", Fault.KILLED),
    # ingest killed at any point: every event is stored once
    Row("ingest", Fault.KILLED, console=UNKNOWN_TOKEN),
    # a decider killed: its apps move to the other one
    Row("d01", Fault.KILLED, from_s=1.5),
    # each second Envoy tries a halted one again with some requests
    Row("d02", Fault.HALTED, lasts_s=6.0, from_s=2.0, share=0.75),
    # none of the others stands between a request and its decision
    Row("feedback", Fault.KILLED),
    Row("worker", Fault.KILLED, console=UNKNOWN_TOKEN),
    Row("beat", Fault.KILLED),
    Row("console", Fault.KILLED),
    Row("console-front", Fault.KILLED),
    # without its agent the gateway keeps its last rules
    Row("gateway-agent", Fault.KILLED),
    # without the gateway nothing is served; what was decided is accounted for all the same
    Row("envoy", Fault.KILLED, fate=Fate.FAILED, share=0.01),
    # what waits when it goes on is served, which is up to every second request in so short a time
    Row("envoy", Fault.HALTED, fate=Fate.FAILED, share=0.4),
    # the gateway reaches no decider: it goes on by its own limit, and marks what it answers
    Row("envoy", Fault.CUT, fate=Fate.UNANSWERED),
    # a clock that steps there and back: neither ids nor budgets nor leases follow it
    Row("d01", Fault.AHEAD),
    Row("d02", Fault.BEHIND),
    # no model can be used: the fallback limiter decides, and the console says so
    Row("model", Fault.MISSING, lasts_s=5.0, home="No usable model was loaded"),
    Row("model", Fault.NAN, lasts_s=5.0, home="The model returned no usable score"),
    # a document that was published by hand: deciders keep the last good one, home says so, and the
    # console puts it back
    Row("config", Fault.FORGED, home="The published config cannot be used"),
    Row("config", Fault.MALFORMED, home="The published config cannot be used"),
    # the disk of all parts is full: deciding goes on, and what could not be written comes later
    Row("disk", Fault.FULL, lasts_s=5.0),
]
# The parts that others reach, or that reach others, over a network.
REACHED = ("postgres", "valkey", "feedback", "ingest", "worker", "beat", "console", "gateway-agent")
# Seconds of a fault that lasts. Chosen: longer than each timeout of a connection to Valkey, and
# than each pause before the next try.
LASTS_S = 15.0
LONG = [
    *(
        Row(part, fault, lasts_s=LASTS_S)
        for part in REACHED
        for fault in (Fault.SILENT, Fault.CUT, Fault.HALTED)
    ),
    Row("console-front", Fault.HALTED, lasts_s=LASTS_S),
    # Envoy asks a decider that does not answer again and again
    Row("d01", Fault.SILENT, lasts_s=LASTS_S, from_s=2.0, share=0.75),
    Row("d01", Fault.CUT, lasts_s=LASTS_S, from_s=2.0),
    Row("d02", Fault.HALTED, lasts_s=LASTS_S, from_s=2.0, share=0.75),
    Row("envoy", Fault.SILENT, lasts_s=LASTS_S, fate=Fate.UNANSWERED),
    Row("disk", Fault.FULL, lasts_s=LASTS_S),
]
