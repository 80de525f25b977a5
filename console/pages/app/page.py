"""Everything that the page of an app shows: its decisions, policy, notes, and buckets right now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

from console.frame import roles
from console.pages.app import gauges as app_gauges
from console.pages.app import last_day
from console.pages.app.gauges import Gauges
from console.pages.app.last_day import AppPage, Happening
from control.audit import app_looks
from control.config import documents
from control.directory import notes
from control.models import AppNote, AuditEntry
from control.policies import effective
from control.policies.effective import PolicyLine, Subject
from decider.contracts.config import Config, Override, error_budget_of, version_text
from decider.contracts.vocabulary import Tier
from monitoring import fleet
from monitoring.guardrails import Verdict, judge

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

# The latest config changes are listed beside the bursts. Chosen: a day has few; more would hide
# the bursts.
MOST_CHANGES = 8
# Seconds of ingest lag from which the page mentions it. Chosen: ingest usually needs only a few.
LATE_S = 30.0


@dataclass(frozen=True, slots=True)
class InForce:
    """An override that has not expired."""

    override: Override
    effect: str


@dataclass(frozen=True, slots=True)
class Page:
    """The page of an app for one person."""

    app: AppPage
    lines: tuple[PolicyLine, ...]
    overrides: tuple[InForce, ...]
    notes: tuple[AppNote, ...]
    gauges: Gauges
    tier_word: str
    wrong: Verdict
    """Where the expected false throttles of ML in the worst hour stand against the tier's budget.
    """
    wrong_limit: float | None
    """False throttles that its requests of that hour allow; None where its tier has no budget."""
    sustained: float
    """Requests in half an hour at the plan's pace."""
    late_s: float
    """Seconds that ingest is behind; 0 when it is not."""
    config_version: int
    may_note: bool
    who_may_note: str
    sees_looks: bool


def app_page(user: AbstractUser, app_id: str) -> Page:
    """Read everything that the page of an app shows to this person."""
    now = time.time()
    config = documents.newest()
    app = last_day.last_day(app_id, now, config_changes())
    about = subject(app)
    mine = effective.overrides(config, app_id, about.tenant, now) if config else []
    rate, sustained, word = _plan(config, about)
    limit = rate * app.worst.number.count if rate < 1.0 else None
    return Page(
        app=app,
        lines=tuple(effective.lines(config, about, now)) if config else (),
        overrides=tuple(InForce(o, effective.effect(o)) for o in mine),
        notes=tuple(notes.latest_notes(app_id)),
        gauges=app_gauges.read_gauges(user, app_id, about, config),
        tier_word=word,
        wrong=judge(None if limit is None else app.worst.wrong, limit or 0.0),
        wrong_limit=limit,
        sustained=sustained,
        late_s=_late(now),
        config_version=config.version if config else 0,
        may_note=user.has_perm(notes.PERMISSION),
        who_may_note=roles.who_can(notes.PERMISSION),
        sees_looks=user.has_perm(app_looks.PERMISSION),
    )


def subject(app: AppPage) -> Subject:
    """Return the app, tenant and tier by which the policy of an app is found."""
    known = app.known
    if known is None:
        return Subject(app.id, "", "", None, app.services)
    return Subject(app.id, known.tenant, known.tenant_name, known.tier, app.services)


def _plan(config: Config | None, about: Subject) -> tuple[float, float, str]:
    """Return three values of an app: the error budget that always holds (a share of its requests, 1
    for no limit), its requests in half an hour at the plan's pace, and its tier's word.
    """
    if config is None:
        return 1.0, 0.0, ""
    tier = config.unknown_tier if about.tier is None else about.tier
    sustained = config.tiers[tier].rate * last_day.BUCKET_S
    # below enterprise the budget does not hold while a service is far short of room
    # (`policy.error_budget_rate`), and counts by the hour do not tell those refusals apart
    budget = error_budget_of(config, tier) if tier == Tier.ENTERPRISE else 1.0
    return budget, sustained, Tier(tier).word


def config_changes() -> list[Happening]:
    """Return what people changed in the config in the last day, from the audit log."""
    since = timezone.now() - timedelta(days=1)
    rows = AuditEntry.objects.filter(config_version__isnull=False, at__gt=since).order_by("-seq")[
        :MOST_CHANGES
    ]
    return [
        Happening(
            r.at.timestamp(),
            f"cfg {version_text(r.config_version_id or 0)}: {r.actor} {r.summary}",
            f"cfg {version_text(r.config_version_id or 0)}",
            own=False,
        )
        for r in rows
    ]


def _late(now: float) -> float:
    """Return by how many seconds ingest is behind; 0 when it is not, or when nobody knows."""
    try:
        lag = fleet.read_fleet(now).ingest_lag_s
    except fleet.Unreachable:
        return 0.0
    return lag if lag is not None and lag > LATE_S else 0.0
