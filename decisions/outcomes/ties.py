"""Tying outcomes to apps: which app an outcome is about, as far as that is known.

The decision or the app that a report names may come later than the report, so a tie grows with the
evidence: what was seen once stays seen, and a second app under the same name makes it unsure.
Whatever the order in which evidence comes, the tie ends the same (`join`). Outcomes whose app is
not known, or might still prove to be several, are tried again for `KEEP_TRYING`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Min, Q
from django.utils import timezone

from decisions.models import Outcome, OutcomeTie
from decisions.models.tie import TieHow, TieState
from decisions.outcomes import evidence
from decisions.outcomes.evidence import Evidence

# How long an outcome is tried again. Chosen: a month, about as long as decisions are kept; what was
# not seen by then will not be.
KEEP_TRYING = timedelta(days=30)
# The wait after the first try; it doubles with every further one up to the longest. Chosen: a
# sampled decision is stored within seconds, or minutes after an outage, and apps are registered
# within days.
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=5), timedelta(days=1)
# Outcomes that one run tries. Chosen: seconds of work, so that a worker's other tasks go on.
MOST_TRIED = 2_000
# Outcomes that are tried in one transaction. Chosen: their rows are locked for a moment only.
CHUNK = 500
# Reporters that are listed by name. Chosen: one or two screens.
MOST_REPORTERS = 20
# What can tell only one app.
_SURE = (TieHow.APP, TieHow.DECISION, TieHow.RECEIPT, TieHow.EARLIER)
# The surest first.
_RANK = {how: rank for rank, how in enumerate(TieHow)}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the app of an outcome."""

    state: TieState = TieState.UNKNOWN
    app: str = ""
    how: TieHow | None = None
    contradicts: bool = False
    """Whether what is sure tells several apps, which nothing can put right."""

    @property
    def is_sure(self) -> bool:
        """Whether it rests on what can tell only one app."""
        return self.how in _SURE


def join(before: Standing, found: Evidence) -> Standing:
    """Return what is known after some more evidence. What is sure overrules what is not. The order
    in which evidence comes does not matter, nor how often.
    """
    sure = [(app, how) for how, app in found.sure.items()]
    if before.is_sure and before.how is not None:
        sure.append((before.app, before.how))
    if sure:
        return replace(_only(sure), contradicts=len({app for app, _ in sure}) > 1)
    unsure = [(app, how) for how, apps in found.unsure.items() for app in apps]
    if before.how is not None:
        unsure.append((before.app, before.how))
    if before.state == TieState.SEVERAL or found.crowded:
        return Standing(TieState.SEVERAL)
    return _only(unsure)


def _only(told: Sequence[tuple[str, TieHow]]) -> Standing:
    """Return the one app that all of these tell, if it is one."""
    apps = {app for app, _ in told}
    if len(apps) > 1:
        return Standing(TieState.SEVERAL)
    if not apps:
        return Standing()
    return Standing(TieState.TIED, apps.pop(), min((how for _, how in told), key=_RANK.__getitem__))


def is_settled(standing: Standing, found: Evidence) -> bool:
    """Return whether no further evidence can change what is known: sure apps that contradict each
    other, or one that everything sure has told.
    """
    return standing.contradicts or (standing.is_sure and found.is_all)


def make(row: Outcome, found: Evidence, now: datetime) -> OutcomeTie:
    """Return the tie of an outcome that is being stored. Its `outcome` is still to be set."""
    tie = OutcomeTie(occurred_at=row.occurred_at, since=now, tries=0)
    _settle(tie, join(Standing(), found), found, now)
    return tie


def _settle(tie: OutcomeTie, standing: Standing, found: Evidence, now: datetime) -> None:
    """Write into a tie what one more try has found, and when the next one is."""
    tie.state, tie.app, tie.how = standing.state, standing.app, standing.how or ""
    tie.decision = found.decision or tie.decision
    tie.tries += 1
    last = tie.since + KEEP_TRYING
    if is_settled(standing, found) or now >= last:
        tie.next_at = None
        return
    # 2 ** 12 five minutes are longer than the longest wait, and a larger power could overflow
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(12, tie.tries - 1))
    # the last try comes when the time is over, not before
    tie.next_at = min(now + wait, last)


@dataclass(frozen=True, slots=True)
class Tried:
    """What one run of trying again did, in outcomes."""

    tied: int = 0
    """Of which no app was known before."""
    untied: int = 0
    """That proved to be about several apps."""
    given_up: int = 0
    """Whose time was over without an app."""
    tried: int = 0

    def plus(self, other: Tried) -> Tried:
        return Tried(
            self.tied + other.tied,
            self.untied + other.untied,
            self.given_up + other.given_up,
            self.tried + other.tried,
        )


def try_again(now: datetime | None = None, most: int = MOST_TRIED) -> Tried:
    """Look again for the apps of outcomes that wait for it, the longest due first, and return what
    was found. Two runs at once do no harm.
    """
    now = now or timezone.now()
    due = OutcomeTie.objects.filter(next_at__lte=now).order_by("next_at", "pk")
    ids = list(due.values_list("pk", flat=True)[:most])
    done = Tried()
    for start in range(0, len(ids), CHUNK):
        done = done.plus(_try_some(ids[start : start + CHUNK], now))
    return done


def _try_some(ids: Sequence[int], now: datetime) -> Tried:
    rows = list(Outcome.objects.filter(pk__in=ids).order_by("pk"))
    # looked up before the ties are locked; joining it is right whatever another run wrote meanwhile
    found = {row.pk: one for row, one in zip(rows, evidence.gather(rows), strict=True)}
    done = Tried()
    with transaction.atomic():
        ties = list(
            OutcomeTie.objects.select_for_update()
            .filter(pk__in=list(found), next_at__lte=now)
            .order_by("pk")
        )
        for tie in ties:
            had = tie.state
            _settle(tie, join(_standing(tie), found[tie.pk]), found[tie.pk], now)
            done = done.plus(
                Tried(
                    tied=int(had != TieState.TIED and tie.state == TieState.TIED),
                    untied=int(had == TieState.TIED and tie.state != TieState.TIED),
                    given_up=int(tie.state == TieState.UNKNOWN and tie.next_at is None),
                    tried=1,
                )
            )
        OutcomeTie.objects.bulk_update(
            ties, ["state", "app", "how", "decision", "tries", "next_at"]
        )
    return done


def _standing(tie: OutcomeTie) -> Standing:
    return Standing(TieState(tie.state), tie.app, TieHow(tie.how) if tie.how else None)


@dataclass(frozen=True, slots=True)
class Reporter:
    """Someone's outcomes whose app is not known."""

    source: str
    """How they came: csv, api."""
    by: str
    waiting: int
    """Tried again."""
    over: int
    """Not found in all the time that they were tried."""
    several: int
    """Might be about several apps."""
    since: datetime
    """When the oldest was stored."""

    @property
    def count(self) -> int:
        return self.waiting + self.over + self.several


def count_unknown() -> int:
    """Return how many outcomes are not tied to an app."""
    return OutcomeTie.objects.filter(app="").count()


def unknown_by_reporter() -> list[Reporter]:
    """Return whose outcomes are not tied to an app, the most first, at most MOST_REPORTERS."""
    several = Q(state=TieState.SEVERAL)
    rows = (
        OutcomeTie.objects.filter(app="")
        .values("outcome__source", "outcome__by")
        .annotate(
            waiting=Count("pk", filter=~several & Q(next_at__isnull=False)),
            over=Count("pk", filter=~several & Q(next_at=None)),
            several=Count("pk", filter=several),
            oldest=Min("since"),
            n=Count("pk"),
        )
        .order_by("-n", "outcome__source", "outcome__by")[:MOST_REPORTERS]
    )
    return [
        Reporter(
            row["outcome__source"],
            row["outcome__by"],
            row["waiting"],
            row["over"],
            row["several"],
            row["oldest"],
        )
        for row in rows
    ]
