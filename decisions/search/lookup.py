"""Finding decisions: what someone typed is read as an id or a name, filters narrow it, pages go
back in time.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from django.db.models import Q, QuerySet

from control.directory import apps as directory
from decider.contracts.ids import PREFIX, decision_time, format_decision_id, parse_decision_id
from decisions.counts import seen_tokens
from decisions.models import Decision, utc
from decisions.search.filters import DAY_S, DIMENSIONS, Filters

PAGE = 50
SHORT_RANGES = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "all": "All"}
# Before the digest of a credential, in an address.
TOKEN = "token:"  # noqa: S105

Kind = Literal["all", "decision", "request", "app", "apps", "tenant", "token", "nothing"]
# What the reader may insist on, when the box read a text otherwise.
READINGS = ("request", "app", "name")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a text was read."""

    kind: Kind
    text: str
    label: str = ""
    """What it was read as, in words, after "Read as "."""
    apps: tuple[str, ...] = ()
    decision: uuid.UUID | None = None
    digest: str = ""
    """Of the credential that was read."""
    hint: str = ""
    """For what was read as nothing: what it looks like and what is wrong with it."""

    @property
    def made_at(self) -> float:
        """Unix seconds in the id that was read; 0 when none was."""
        return decision_time(self.decision.bytes) if self.decision else 0.0


def read(text: str, insist: str = "") -> Reading:
    """Reads what was typed: decision id, token digest, app id, request id, then names of apps and
    tenants.

    `insist` is one of READINGS, for a text that could be several things. A raw credential is never
    given to this: `credentials` comes first.
    """
    text = text.strip()
    if not text:
        return Reading("all", "")
    if not insist and (raw := parse_decision_id(text)):
        return Reading(
            "decision", text, f"decision {format_decision_id(raw)}", decision=uuid.UUID(bytes=raw)
        )
    if "\x00" in text:
        return Reading(
            "nothing", text, hint="It holds a NUL character, which no id and no name does."
        )
    if not insist and text.startswith(TOKEN):
        return of_digest(text.removeprefix(TOKEN))
    readers = {"app": (_as_app, _as_stranger), "request": (_as_request,), "name": (_as_name,)}
    for reader in readers.get(insist, (_as_app, _as_request, _as_stranger, _as_name)):
        if reading := reader(text):
            return reading
    return Reading("nothing", text, hint=_almost(text))


_ALMOST_ID = re.compile(r"[0-9a-fA-F-]{20,48}")


def _almost(text: str) -> str:
    """What a text that was read as nothing was probably meant to be; empty when it looks like
    nothing in particular.
    """
    digits = text.removeprefix(PREFIX).replace("-", "")
    if text.startswith(PREFIX) or _ALMOST_ID.fullmatch(text):
        if odd := re.sub(r"[0-9a-fA-F]", "", digits):
            return f"It looks like a decision id, but “{odd[0]}” is no hexadecimal digit."
        if len(digits) != 32:
            return (
                f"It looks like a decision id with {len(digits)} digits; a whole one has {PREFIX}"
                " and 32. Copy it again, whole."
            )
        return (
            "It looks like a decision id, but Sluice makes version 7 UUIDs of the present, and this"
            " is none. It may be another system’s id."
        )
    return ""


def of_digest(digest: str) -> Reading:
    """A credential, by its keyed digest."""
    text = f"{TOKEN}{digest}"
    if not seen_tokens.is_digest(digest):
        return Reading(
            "nothing",
            text,
            hint=(
                "A token’s digest has 32 hexadecimal digits. Paste the token itself, it is hashed"
                " here."
            ),
        )
    if not (apps := seen_tokens.apps(digest)):
        return Reading("nothing", text, hint="No stored decision carried this token.")
    return Reading("token", text, f"a token with digest {digest[:8]}…", apps=apps, digest=digest)


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
    if len(text) < 2 or not (found := directory.named(text)).apps:
        return None
    ids = tuple(a.id for a in found.apps)
    if len(ids) == 1:
        return Reading("app", text, f"app {found.apps[0].name}", apps=ids)
    if found.tenant:
        return Reading("tenant", text, f"tenant {found.tenant}, {len(ids):,} apps", apps=ids)
    if found.total > len(ids):
        return Reading(
            "apps",
            text,
            f"a name, the first {len(ids):,} of {found.total:,} apps; type more of it",
            apps=ids,
        )
    return Reading("apps", text, f"a name, {len(ids):,} apps", apps=ids)


def id_at(seconds: float) -> uuid.UUID:
    """The smallest id of a moment: where a scan of ids in time order begins or ends."""
    return uuid.UUID(int=max(0, int(seconds * 1000)) << 80)


def rows(reading: Reading, filters: Filters, now: float) -> QuerySet[Decision]:
    """The decisions a reading and its filters select, newest first. An exact id is not narrowed."""
    if reading.kind == "nothing":
        return Decision.objects.none()
    if reading.kind == "decision":
        return near(reading.decision)
    if reading.kind == "request":
        return Decision.objects.order_by("-id").filter(request_id=reading.text)
    return unfiltered(reading, filters, now).filter(filters.condition())


def unfiltered(reading: Reading, filters: Filters, now: float) -> QuerySet[Decision]:
    """The decisions a reading selects in the filters' time, newest first, whatever else is filtered
    by.
    """
    found = Decision.objects.order_by("-id")
    if reading.apps:
        found = found.filter(app__in=reading.apps)
    if reading.digest:
        found = found.filter(token_digest=reading.digest)
    window = filters.window(now)
    return found if window.since is None else within(found, window.since, window.until)


def within(
    found: QuerySet[Decision], since: float, until: float | None = None
) -> QuerySet[Decision]:
    """Narrows to a time range. Ids sort by time, so the primary key finds it; `at` picks the
    partitions.
    """
    found = found.filter(at__gte=utc(since), id__gte=id_at(since))
    if until is not None:
        found = found.filter(at__lt=utc(until), id__lt=id_at(until + _ID_AHEAD_S))
    return found


# How far an id's time may run ahead of its event's: an id never goes back when a node's clock does.
_ID_AHEAD_S = 300.0


def page(
    found: QuerySet[Decision], before: uuid.UUID | None = None, size: int = PAGE
) -> tuple[list[Decision], bool]:
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
    if filters.start is not None or filters.range != "all":
        return f"the time range “{filters.time_words}”", replace(
            filters, range="all", start=None, end=None
        )
    for dimension in reversed(DIMENSIONS):
        if filters.wanted(dimension) or filters.unwanted(dimension):
            return f"the filter on {dimension.title.lower()}", filters.without(dimension)
    return None


def spans(found: QuerySet[Decision], times: Iterable[tuple[float, float]]) -> QuerySet[Decision]:
    """Narrows to any of several times, so that a scan for something rare looks only where it is."""
    where = Q()
    for since, until in times:
        where |= Q(
            at__gte=utc(since),
            at__lt=utc(until),
            id__gte=id_at(since),
            id__lt=id_at(until + _ID_AHEAD_S),
        )
    return found.filter(where)
