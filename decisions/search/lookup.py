"""Finding decisions: a typed text is read as an id or a name, filters narrow it, pages go back in
time.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from django.db.models import Q, QuerySet

from control.config import documents
from control.directory import apps as directory
from decider.contracts.ids import PREFIX, decision_time, format_decision_id, parse_decision_id
from decider.contracts.normalise.addresses import source_of
from decider.whatif.plan import lists_about_source
from decisions.counts import seen_tokens
from decisions.models import Decision, ReplayedDecision, utc
from decisions.search.filters import DAY_S, DIMENSIONS, Filters

# Rows. Chosen: one or two screens, and quick to draw.
PAGE = 50
SHORT_RANGES = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "all": "All"}
# Stands before the digest of a credential in an address, so that no other text is read as a digest.
TOKEN = "token:"  # noqa: S105

ReadingKind = Literal["all", "decision", "request", "app", "apps", "tenant", "token", "nothing"]
# The readings that a person can ask for when the search box read a text otherwise.
READINGS = ("request", "app", "name", "replay")


@dataclass(frozen=True, slots=True)
class QueryReading:
    """How a text was read."""

    kind: ReadingKind
    text: str
    label: str = ""
    """How the text was understood, in words that continue "Read as "."""
    apps: tuple[str, ...] = ()
    decision: uuid.UUID | None = None
    digest: str = ""
    """Keyed digest of the credential that was read."""
    replayed: bool = False
    """Whether it selects what replays of logs decided, and no live traffic."""
    hint: str = ""
    """For a text that matches nothing: what it looks like, and what is wrong with it."""

    @property
    def made_at(self) -> float:
        """Unix seconds in the id that was read; 0 when none was."""
        return decision_time(self.decision.bytes) if self.decision else 0.0


def interpret(text: str, insist: str = "") -> QueryReading:
    """Read a typed text: decision id, token digest, app id, request id, then names of apps and
    tenants.

    `insist` is one of READINGS, for a text that could be several things. Never pass a raw
    credential: check the text with `credentials` first.
    """
    text = text.strip()
    if not text:
        return QueryReading("all", "")
    if not insist and (raw := parse_decision_id(text)):
        return QueryReading(
            "decision", text, f"decision {format_decision_id(raw)}", decision=uuid.UUID(bytes=raw)
        )
    if "\x00" in text:
        return QueryReading(
            "nothing", text, hint="It contains a NUL character, which no id and no name has."
        )
    if not insist and text.startswith(TOKEN):
        return of_digest(text.removeprefix(TOKEN))
    readers = {
        "app": (_as_app, _as_unregistered),
        "request": (_as_request,),
        "name": (_as_name,),
        "replay": (_as_replayed,),
    }
    usual = (_as_app, _as_request, _as_unregistered, _as_replayed, _as_name)
    for reader in readers.get(insist, usual):
        if reading := reader(text):
            return reading
    return QueryReading("nothing", text, hint=_almost(text))


# The length of a UUID with some characters lost or doubled in copying.
_ALMOST_ID = re.compile(r"[0-9a-fA-F-]{20,48}")
_HEXADECIMAL = re.compile("[0-9a-fA-F]")


def _almost(text: str) -> str:
    """Return a sentence about what a text that matches nothing was probably meant to be; empty when
    there is no guess.
    """
    digits = text.removeprefix(PREFIX).replace("-", "")
    if source := source_of(text):
        return _about_source(source)
    if text.startswith(PREFIX) or _ALMOST_ID.fullmatch(text):
        if odd := _HEXADECIMAL.sub("", digits):
            return f"It looks like a decision id, but “{odd[0]}” is not a hexadecimal digit."
        if len(digits) != 32:
            return (
                f"It looks like a decision id with {len(digits)} digits; a whole one has {PREFIX}"
                " and 32. Copy it again, whole."
            )
        return (
            "It looks like a decision id, but it is not a version 7 UUID with a time before 2191,"
            " as all decision ids are. It may be another system’s id."
        )
    return ""


def _about_source(source: str) -> str:
    """Return what is known of an IP address, of which decisions keep nothing."""
    config = documents.newest()
    listed = lists_about_source(config, source, time.time()) if config else []
    entries = ", ".join(f"{e.verdict} {e.subject}" for e in listed)
    return (
        f"It is an IP address, which deciders count as the source {source}. Decisions are stored"
        " without it, so look up the app or the request. "
        + (f"Lists in force name it: {entries}." if entries else "No list in force names it.")
    )


def of_digest(digest: str) -> QueryReading:
    """Read the keyed digest of a credential."""
    text = f"{TOKEN}{digest}"
    if not seen_tokens.is_digest(digest):
        return QueryReading(
            "nothing",
            text,
            hint=(
                "A token’s digest has 32 hexadecimal digits. Or paste the token itself: it is"
                " hashed here."
            ),
        )
    if not (apps := seen_tokens.apps(digest)):
        return QueryReading("nothing", text, hint="No stored decision carried this token.")
    return QueryReading(
        "token", text, f"a token with digest {digest[:8]}…", apps=apps, digest=digest
    )


def _as_app(text: str) -> QueryReading | None:
    """Read a text as the id of a registered app."""
    if known := directory.app(text):
        return QueryReading("app", text, f"app {known.name}", apps=(known.id,))
    return None


def _as_unregistered(text: str) -> QueryReading | None:
    """Read a text as the id of an app that sent requests but was never registered."""
    if Decision.objects.filter(app=text).exists():
        return QueryReading("app", text, f"app {text}, which is not registered", apps=(text,))
    return None


def _as_replayed(text: str) -> QueryReading | None:
    """Read a text as the id of an app in a replayed log."""
    if ReplayedDecision.objects.filter(app=text).exists():
        return QueryReading("app", text, f"app {text} in replayed logs", (text,), replayed=True)
    return None


def _as_request(text: str) -> QueryReading | None:
    """Read a text as a request id."""
    if Decision.objects.filter(request_id=text).exists():
        return QueryReading("request", text, f"request {text}")
    return None


def _as_name(text: str) -> QueryReading | None:
    """Read a text as part of the names of apps or tenants."""
    # a single letter is in nearly every name
    if len(text) < 2 or not (found := directory.named(text)).apps:
        return None
    ids = tuple(a.id for a in found.apps)
    if len(ids) == 1:
        return QueryReading("app", text, f"app {found.apps[0].name}", apps=ids)
    if found.tenant:
        return QueryReading("tenant", text, f"tenant {found.tenant}, {len(ids):,} apps", apps=ids)
    if found.total > len(ids):
        return QueryReading(
            "apps",
            text,
            f"a name, the first {len(ids):,} of {found.total:,} apps; type more of it",
            apps=ids,
        )
    return QueryReading("apps", text, f"a name, {len(ids):,} apps", apps=ids)


def id_at(seconds: float) -> uuid.UUID:
    """Return the smallest decision id of a moment (unix seconds): a scan of ids in time order
    begins or ends there.
    """
    # the first 48 bits of a UUIDv7 are milliseconds (RFC 9562)
    return uuid.UUID(int=max(0, int(seconds * 1000)) << 80)


def rows(reading: QueryReading, filters: Filters, now: float) -> QuerySet[Decision]:
    """Return the decisions that a reading and its filters select, newest first. Filters do not
    narrow an exact id.
    """
    if reading.kind == "nothing":
        return Decision.objects.none()
    if reading.decision is not None:
        live = near(reading.decision)
        return live if live.exists() else near(reading.decision, ReplayedDecision)
    if reading.kind == "request":
        return Decision.objects.order_by("-id").filter(request_id=reading.text)
    return unfiltered(reading, filters, now).filter(filters.condition())


def unfiltered(reading: QueryReading, filters: Filters, now: float) -> QuerySet[Decision]:
    """Return the decisions that a reading selects in the filters' time, newest first. The other
    filters do not apply.
    """
    found = (ReplayedDecision if reading.replayed else Decision).objects.order_by("-id")
    if reading.apps:
        found = found.filter(app__in=reading.apps)
    if reading.digest:
        found = found.filter(token_digest=reading.digest)
    window = filters.window(now)
    return found if window.since is None else within(found, window.since, window.until)


def within(
    found: QuerySet[Decision], since: float, until: float | None = None
) -> QuerySet[Decision]:
    """Return the decisions of `found` in a time range (unix seconds). Ids sort by time, so the
    primary key finds them; `at` picks the partitions.
    """
    found = found.filter(at__gte=utc(since), id__gte=id_at(since))
    if until is not None:
        found = found.filter(at__lt=utc(until), id__lt=id_at(until + _ID_AHEAD_S))
    return found


# Seconds that an id's time may run ahead of its event's: an id never goes back when a node's clock
# does. Chosen: longer than any step by which a time server sets a clock back.
_ID_AHEAD_S = 300.0


def page(
    found: QuerySet[Decision], before: uuid.UUID | None = None, size: int = PAGE
) -> tuple[list[Decision], bool]:
    """Return the newest `size` decisions older than `before`, and whether there are more."""
    if before is not None:
        found = found.filter(id__lt=before)
    # fetch one more row than the page: it shows whether there is a next page, without a count
    some = list(found[: size + 1])
    return some[:size], len(some) > size


def near(decision: uuid.UUID, table: type[Decision] = Decision) -> QuerySet[Decision]:
    """Return a query for one decision by its id, in the partitions around the time that the id
    holds.
    """
    at = decision_time(decision.bytes)
    # 1970 to 2191: an id outside is not ours, and its datetime might overflow
    if not DAY_S < at < 7e9:
        return table.objects.none()
    return table.objects.filter(id=decision, at__gte=utc(at - DAY_S), at__lt=utc(at + DAY_S))


def find(decision: uuid.UUID) -> Decision | None:
    """Return one decision by its id, live or replayed; None when it is not stored. Look in the
    partitions around its time first, then in all.
    """
    tables = (Decision, ReplayedDecision)
    # lazy: nearly always the first query finds it
    lately = (near(decision, table).first() for table in tables)
    ever = (table.objects.filter(id=decision).first() for table in tables)
    return next((one for one in chain(lately, ever) if one is not None), None)


def beside(decision: Decision) -> QuerySet[Decision]:
    """Return the decisions of the same origin: those of replays beside a replayed one, else those
    of live traffic.
    """
    return type(decision).objects.all()


def is_seen(app: str) -> bool:
    """Return whether a decision about this app is stored, live or replayed."""
    return any(table.objects.filter(app=app).exists() for table in (Decision, ReplayedDecision))


def neighbours(decision: Decision) -> tuple[Decision | None, Decision | None]:
    """Return the next newer and the next older stored decision of the same app, each None when
    there is none within a day.
    """
    same = beside(decision).filter(app=decision.app).defer("features", "signals")
    at = decision.at.timestamp()
    newer = within(same, at - 60, at + DAY_S).filter(id__gt=decision.id).order_by("id").first()
    older = within(same, at - DAY_S, at + 60).filter(id__lt=decision.id).order_by("-id").first()
    return newer, older


def widest(filters: Filters) -> tuple[str, Filters] | None:
    """Return the filter to drop when nothing was found, in words, and the filters without it; None
    when there is no filter to drop.
    """
    if filters.start is not None or filters.range != "all":
        return f"the time range “{filters.time_words}”", replace(
            filters, range="all", start=None, end=None
        )
    for dimension in reversed(DIMENSIONS):
        if filters.wanted(dimension) or filters.unwanted(dimension):
            return f"the filter on {dimension.title.lower()}", filters.without(dimension)
    return None


def spans(found: QuerySet[Decision], times: Iterable[tuple[float, float]]) -> QuerySet[Decision]:
    """Return the decisions of `found` in any of several time ranges (unix seconds), so that a scan
    for rare decisions reads only the times that hold some.
    """
    where = Q()
    for since, until in times:
        where |= Q(
            at__gte=utc(since),
            at__lt=utc(until),
            id__gte=id_at(since),
            id__lt=id_at(until + _ID_AHEAD_S),
        )
    return found.filter(where)
