"""What the page of a dispute shows: the evidence for the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from console.frame import roles
from console.frame.permissions import READ
from console.pages.decision import page as decision_page
from console.pages.decision import replay_panels
from console.pages.decision.page import DecisionPage
from control.directory import apps as directory
from decider.contracts import units
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import REASONS
from decisions import reason_text
from decisions.counts.estimate import NOTHING, Estimate
from decisions.models import Decision, Dispute, DroppedDay, Outcome
from decisions.outcomes import disputes, reports
from decisions.search import lookup, refusals
from decisions.search.filters import DAY_S
from explain.comparison import timeline
from explain.comparison.timeline import TimelineEvent
from explain.recourse.ways import Recourse

OUTCOMES = "decisions.view_outcome"
# Rows of each list about the app. Chosen: a glance; the app's page has the rest.
LISTED = 8
# Seconds: how far back refusals are counted. Chosen: a week holds every weekday once.
WEEK_S = 7 * DAY_S


@dataclass(frozen=True)
class DisputeRow:
    """A dispute in a list."""

    dispute: Dispute
    name: str
    """Name of its app."""
    why: str
    """The reason of the disputed decision in a few words."""
    can_decide: bool

    @property
    def decision(self) -> str:
        """Id of the disputed decision, as it is shown."""
        return format_decision_id(self.dispute.decision.bytes)

    @property
    def age(self) -> str:
        """How long it has waited, or did wait, for its verdict."""
        return units.span((self.dispute.decided_at or timezone.now()) - self.dispute.opened_at)

    @property
    def is_old(self) -> bool:
        """Whether it has been open for longer than it should be."""
        return self.dispute.is_open and timezone.now() - self.dispute.opened_at > disputes.OLD


def dispute_rows(found: Sequence[Dispute], user: User) -> list[DisputeRow]:
    """Return disputes as rows, with the names of their apps."""
    names = directory.names(d.app for d in found)
    return [
        DisputeRow(
            d, names[d.app], _brief(d.action, d.reason_code), disputes.can_adjudicate(d, user)
        )
        for d in found
    ]


def _brief(action: int, reason: int) -> str:
    return reason_text.BRIEF.get(reason_text.find_telling_reason(action, reason), "")


@dataclass(frozen=True, slots=True)
class Evidence:
    """The record of a disputed decision, decided again where that is possible."""

    shown: DecisionPage
    way: Recourse | None
    """What would have changed it."""
    happened: Sequence[TimelineEvent]


@dataclass(frozen=True, slots=True)
class Cause:
    """How often an app was refused for one cause."""

    action: int
    why: str
    before: Estimate
    """In the 24 h up to the disputed decision."""
    day: Estimate
    """In the last 24 h."""
    week: Estimate
    """In the last 7 d."""


@dataclass(frozen=True, slots=True)
class History:
    """What else is known of the app."""

    causes: tuple[Cause, ...]
    """Most often first."""
    disputes: tuple[DisputeRow, ...]
    """The app's others, latest first."""
    dispute_count: int
    outcomes: tuple[Outcome, ...]
    """Latest first."""
    found_wrong: int
    """Refusals found wrong in the last `reports.FOUND_DAYS`."""


@dataclass(frozen=True, slots=True)
class DisputePage:
    """A dispute with everything that a judge needs."""

    row: DisputeRow
    reason: str
    """The machine reason in a clause."""
    evidence: Evidence | None
    """None when the decision is not stored, or this person may not see decisions."""
    missing: str
    """Why there is no evidence."""
    history: History | None
    """None for a person who may not see decisions."""
    why_not: str
    """Why this person cannot decide it now; empty when they can, or when it is decided."""

    @property
    def found_days(self) -> int:
        return reports.FOUND_DAYS


def dispute_page(found: Dispute, user: User) -> DisputePage:
    """Read everything that the page of a dispute shows to this person."""
    (row,) = dispute_rows([found], user)
    may_see = user.has_perm(READ)
    stored = lookup.find(found.decision) if may_see else None
    missing = ""
    if not may_see:
        missing = f"You may not see decisions. {roles.who_can(READ)}."
    elif stored is None:
        missing = _why_gone(found)
    return DisputePage(
        row,
        REASONS[reason_text.find_telling_reason(found.action, found.reason_code)].text,
        _evidence(stored) if stored else None,
        missing,
        _history(found, user, timezone.now()) if may_see else None,
        _why_not(found, user),
    )


def _evidence(stored: Decision) -> Evidence:
    shown = decision_page.decision_page(stored, with_token=False)
    return Evidence(
        shown,
        replay_panels.way_of(stored, shown.explained),
        timeline.build_timeline(stored, shown.story.http),
    )


def _why_gone(found: Dispute) -> str:
    """Say why the record of the decision is not there, as far as that is known."""
    gone = DroppedDay.objects.filter(day=found.at.date(), name__startswith="decisions_decision")
    if (dropped := gone.first()) is None:
        return "The record of this decision is not stored, so nothing of it can be shown again."
    why = "its age" if dropped.why == "age" else "the disk’s budget"
    return (
        f"The record of this decision was dropped on {dropped.dropped_at:%Y-%m-%d} with its whole"
        f" day, for {why}."
    )


def _history(found: Dispute, user: User, now: datetime) -> History:
    others = Dispute.objects.filter(app=found.app).exclude(pk=found.pk)
    may_see_outcomes = user.has_perm(OUTCOMES)
    return History(
        _causes(found.app, found.at, now),
        tuple(dispute_rows(list(others.order_by("-opened_at", "-pk")[:LISTED]), user)),
        others.count(),
        tuple(reports.of_app(found.app, LISTED)) if may_see_outcomes else (),
        reports.found_wrong(now.timestamp(), found.app).get(found.app, 0),
    )


def _causes(app: str, at: datetime, now: datetime) -> tuple[Cause, ...]:
    """Return why the app was refused around the decision at `at`, and lately."""
    until, end = now.timestamp(), (at + timedelta(seconds=1)).timestamp()
    before, day, week = (
        refusals.count_by_cause(app, end - DAY_S, end),
        refusals.count_by_cause(app, until - DAY_S, until),
        refusals.count_by_cause(app, until - WEEK_S, until),
    )
    causes = [
        Cause(
            action,
            _brief(action, reason),
            *(some.get((action, reason), NOTHING) for some in (before, day, week)),
        )
        for action, reason in before.keys() | week.keys()
    ]
    return tuple(
        sorted(causes, key=lambda c: (-max(c.before.count, c.week.count), c.why, c.action))
    )


def _why_not(found: Dispute, user: User) -> str:
    if not found.is_open or disputes.can_adjudicate(found, user):
        return ""
    if not user.has_perm(disputes.ADJUDICATE_PERMISSION):
        return f"{roles.who_can(disputes.ADJUDICATE_PERMISSION)}."
    return "You opened it, so someone else decides it."
