"""The record of forecasts: what each said, what then happened, and how often they were right.

A forecast is kept, and settled once its outcome is known. "Soon" came true when the first
kept refusal came within half to one and a half times the time said (give or take two minutes);
"some" when any was kept within the hour; "clear" stayed clear when none was. A refusal that
was only recorded, in observe-only mode, does not count. The three states are counted separately:
most apps are calm, and their forecasts would hide the others.

"Soon" assumes a pace. If the app slowed down before the time came, the forecast proved nothing: it
is counted as slowed, neither right nor wrong.

Refusals are a sample, each kept with a known probability. So the first refusal may have come before
the first kept one, and a few refusals may all have been missed. If even LEAST_REFUSALS of them
would all have been missed more often than one time in twenty, a forecast without a kept refusal is
settled without a verdict.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from django.db import connection
from django.db.models import F, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from control.config import documents
from decider.contracts.features import SCHEMA
from decider.contracts.vocabulary import Action, Tier
from decisions.counts import aggregate, rollup
from decisions.counts.append import APPS, MINUTE_S
from decisions.counts.estimate import share_within
from decisions.models import Decision, utc
from decisions.search import lookup
from explain.forecast.outlook import (
    FRESH_S,
    HORIZON_MIN,
    LOOK_BACK_S,
    Outlook,
    forecast_app,
    read_pace,
)
from explain.models import STATES, Forecast

# Minutes. A forecast that is off by no more is right, however short it was.
SLACK_MIN = 2.0
# An app slowed down if it sent less than this share of the pace that its forecast assumed.
SLOWED_SHARE = 0.8
# A week holds every hour and weekday once. Named in the sentences.
RECORD_DAYS = 7
# Fewest settled forecasts of a state: of one app, to show its own record instead of that of all
# apps; and to tell a share with its interval instead of plain numbers.
ENOUGH_SETTLED = 10
# An app that is being refused meets at least this many refusals. Chosen.
LEAST_REFUSALS = 10
# Chosen: without a kept refusal a forecast gets no verdict if refusals would be missed more often
# than one time in twenty.
SURE_SHARE = 0.95
# Days that a forecast is kept. Chosen: longer than RECORD_DAYS, which is all that the record reads.
KEEP_DAYS = 30
# Most decisions that settling one forecast reads, which bounds its cost for a busy app.
PACE_ROWS = 2_000
_WORDS = {
    "soon": ("Refused soon", "came true"),
    "some": ("Some refused", "came true"),
    "clear": ("Clear", "stayed so"),
}


@dataclass(frozen=True, slots=True)
class StateRecord:
    """How often forecasts of one state were right. Only the first forecast of each app and hour
    counts, because later ones look at much the same future.
    """

    state: str
    """soon, some or clear."""
    right: int
    settled: int
    unsettled: int
    """Further forecasts that came due, but with too few kept refusals to tell."""
    slowed: int
    """Only for soon: further forecasts that came due, but the app had slowed down."""
    own: bool
    """Whether these are the app's own forecasts, not those of all apps."""
    error_minutes: float | None = None
    """Only for soon: median error of the time, over forecasts whose app was refused before they
    came due.
    """

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the share that was right; None with fewer than ENOUGH_SETTLED."""
        return share_within(self.right, self.settled) if self.settled >= ENOUGH_SETTLED else None

    @property
    def sentence(self) -> str:
        word, did = _WORDS[self.state]
        if not self.settled:
            said = (
                f"No “{word}” of the last {RECORD_DAYS} days can be settled yet, so how far to"
                " trust it is not known."
            )
        else:
            whose = "its own" if self.own else "all apps’"
            said = (
                f"“{word}” {did} {self.right:,} of {self.settled:,} times{self._share}, by {whose}"
                f" of the last {RECORD_DAYS} days"
            )
            said += (
                "."
                if self.error_minutes is None
                else f"; half of the times said were off by at most {_off(self.error_minutes)}."
            )
        more = (
            f" {self.unsettled:,} more cannot be settled: too few refusals were kept."
            if self.unsettled
            else ""
        )
        slowed = f" {self.slowed:,} more had slowed down before." if self.slowed else ""
        return f"{said}{slowed}{more}"

    @property
    def _share(self) -> str:
        if (ends := self.interval) is None:
            return ""
        return f", {self.right / self.settled:.0%} (95% interval {ends[0]:.0%} to {ends[1]:.0%})"


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """How often forecasts were right, by their state."""

    soon: StateRecord
    some: StateRecord
    clear: StateRecord


def _off(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if minutes < 9.95 else f"{minutes:.0f} minutes"


def store_forecast(app: str, found: Outlook, now: float) -> Forecast | None:
    """Store a forecast, at most one for each app and minute. Return None when it says nothing about
    the future or is already stored.
    """
    if found.state not in STATES:
        return None
    due = HORIZON_MIN if found.minutes is None else _latest_minute(found.minutes)
    row = {
        "made_at": utc(now),
        "state": found.state,
        "pace": found.pace,
        "minutes": found.minutes,
        "limit": found.limit,
        "because": found.because,
        "due_at": utc(now) + timedelta(minutes=due),
    }
    # The unique key on app and minute decides between the page and the task that store at once.
    kept, made = Forecast.objects.get_or_create(app=app, minute=int(now // 60), defaults=row)
    return kept if made else None


def _latest_minute(minutes: float) -> float:
    """Return the last minute at which a refusal still proves a forecast right."""
    # Relative error for long forecasts, fixed slack for short ones, where half is seconds.
    return max(minutes + SLACK_MIN, 1.5 * minutes)


def was_right(state: str, minutes: float | None, refused_after: float | None) -> bool:
    """Return whether a forecast was right. Both times are in minutes; None means no refusal."""
    if state != "soon" or minutes is None:
        return (refused_after is None) == (state == "clear")
    return refused_after is not None and min(
        minutes - SLACK_MIN, 0.5 * minutes
    ) <= refused_after <= _latest_minute(minutes)


def settle_due(now: float, most: int = 500) -> int:
    """Record what happened for up to `most` forecasts that are due, and return how many. Two runs
    at once are safe.
    """
    due = Forecast.objects.filter(settled_at__isnull=True, due_at__lt=utc(now)).order_by("due_at")[
        :most
    ]
    return sum(_settle(row, now) for row in due)


def _settle(row: Forecast, now: float) -> int:
    made, due = row.made_at.timestamp(), row.due_at.timestamp()
    refused = Decision.objects.filter(app=row.app, observed=False).exclude(action=int(Action.ADMIT))
    found = list(
        lookup.within(refused, made, due).order_by("id").values_list("at", "inclusion_probability")
    )
    after = (
        max(0.0, (min(at for at, _ in found) - row.made_at).total_seconds() / 60.0)
        if found
        else None
    )
    # The smallest probability among those kept, so that certainty is not overstated.
    chance = min(p for _, p in found) if found else estimate_chance_kept(row.app, made, due, now)
    was = was_right(row.state, row.minutes, after) if found or would_show(chance) else None
    # A slower pace only explains a refusal that came later than forecast, or not at all.
    slowed = was is False and (after is None or after > (row.minutes or 0.0)) and _slowed(row)
    verdict = {
        "refused_after": after,
        "refusals": sum(1.0 / p for _, p in found),
        "chance": chance,
        "settled_at": utc(now),
        "right": None if slowed else was,
        "slowed": slowed,
    }
    # Conditional on being unsettled: the second of two runs at once changes nothing.
    return Forecast.objects.filter(pk=row.pk, settled_at__isnull=True).update(**verdict)


def _slowed(row: Forecast) -> bool:
    """Return whether the app's kept decisions before the forecast time average less than
    SLOWED_SHARE of the pace the forecast rests on.
    """
    if row.minutes is None:
        return False
    made = row.made_at.timestamp()
    mine = Decision.objects.filter(app=row.app, feature_schema=SCHEMA)
    # At least a minute, because a very short forecast may see no kept decision at all.
    until = made + 60.0 * max(1.0, row.minutes)
    kept = list(
        lookup.within(mine, made, until)
        .order_by("id")
        .values_list("features", "inclusion_probability")[:PACE_ROWS]
    )
    if not kept:
        return False
    paces = [read_pace(bytes(features)) for features, _ in kept]
    return float(np.average(paces, weights=[1.0 / p for _, p in kept])) < SLOWED_SHARE * row.pace


def would_show(chance: float) -> bool:
    """Return whether at least one of LEAST_REFUSALS refusals would have been kept with probability
    SURE_SHARE, if each is kept with probability `chance`.
    """
    return 1.0 - (1.0 - min(1.0, chance)) ** LEAST_REFUSALS >= SURE_SHARE


def estimate_chance_kept(app: str, since: float, until: float, now: float) -> float:
    """Return the probability with which a refusal of an app was kept between two unix times.

    It is the kept refusals of the app's tier over what they stand for, from the rollups. If the
    tier had none, the newest config's sampling rate is used, which holds while the sampling budget
    does.
    """
    newest = lookup.within(Decision.objects.filter(app=app), since - LOOK_BACK_S, until).order_by(
        "-id"
    )
    tier = newest.values_list("tier", flat=True).first()
    # If no decision in that time tells the tier, standard is assumed.
    tier = int(Tier.STANDARD) if tier is None else tier
    kept, weight = _count_refusals(tier, since, until, now)
    if weight:
        return min(1.0, kept / weight)
    config = documents.newest()
    # Nothing known counts as never kept, so the forecast gets no verdict rather than a lucky one.
    if config is None:
        return 0.0
    return config.sampling.enterprise_refuse if tier == Tier.ENTERPRISE else config.sampling.refuse


def _count_refusals(tier: int, since: float, until: float, now: float) -> tuple[float, float]:
    """Return (kept refusals of a tier, refusals they stand for) between two unix times."""
    # Whole minutes outwards, as the rollups hold them.
    where, values = rollup.within(APPS, int(since // MINUTE_S), int(-(-until // MINUTE_S)), now)
    with connection.cursor() as cursor:
        # Not blocks (action 4): the config samples those at a rate of their own.
        cursor.execute(
            f"SELECT sum(r.kept), sum(r.weight) FROM {APPS.table} r "  # noqa: S608
            f"JOIN {APPS.keys} k ON k.id = r.key "
            f"WHERE ({where}) AND k.tier = %s AND k.action IN (1, 2, 3)",
            [*values, tier],
        )
        kept, weight = cursor.fetchone()
    return float(kept or 0.0), float(weight or 0.0)


def summarise_record(app: str, now: float) -> TrackRecord:
    """Return how often forecasts of the last days were right, by state: the app's own when there
    are enough, else those of all apps.
    """
    due = Forecast.objects.filter(
        settled_at__isnull=False, made_at__gte=utc(now) - timedelta(days=RECORD_DAYS)
    )
    return TrackRecord(*(_kind(state, due.filter(state=state), app) for state in STATES))


# Numbers an app's forecasts within an hour, to count only the first (see StateRecord).
_OF_HOUR = Window(RowNumber(), partition_by=[F("app"), F("minute") / 60], order_by="minute")


def _kind(state: str, rows: QuerySet[Forecast], app: str) -> StateRecord:
    # Own forecasts only from ENOUGH_SETTLED on: fewer say less about the app than all apps do.
    first = rows.annotate(of_hour=_OF_HOUR).filter(of_hour=1)
    every = list(first.values_list("app", "minutes", "refused_after", "right", "slowed"))
    mine = [row for row in every if row[0] == app]
    own = sum(row[3] is not None for row in mine) >= ENOUGH_SETTLED
    shown = mine if own else every
    settled = [row for row in shown if row[3] is not None]
    off = [
        abs(after - minutes)
        for _, minutes, after, *_ in settled
        if minutes is not None and after is not None
    ]
    error = statistics.median(off) if off else None
    slowed = sum(row[4] for row in shown)
    return StateRecord(
        state,
        sum(row[3] is True for row in settled),
        len(settled),
        len(shown) - len(settled) - slowed,
        slowed,
        own,
        error,
    )


def forecast_busiest(now: float, most: int = 20) -> int:
    """Store forecasts for the `most` busiest apps of the last minutes and return how many. Without
    it, the record would cover only apps that someone opened.
    """
    rows = lookup.within(Decision.objects.all(), now - FRESH_S)
    return sum(
        store_forecast(app, forecast_app(app, now), now) is not None
        for app, _ in aggregate.largest_apps(rows, most)
    )


def delete_old(days: int = KEEP_DAYS) -> int:
    """Delete forecasts older than `days` and return how many."""
    return Forecast.objects.filter(made_at__lt=timezone.now() - timedelta(days=days)).delete()[0]
