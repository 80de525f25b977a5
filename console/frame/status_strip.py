"""The status strip: eight facts about the installation, on every page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from django.urls import reverse

from console.display import format as fmt
from control.approvals import mode
from decider.contracts.config import ALL_ML, version_text
from decider.contracts.vocabulary import MlState
from monitoring import fleet as fleets
from monitoring import guardrails


@dataclass(frozen=True)
class Cell:
    """One fact: a label, a state or plain text, and a quieter addition."""

    label: str
    href: str
    level: str
    """ok, warn, bad or off; empty for plain text."""
    text: str
    more: str = ""
    bad: bool = False
    """An incident: the whole cell is tinted."""


@dataclass(frozen=True)
class Strip:
    """The strip at one moment."""

    cells: tuple[Cell, ...]
    at: datetime
    fleet: fleets.Fleet | None
    """The deciders' reports that it was made from; None when Valkey did not answer."""

    @property
    def level(self) -> str:
        """calm, degraded, incident or unknown; the page announces a change to screen readers."""
        if self.fleet is None:
            return "unknown"
        if any(cell.bad for cell in self.cells):
            return "incident"
        return "degraded" if any(cell.level in ("warn", "bad") for cell in self.cells) else "calm"

    @property
    def etag(self) -> str:
        """The ETag. It changes with a cell, not with the time: an unchanged strip costs a 304."""
        return f'"{hashlib.blake2b(repr(self.cells).encode(), digest_size=12).hexdigest()}"'


# Of the facts that deciders report.
LABELS = (
    "ML ranking",
    "Model",
    "Kill switches",
    "Deciders in sync",
    "Time added, p99",
    "Drift",
    "Ingest lag",
)

# Time of the last answer that this process got from Valkey: no element, or one. A list, so that any
# thread can replace its content; where two do so at once, either time is right to the second.
# Why no decider asks its model, in two words.
_WITHOUT_ML = {
    MlState.NO_MODEL: "no model",
    MlState.LATE: "too late",
    MlState.BAD_SCORE: "no usable score",
}
_last_known: list[datetime] = []


def read_strip() -> Strip:
    """Return the strip as it is now.

    When Valkey does not answer, every cell says since when the status is unknown. It never shows
    the last good value: a calm strip during an outage would mislead.
    """
    at = datetime.now(UTC)
    try:
        fleet = fleets.read_fleet(at.timestamp())
    except fleets.Unreachable:
        since = f" since {_last_known[0]:%H:%M:%S}" if _last_known else ""
        unknown = f"Status unknown{since}"
        cells = [Cell(label, reverse("home"), "off", unknown) for label in LABELS]
        return Strip((*cells, _people()), at, None)
    _last_known[:] = [at]
    return Strip((*strip_cells(fleet), _people()), at, fleet)


def strip_cells(fleet: fleets.Fleet) -> tuple[Cell, ...]:
    """Return the seven cells of one reading, in the order of LABELS."""
    return (
        _ml(fleet),
        _model(fleet),
        _switches(fleet),
        _deciders(fleet),
        _added(fleet),
        _drift(),
        _ingest(fleet),
    )


def _ml(fleet: fleets.Fleet) -> Cell:
    label, href = LABELS[0], reverse("switches")
    if fleet.engaged(ALL_ML):
        return Cell(label, href, "bad", "Off, fallback limiter", bad=True)
    if not fleet.nodes:
        if fleet.unbelieved:
            return Cell(label, href, "off", "No report is believed", bad=True)
        return Cell(label, href, "off", "No decider reports", bad=bool(fleet.lost))
    # one decider without ML degrades its share of the traffic; all of them are an incident
    off = fleet.without_ml
    if len(off) == len(fleet.nodes):
        why = _WITHOUT_ML.get(MlState(off[0].ml_state), "")
        return Cell(label, href, "bad", "Off, fallback limiter", why, bad=True)
    if off:
        return Cell(label, href, "warn", "Live", f"off on {len(off)} of {len(fleet.nodes)}")
    return Cell(label, href, "ok", "Live")


def _model(fleet: fleets.Fleet) -> Cell:
    model = fleet.config.model if fleet.config else None
    return Cell(
        LABELS[1], reverse("home"), "", f"{model.name} v{model.version}" if model else "None"
    )


def _switches(fleet: fleets.Fleet) -> Cell:
    count = len(fleet.switches)
    return Cell(
        LABELS[2],
        reverse("switches"),
        "warn" if count else "ok",
        f"{count} engaged" if count else "All clear",
    )


def _deciders(fleet: fleets.Fleet) -> Cell:
    href = reverse("switches") + "#propagation"
    if not fleet.size:
        return Cell(LABELS[3], href, "off", "None has reported")
    at = (
        f"at cfg {version_text(fleet.config.version)}"
        if fleet.config
        else "no usable config"
        if fleet.config_error
        else "no config"
    )
    synced = fleet.in_sync
    level = "ok" if synced == fleet.size else "warn" if synced else "bad"
    return Cell(LABELS[3], href, level, f"{synced} / {fleet.size}", at, bad=not fleet.nodes)


def _added(fleet: fleets.Fleet) -> Cell:
    """Show what asking adds to a request, and how many got no decision, as gateways see it."""
    href, added, share = reverse("home") + "#guardrails", fleet.added_p99_ms, fleet.unasked_share
    if added is None or share is None:
        return Cell(LABELS[4], href, "off", "Not measured")
    bad = share > guardrails.UNASKED_LIMIT
    level = "bad" if bad else "warn" if added > guardrails.ADDED_TIME_LIMIT_MS else "ok"
    # a large share needs no decimals, and the cell has no room for them
    more = f"{fmt.percent(share, 0 if share >= 0.1 else 2)} undecided"
    # the unit stays beside its figure in a narrow cell
    return Cell(
        LABELS[4], href, level, f"{fmt.number(added, 1)}\N{NO-BREAK SPACE}ms", more, bad=bad
    )


def _drift() -> Cell:
    return Cell(LABELS[5], reverse("home"), "off", "Not measured yet")


def _ingest(fleet: fleets.Fleet) -> Cell:
    href, lag = reverse("home") + "#ingest", fleet.ingest_lag_s
    if lag is None:
        return Cell(LABELS[6], href, "off", "Nothing stored yet")
    level = "ok" if lag < fleets.INGEST_WARN_S else "warn" if lag < fleets.INGEST_BAD_S else "bad"
    return Cell(LABELS[6], href, level, fmt.span(lag), bad=level == "bad")


def _people() -> Cell:
    """Show whether a change that needs a second person waits for one. The database says it, not
    the deciders.
    """
    label, href = "Changes", reverse("approvals")
    if mode.is_on():
        return Cell(label, href, "ok", "Four eyes")
    return Cell(label, href, "off", "One person")
