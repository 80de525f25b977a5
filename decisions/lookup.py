"""Finding decisions: what someone typed is read as an id or a name, filters narrow it, pages go back in time."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Literal

from django.db.models import QuerySet

from decider.ids import decision_time, format_decision_id, parse_decision_id

from . import directory
from .models import Decision, utc

PAGE = 50
DAY_S = 86_400.0
RANGES: dict[str, tuple[str, float | None]] = {
    "15m": ("Last 15 min", 900.0),
    "1h": ("Last 1 h", 3_600.0),
    "6h": ("Last 6 h", 21_600.0),
    "24h": ("Last 24 h", DAY_S),
    "7d": ("Last 7 d", 7 * DAY_S),
    "all": ("All that is kept", None),
}
"""Time ranges by their name in an address: words, and seconds back from now (None: no limit)."""
SHORT_RANGES = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "all": "All"}

Kind = Literal["all", "decision", "request", "app", "apps", "tenant", "nothing"]
READINGS = ("request", "app", "name")
"""What the reader may insist on, when the box read a text otherwise."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a text was read."""

    kind: Kind
    text: str
    label: str = ""
    """What it was read as, in words, after "Read as "."""
    apps: tuple[str, ...] = ()
    decision: uuid.UUID | None = None

    @property
    def made_at(self) -> float:
        """Unix seconds in the id that was read; 0 when none was."""
        return decision_time(self.decision.bytes) if self.decision else 0.0


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows a list. An empty set filters nothing."""

    range: str = "1h"
    actions: frozenset[int] = frozenset()
    stages: frozenset[int] = frozenset()
    tiers: frozenset[int] = frozenset()
    services: frozenset[str] = frozenset()

    def since(self, now: float) -> float | None:
        seconds = RANGES[self.range][1]
        return None if seconds is None else now - seconds


def read(text: str, insist: str = "") -> Reading:
    """Reads what was typed: decision id, app id, request id, then names of apps and tenants.

    `insist` is one of READINGS, for a text that could be several things.
    """
    text = text.strip()
    if not text:
        return Reading("all", "")
    if not insist and (raw := parse_decision_id(text)):
        return Reading("decision", text, f"decision {format_decision_id(raw)}", decision=uuid.UUID(bytes=raw))
    if "\x00" in text:
        return Reading("nothing", text)
    readers = {"app": (_as_app,), "request": (_as_request,), "name": (_as_name,)}
    for reader in readers.get(insist, (_as_app, _as_request, _as_stranger, _as_name)):
        if reading := reader(text):
            return reading
    return Reading("nothing", text)


def _as_app(text: str) -> Reading | None:
    if known := directory.app(text):
        return Reading("app", text, f"app {known.name}", apps=(known.id,))
    return None


def _as_stranger(text: str) -> Reading | None:
    """An app that was seen and never registered."""
    if Decision.objects.filter(app=text).exists():
        return Reading("app", text, f"app {text}, which is not registered", apps=(text,))
    return None


def _as_request(text: str) -> Reading | None:
    if Decision.objects.filter(request_id=text).exists():
        return Reading("request", text, f"request {text}")
    return None


def _as_name(text: str) -> Reading | None:
    found = directory.named(text) if len(text) > 1 else []
    if not found:
        return None
    ids, tenants = tuple(a.id for a in found), {a.tenant_name for a in found}
    if len(found) == 1:
        return Reading("app", text, f"app {found[0].name}", apps=ids)
    if len(tenants) == 1 and (text.casefold() in found[0].tenant_name.casefold() or text == found[0].tenant):
        return Reading("tenant", text, f"tenant {found[0].tenant_name}, {len(ids)} apps", apps=ids)
    return Reading("apps", text, f"a name, {len(ids)} apps", apps=ids)


def id_at(seconds: float) -> uuid.UUID:
    """The smallest id of a moment: where a scan of ids in time order begins or ends."""
    return uuid.UUID(int=max(0, int(seconds * 1000)) << 80)


def rows(reading: Reading, filters: Filters, now: float) -> QuerySet[Decision]:
    """The decisions a reading and its filters select, newest first. An exact id is not narrowed."""
    if reading.kind == "nothing":
        return Decision.objects.none()
    if reading.kind == "decision":
        return near(reading.decision)
    found = Decision.objects.order_by("-id")
    if reading.kind == "request":
        return found.filter(request_id=reading.text)
    if reading.apps:
        found = found.filter(app__in=reading.apps)
    if (since := filters.since(now)) is not None:
        found = within(found, since)
    columns = {"action": filters.actions, "stage": filters.stages, "tier": filters.tiers, "service": filters.services}
    for column, wanted in columns.items():
        if wanted:
            found = found.filter(**{f"{column}__in": sorted(wanted)})
    return found


def within(found: QuerySet[Decision], since: float, until: float | None = None) -> QuerySet[Decision]:
    """Narrows to a time range. Ids sort by time, so the primary key finds it; `at` picks the partitions."""
    found = found.filter(at__gte=utc(since), id__gte=id_at(since))
    if until is not None:
        found = found.filter(at__lt=utc(until), id__lt=id_at(until + _ID_AHEAD_S))
    return found


_ID_AHEAD_S = 300.0
"""How far an id's time may run ahead of its event's: an id never goes back when a node's clock does."""


def page(found: QuerySet[Decision], before: uuid.UUID | None = None, size: int = PAGE) -> tuple[list[Decision], bool]:
    """The newest `size` decisions older than `before`, and whether there are more."""
    if before is not None:
        found = found.filter(id__lt=before)
    some = list(found[: size + 1])
    return some[:size], len(some) > size


def near(decision: uuid.UUID) -> QuerySet[Decision]:
    """One decision by its id, sought in the partitions around the time the id holds."""
    at = decision_time(decision.bytes)
    if not DAY_S < at < 7e9:
        return Decision.objects.none()
    return Decision.objects.filter(id=decision, at__gte=utc(at - DAY_S), at__lt=utc(at + DAY_S))


def find(decision: uuid.UUID) -> Decision | None:
    """One decision by its id: first where its time says, then everywhere."""
    return near(decision).first() or Decision.objects.filter(id=decision).first()


def neighbours(decision: Decision) -> tuple[Decision | None, Decision | None]:
    """The next newer and the next older stored decision of the same app, within a day."""
    same = Decision.objects.filter(app=decision.app).defer("features", "signals")
    at = decision.at.timestamp()
    newer = within(same, at - 60, at + DAY_S).filter(id__gt=decision.id).order_by("id").first()
    older = within(same, at - DAY_S, at + 60).filter(id__lt=decision.id).order_by("-id").first()
    return newer, older


def widest(filters: Filters) -> tuple[str, Filters] | None:
    """The filter to drop when nothing was found: its words, and what is left without it."""
    if filters.range != "all":
        return f"the time range “{RANGES[filters.range][0]}”", replace(filters, range="all")
    for name in ("services", "tiers", "stages", "actions"):
        if getattr(filters, name):
            return f"the filter on {name}", replace(filters, **{name: frozenset()})
    return None
