"""Outcomes: storing what people and systems report, and finding the outcomes that concern a
decision or an app.

A report carries a key that its reporter chooses. The same key with the same content changes
nothing, so a report may be sent again whenever it is not known whether it arrived. The same key
with other content is a conflict. A bulk report is stored as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError
from django.db.models import Count, F, Q, QuerySet, Sum, TextField
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone
from psycopg.errors import UniqueViolation

from control.audit import chain
from control.audit.actors import Actor
from control.errors import Conflict, NotAllowed, Refused
from control.permissions import holds
from decider.refusal.receipt import MAX_TEXT
from decisions.models import Decision, Outcome, OutcomeTie, utc
from decisions.models.outcome import (
    KEY_PREFIX,
    MOST_WEIGHT,
    REAL,
    REAL_VERDICT,
    REPORTABLE,
    VERDICTS,
    OutcomeKind,
)
from decisions.models.tie import TieState
from decisions.outcomes import evidence, ties

PERMISSION = "decisions.report_outcome"
# Outcomes in one report at most. Chosen: stored in one transaction, which must take seconds at
# most.
MOST = 10_000
# Tries to store a report while others store outcomes of the same keys. Chosen: each try finds what
# was in its way, and only reports sent at the same moment can be.
TRIES = 5
# How far a reporter's clock may run ahead.
AHEAD = timedelta(minutes=5)
# Chosen: ten years; an older time is a typing error or a wrong epoch.
OLDEST = timedelta(days=3650)
# Days for which a refusal that was found wrong counts in favour of its app. Chosen: a quarter; apps
# change.
FOUND_DAYS = 90
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,199}")
_APP = re.compile(r"[!-~]{1,128}")
_TOKEN = re.compile(r"[0-9a-f]{32}")
# Half of a character that UTF-16 writes as two (a lone surrogate) is none: it cannot be stored.
_REQUEST = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
# base64url, as `decider.refusal.receipt` writes it
_RECEIPT = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_TEXT}}}")
_NOTE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{0,500}")
_WRONG_KEY = (
    "A key has 1 to 200 letters, digits and . _ : / # -, and begins with a letter or digit."
)
_WRONG_DIGEST = (
    "A token digest has 32 hexadecimal digits in lower case, as decision pages show it. A"
    " credential itself is never taken."
)
_ONLY_VERDICTS = (
    "Only a dispute tells whether a refusal was wrong: someone opens it on the decision’s page, and"
    " a second person decides it."
)


@dataclass(frozen=True, slots=True)
class Report:
    """One outcome as it is reported. Its times have a zone, and at least one of app, token digest,
    request id, decision and receipt is given.
    """

    key: str
    kind: str
    """One of `REPORTABLE`."""
    occurred_at: datetime
    reported_at: datetime | None = None
    """When its source knew of it; None: now."""
    matured_at: datetime | None = None
    """When it begins to count; None: as soon as it was reported."""
    app: str = ""
    token_digest: str = ""
    """As decisions carry it, 32 hexadecimal digits; never the credential itself."""
    request_id: str = ""
    decision: uuid.UUID | None = None
    receipt: str = ""
    """As the refused client got it."""
    weight: float = 1.0
    """How many such events it stands for."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one report of several."""

    number: int
    """Place of the report among the others, from 0."""
    field: str
    text: str
    """A whole sentence."""


class Invalid(Refused):
    """Raised when some reports cannot be stored; then none is stored."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(problems[0].text)


class Conflicts(Conflict, Invalid):
    """Raised when some keys were used before for other outcomes; then nothing is stored."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The result of a bulk report."""

    stored: int
    repeated: int
    """Reports whose key was stored already, with the same content."""


def may_report(user: object) -> bool:
    """Return whether this person may report outcomes. The button asks this, the endpoint asks
    `check_may_report`.
    """
    return holds(user, PERMISSION)


def check_may_report(user: object) -> None:
    """Raise NotAllowed for a person who may not report outcomes."""
    if not may_report(user):
        raise NotAllowed(f"{user} may not report outcomes.")


def report_all(reports: Sequence[Report], *, by: Actor, reason: str, source: str) -> Reported:
    """Store all of these reports. `source` is "csv" or "api".

    Store none and raise Refused for an empty reason or too many reports, Invalid for reports that
    cannot be stored, Conflicts for keys that were used before for other outcomes.
    """
    reason = chain.check_reason(reason)
    if len(reports) > MOST:
        raise Refused(f"There are {len(reports):,} outcomes; send at most {MOST:,} at once.")
    now = timezone.now()
    if problems := [p for k, r in enumerate(reports) for p in check(r, k, now)]:
        raise Invalid(problems)
    for _ in range(TRIES):
        # read before the transaction: what takes long there would hold the keys for as long
        fresh = _fresh(reports)
        rows = [_row(reports[k], by, source, now) for k in fresh]
        found = evidence.gather(rows)
        if problems := [
            Problem(k, *problem)
            for k, one in zip(fresh, found, strict=True)
            for problem in one.problems
        ]:
            raise Invalid(problems)
        made = [ties.make(row, one, now) for row, one in zip(rows, found, strict=True)]
        try:
            _store(rows, made, by, reason)
        except IntegrityError as error:
            if not isinstance(error.__cause__, UniqueViolation):
                raise
        else:
            return Reported(len(rows), len(reports) - len(rows))
    raise Conflict("Others are reporting outcomes of the same keys. Send this report again.")


def _store(rows: Sequence[Outcome], made: Sequence[OutcomeTie], by: Actor, reason: str) -> None:
    """Store rows, their ties in the same order, and their entry in the audit log. Raise
    IntegrityError when someone stored one of their keys in the meantime; then nothing is stored.
    """
    if not rows:
        return
    with chain.changing():
        # by key: two reports with the same keys wait for each other, never in a circle
        Outcome.objects.bulk_create(sorted(rows, key=lambda row: row.key), batch_size=1000)
        for row, tie in zip(rows, made, strict=True):
            tie.outcome = row
        OutcomeTie.objects.bulk_create(made, batch_size=1000)
        _note(rows, by, reason)


def _note(rows: Sequence[Outcome], by: Actor, reason: str) -> None:
    """Record stored reports in the audit log, one entry for all, with the digest of each within
    its own.
    """
    chain.append(
        by=by,
        reason=reason,
        action="outcome.report",
        subject=_subject(rows),
        summary=_summary(rows),
        after=_after(rows),
    )


def found_wrong(now: float, app: str = "") -> dict[str, int]:
    """Return how many refusals of each app were found wrong: matured verdicts of the last
    FOUND_DAYS, each decision once.

    `now` in unix seconds; `app` narrows to one. Apps without any are left out.
    """
    at = utc(now)
    # a dispute copies the app of its decision, so verdicts need no tie
    rows = Outcome.objects.filter(
        REAL_VERDICT,
        kind=OutcomeKind.FALSE_THROTTLE,
        matured_at__lte=at,
        occurred_at__gte=at - timedelta(days=FOUND_DAYS),
    )
    rows = rows.filter(app=app) if app else rows.exclude(app="")
    which = Coalesce(Cast("decision", TextField()), F("key"))
    return dict(rows.values_list("app").annotate(n=Count(which, distinct=True)).order_by())


def check(r: Report, number: int = 0, now: datetime | None = None) -> list[Problem]:
    """Return what is wrong with a report by itself, field by field; nothing when it may be
    stored.
    """
    now = now or timezone.now()
    found = [*_wrong_texts(r), *_wrong_times(r, now)]
    if not (r.app or r.token_digest or r.request_id or r.decision or r.receipt):
        text = (
            "It is about nothing: give an app, a token digest, a request id, a decision or a"
            " receipt."
        )
        found.append(("app", text))
    if not (math.isfinite(r.weight) and 0 < r.weight <= MOST_WEIGHT):
        text = f"A weight is above 0 and at most {MOST_WEIGHT:,.0f}; this is {r.weight}."
        found.append(("weight", text))
    return [Problem(number, field, text) for field, text in found]


def _wrong_texts(r: Report) -> Iterator[tuple[str, str]]:
    """Yield field and sentence for each text that cannot be kept."""
    if not _KEY.fullmatch(r.key):
        yield "key", _WRONG_KEY
    elif r.key.lower().startswith(KEY_PREFIX):
        yield "key", f"A key cannot begin with {KEY_PREFIX}: such keys belong to verdicts."
    if r.kind in VERDICTS:
        yield "kind", _ONLY_VERDICTS
    elif r.kind not in REPORTABLE:
        yield "kind", f"A kind is one of {', '.join(REPORTABLE)}."
    if r.app and not _APP.fullmatch(r.app):
        yield "app", "An app id has at most 128 printable characters and no space."
    if r.token_digest and not _TOKEN.fullmatch(r.token_digest):
        yield "token_digest", _WRONG_DIGEST
    if r.request_id and not _REQUEST.fullmatch(r.request_id):
        yield "request_id", "A request id has at most 200 characters and no control character."
    if r.receipt and not _RECEIPT.fullmatch(r.receipt):
        yield "receipt", f"A receipt has at most {MAX_TEXT} letters, digits, “-” and “_”."
    if not _NOTE.fullmatch(r.note):
        yield "note", "A note has at most 500 characters and no control character."


def _wrong_times(r: Report, now: datetime) -> Iterator[tuple[str, str]]:
    times = {"occurred_at": r.occurred_at, "reported_at": r.reported_at, "matured_at": r.matured_at}
    if naive := [name for name, at in times.items() if at is not None and at.tzinfo is None]:
        yield naive[0], "The time has no zone; end it with Z for UTC."
        return
    if not now - OLDEST < r.occurred_at <= now + AHEAD:
        at = f"{r.occurred_at:%Y-%m-%d %H:%M} UTC"
        yield "occurred_at", f"The time {at} is in the future or more than ten years ago."
    if r.reported_at is not None and not r.occurred_at <= r.reported_at <= now + AHEAD:
        yield "reported_at", "The time is before occurred_at or in the future."
    if r.matured_at is not None and not r.occurred_at <= r.matured_at <= now + OLDEST:
        yield "matured_at", "The time is before occurred_at or more than ten years ahead."


def digest(r: Report) -> str:
    """Return SHA-256 of the content, 64 hexadecimal digits: equal reports have equal digests."""
    times = [
        None if at is None else at.astimezone(UTC).isoformat()
        for at in (r.occurred_at, r.reported_at, r.matured_at)
    ]
    content = [
        r.kind,
        *times,
        r.app,
        r.token_digest,
        r.request_id,
        str(r.decision or ""),
        float(r.weight),
        r.note,
        # only where there is one: reports of the time before receipts keep their digest
        *([r.receipt] if r.receipt else []),
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode("ascii")).hexdigest()


def _fresh(reports: Sequence[Report]) -> list[int]:
    """Return the numbers of the reports whose key is not stored yet. Raise Conflicts where a key
    stands for another outcome.
    """
    known = dict(
        Outcome.objects.filter(key__in=[r.key for r in reports]).values_list("key", "digest")
    )
    fresh: list[int] = []
    problems = []
    for number, r in enumerate(reports):
        mine = digest(r)
        if r.key not in known:
            known[r.key] = mine
            fresh.append(number)
        elif known[r.key] != mine:
            problems.append(
                Problem(number, "key", f"The key {r.key} was used before for another outcome.")
            )
    if problems:
        raise Conflicts(problems)
    return fresh


def _row(r: Report, by: Actor, source: str, now: datetime) -> Outcome:
    reported = r.reported_at or max(now, r.occurred_at)
    return Outcome(
        key=r.key,
        kind=r.kind,
        occurred_at=r.occurred_at,
        reported_at=reported,
        matured_at=r.matured_at or reported,
        source=source,
        weight=r.weight,
        app=r.app,
        token_digest=r.token_digest,
        request_id=r.request_id,
        decision=r.decision,
        receipt=r.receipt,
        note=r.note,
        by=by.name,
        digest=digest(r),
    )


def _subject(rows: Sequence[Outcome]) -> str:
    return rows[0].key if len(rows) == 1 else f"{len(rows):,} outcomes"


def _summary(rows: Sequence[Outcome]) -> str:
    kinds = Counter(OutcomeKind(row.kind).label.lower() for row in rows)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return f"reported {len(rows):,} outcome{'s' if len(rows) > 1 else ''}: {counted}"


def _after(rows: Sequence[Outcome]) -> chain.Json:
    items = "".join(f"{row.key}\n{row.digest}\n" for row in sorted(rows, key=lambda r: r.key))
    return {
        "stored": len(rows),
        "source": rows[0].source,
        "keys": [row.key for row in rows[:20]],
        # over key and digest of every outcome: none can be changed, added or taken away unnoticed
        "digest": hashlib.sha256(items.encode("ascii")).hexdigest(),
    }


@dataclass(frozen=True, slots=True)
class Judged:
    """The refusals of a time range whose outcome is known. Someone asked about each of them, so
    they are not a random sample of all refusals.
    """

    wrong: int
    right: int
    wrong_weight: float
    """How many refusals the wrong ones stand for: the sum of their weights."""


def judged(since: datetime, until: datetime) -> Judged:
    """Return the matured verdicts about refusals that happened in [since, until)."""
    counts = Outcome.objects.filter(
        REAL_VERDICT,
        occurred_at__gte=since,
        occurred_at__lt=until,
        matured_at__lte=timezone.now(),
    )
    rows = {
        row["kind"]: row
        for row in counts.values("kind").annotate(n=Count("*"), weight=Sum("weight")).order_by()
    }
    none = {"n": 0, "weight": 0.0}
    wrong = rows.get(OutcomeKind.FALSE_THROTTLE, none)
    right = rows.get(OutcomeKind.CORRECT_REFUSAL, none)
    return Judged(int(wrong["n"]), int(right["n"]), wrong["weight"])


@dataclass(frozen=True, slots=True)
class Later:
    """An outcome as it concerns a decision."""

    outcome: Outcome
    about: str
    """What it is about: this decision, this request, its credential, its app."""


def of_decision(d: Decision, most: int = 20) -> list[Later]:
    """Return at most `most` outcomes that concern a decision, nearest first: those of the decision
    and its request, then those that happened afterwards to its credential and its app.
    """
    alone = Outcome.objects.filter(tie__decision=None)
    near = [Outcome.objects.filter(tie__decision=d.id)]
    if d.request_id:
        near.append(alone.filter(Q(tie__app="") | Q(tie__app=d.app), request_id=d.request_id))
    after = alone.filter(request_id="", occurred_at__gte=d.at)
    far = [after.filter(tie__app=d.app)]
    if d.token_digest:
        far.append(after.filter(token_digest=d.token_digest))
    # one query for each, as each has an index of its own
    found = {
        o.pk: o
        for some in (*near, *far)
        for o in some.select_related("tie").order_by("occurred_at", "id")[:most]
    }
    later = [Later(o, _about(o, d)) for o in found.values()]
    later.sort(key=lambda one: (_NEAREST.index(one.about), one.outcome.occurred_at, one.outcome.pk))
    return later[:most]


_NEAREST = ("this decision", "this request", "its credential", "its app")


def _about(o: Outcome, d: Decision) -> str:
    if o.tie.decision == d.id:
        return "this decision"
    if o.request_id:
        return "this request"
    return "its credential" if o.token_digest and o.token_digest == d.token_digest else "its app"


# How the list of outcomes is narrowed.
TIES = ("tied", "unknown")


def latest(app: str = "", before: Outcome | None = None, tie: str = "") -> QuerySet[Outcome]:
    """Return the outcomes of an app, latest occurred first; without `app`, all outcomes, latest
    stored first. With `before`, return only the outcomes that come after it in this order. `tie`
    narrows to what is tied to an app, or to what is not.
    """
    found = Outcome.objects.select_related("tie")
    order = "stored_at"
    if app:
        # the tie's copy of the time, as its index holds an app's outcomes in this order
        order, found = "tie__occurred_at", found.filter(tie__app=app)
    if tie == "tied":
        found = found.filter(tie__state=TieState.TIED)
    elif tie == "unknown":
        found = found.filter(tie__app="")
    if before is not None:
        at = before.occurred_at if app else before.stored_at
        found = found.filter(Q(**{f"{order}__lt": at}) | Q(**{order: at, "pk__lt": before.pk}))
    return found.order_by(f"-{order}", "-pk")


def of_app_since(app: str, since: datetime) -> QuerySet[Outcome]:
    """Return the outcomes of an app that occurred at `since` or later and may count."""
    return Outcome.objects.filter(REAL, tie__app=app, tie__occurred_at__gte=since)


def of_app(app: str, most: int = 50) -> list[Outcome]:
    """Return at most `most` outcomes of an app, latest first; an empty list for a text that cannot
    be an app id.
    """
    if "\x00" in app:
        return []
    return list(latest(app)[:most]) if app else []
