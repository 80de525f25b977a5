"""When an app will be refused if it goes on as it does, and how often such forecasts were right.

From its newest kept decisions and the policy in force: the burst bucket (tokens over what its pace drains), the daily quota
(what is left over its pace), and the trend of its risk against the risk at which its action would change. The limit that is
reached first is named. Its error budget is no limit of this kind: as it is spent, refusals become fewer, not more.

A forecast is kept, and settled once it can be said what happened. "Soon" came true when the first kept refusal came within half
to one and a half times the time said (give or take two minutes); "clear" stayed clear when none was kept within the hour. What
was only recorded in observe-only mode is no refusal. The two are counted apart: most apps are calm, and would hide the others.

Refusals are a sample, each kept with a known probability. So it stays unknown how much earlier than the first kept refusal the
first one came, and whether a few came that were all missed. Where even LEAST of them would have been missed more often than one
time in twenty, a forecast with no kept refusal is settled without a verdict.
"""

from __future__ import annotations

import logging
import math
import statistics
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from django.db import connection
from django.db.models import F, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from decider import replay
from decider.config import Config
from decider.features import INDEX, SCHEMA
from decider.replay import ReplayError
from decider.signals import INDEX as S
from decider.signals import unpack
from decider.vocabulary import Action, MlState, Tier
from decisions import aggregate, configs, levels, lookup
from decisions.estimate import share_within
from decisions.models import Decision, utc
from decisions.rollup import APPS, MINUTE_S

from . import in_force
from .models import Forecast
from .way_text import pace as pace_text

log = logging.getLogger("sluice.explain")

HORIZON_MIN = 60.0
LOOK_BACK_S = 900.0
ROWS = 300
FRESH_S = 300.0
"""Without a kept decision within this time nothing is said."""
SLACK_MIN = 2.0
"""A forecast off by this much is right however short it was."""
TREND_ROWS = 8
"""Ranked decisions from which a trend of risk is believed, if its slope is twice its standard error."""
RECORD_DAYS = 7
ENOUGH = 10
"""Settled forecasts of a kind: of one app, from which its own are shown instead of those of all apps; and from which a share
and its interval are said instead of plain numbers."""
LEAST = 10
"""Refusals that an app which is being refused meets at least."""
SURE = 0.95
KEEP_DAYS = 30


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected of an app's next hour."""

    state: str
    """soon, clear, refused (it is being refused now) or unknown."""
    sentence: str
    because: str
    minutes: float | None = None
    limit: str = ""
    pace: float = 0.0
    """Requests a second it rests on."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How often forecasts of one kind were right, one of each app and hour: the next ones look at much of the same."""

    state: str
    """soon or clear."""
    right: int
    settled: int
    unsettled: int
    """Came due as well, but too few refusals were kept to tell."""
    own: bool
    """Whether these are the app's own forecasts, not those of all apps."""
    error_minutes: float | None = None
    """Of soon: median of how far off the time was, where it was refused before the forecast came due."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the share that was right, 95%; None with few."""
        return share_within(self.right, self.settled) if self.settled >= ENOUGH else None

    @property
    def sentence(self) -> str:
        word, did = ("Refused soon", "came true") if self.state == "soon" else ("Clear", "stayed so")
        if not self.settled:
            said = f"No “{word}” of the last {RECORD_DAYS} days can be settled yet, so how far to trust it is not known."
        else:
            whose = "its own" if self.own else "all apps’"
            said = (
                f"“{word}” {did} {self.right:,} of {self.settled:,} times{self._share}, by {whose} of the last {RECORD_DAYS} days"
            )
            said += (
                "." if self.error_minutes is None else f"; half of the times said were off by at most {_off(self.error_minutes)}."
            )
        more = f" {self.unsettled:,} more cannot be settled: too few refusals were kept." if self.unsettled else ""
        return f"{said}{more}"

    @property
    def _share(self) -> str:
        if (ends := self.interval) is None:
            return ""
        return f", {self.right / self.settled:.0%} (95% interval {ends[0]:.0%} to {ends[1]:.0%})"


@dataclass(frozen=True, slots=True)
class Record:
    """How often forecasts were right, by what they said."""

    soon: Kind
    clear: Kind


def _off(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if minutes < 9.95 else f"{minutes:.0f} minutes"


def outlook(app: str, now: float) -> Outlook:
    """The forecast for an app at unix time `now`."""
    rows = list(
        lookup.within(Decision.objects.filter(app=app, feature_schema=SCHEMA), now - LOOK_BACK_S, now + 60.0).order_by("-id")[:ROWS]
    )
    if not rows or now - rows[0].at.timestamp() > FRESH_S:
        return Outlook("unknown", "No request of it was kept in the last five minutes, so nothing is forecast.", "")
    config = configs.newest()
    if config is None:
        return Outlook("unknown", "There is no config document, so nothing is forecast.", "")
    if rows[0].observed:
        return Outlook("unknown", "Decisions are recorded and not enforced (observe-only), so it is not refused.", "")
    if _being_refused(rows):
        return Outlook("refused", "It is being refused now: at least half of its last minute’s requests.", "")
    found = [one for one in (_bucket(rows, config, now), _quota(rows[0], config, now), _risk(rows)) if one]
    found = [one for one in found if one[0] <= HORIZON_MIN]
    pace = _pace(rows[0])
    if not found:
        return Outlook("clear", "At this pace it is not refused within the next hour.", f"It sends {pace_text(pace)}.", pace=pace)
    minutes, limit, because = min(found)
    return Outlook("soon", f"At this pace it is refused in {_about(minutes)}, because {because}.", because, minutes, limit, pace)


def _about(minutes: float) -> str:
    return "less than a minute" if minutes < 1.0 else f"about {minutes:.0f} minute{'' if round(minutes) == 1 else 's'}"


def _being_refused(rows: list[Decision]) -> bool:
    newest = rows[0].at
    last = [row for row in rows if (newest - row.at).total_seconds() < 60.0]
    refused = sum(row.weight for row in last if row.action != Action.ADMIT and not row.observed)
    return rows[0].action != Action.ADMIT and refused >= 0.5 * sum(row.weight for row in last)


def _pace(row: Decision) -> float:
    """Requests a second over its last minute, as the decider counted them."""
    return float(np.frombuffer(bytes(row.features), "<f4")[INDEX["rate_60s"]])


def _signals(row: Decision) -> np.ndarray:
    return unpack(bytes(row.signals))


_Due = tuple[float, str, str]
"""Minutes, limit, because."""


def _plan(row: Decision, config: Config, now: float) -> tuple[float, float, float]:
    """(refill, burst, quota) in force for the app: its tier's, stretched by an override."""
    tier = config.tiers[row.tier]
    times = float(in_force.rules_about(config, row.event(), now)[3])
    return tier.rate * times, tier.burst * times, tier.quota_per_day


def _bucket(rows: list[Decision], config: Config, now: float) -> _Due | None:
    """When the bucket, and with ML live the headroom below it, is used up."""
    row, pace = rows[0], _pace(rows[0])
    rate, burst, _ = _plan(row, config, now)
    if pace <= rate * 1.01:
        return None
    floor = 1.0 - burst if row.ml_state == MlState.LIVE else 1.0
    tokens = min(burst, float(_signals(row)[S["tokens"]])) + (rate - pace) * max(0.0, now - row.at.timestamp())
    minutes = max(0.0, (tokens - floor) / (pace - rate) / 60.0)
    return minutes, "bucket", f"it sends {pace_text(pace)} and its bucket of {burst:,.0f} is refilled at {rate:,.4g} a second"


def _quota(row: Decision, config: Config, now: float) -> _Due | None:
    """When today's quota is used up, if that is before it starts anew."""
    pace, seen = _pace(row), _signals(row)
    quota = _plan(row, config, now)[2]
    age = max(0.0, now - row.at.timestamp())
    left = _left_today(row, quota, config) - pace * age
    seconds = max(0.0, left) / pace if pace > 0.0 else math.inf
    if seconds >= float(seen[S["quota_reset"]]) - age:
        return None
    return seconds / 60.0, "quota", f"about {max(0.0, left):,.0f} of its {quota:,.0f} requests a day are left"


def _left_today(row: Decision, quota: float, config: Config) -> float:
    """Requests of today's quota: all that its decider has not counted while more may be leased, else what that decider holds."""
    seen = _signals(row)
    held = float(seen[S["quota_left"]]) + (quota - float(seen[S["quota_limit"]])) / max(1, config.nodes)
    if seen[S["lease_due"]] == 0.0:
        return held
    used = float(np.frombuffer(bytes(row.features), "<f4")[INDEX["quota_used"]]) * float(seen[S["quota_limit"]])
    return max(held, quota - used)


def _risk(rows: list[Decision]) -> _Due | None:
    """When its risk, going on as it rose, reaches the point at which its action changes."""
    ranked = [row for row in rows if row.risk is not None]
    if len(ranked) < TREND_ROWS or ranked[0].action != Action.ADMIT:
        return None
    slope, level = _trend(ranked)
    cut = _cut(ranked[0])
    if slope <= 0.0 or cut is None or cut <= level:
        return None
    return (cut - level) / slope, "risk", "its traffic looks more and more like abuse"


def _trend(ranked: list[Decision]) -> tuple[float, float]:
    """(risk a minute, risk now) by weighted least squares; a slope of 0 where it may be chance."""
    t = np.array([(row.at - ranked[0].at).total_seconds() / 60.0 for row in ranked])
    y, w = np.array([row.risk for row in ranked], float), np.array([row.weight for row in ranked])
    mean_t, mean_y = np.average(t, weights=w), np.average(y, weights=w)
    spread = float((w * (t - mean_t) ** 2).sum())
    if spread <= 0.0:
        return 0.0, float(mean_y)
    slope = float((w * (t - mean_t) * (y - mean_y)).sum()) / spread
    level = float(mean_y - slope * mean_t)
    error = math.sqrt(float(((w * (t - mean_t) * (y - level - slope * t)) ** 2).sum())) / spread
    return (slope if slope > 2.0 * error else 0.0), level


def _cut(row: Decision) -> float | None:
    config = configs.config(row.config_version)
    try:
        found = replay.threshold(row.event(), config) if config else None
    except ReplayError:
        return None
    return found.down if found else None


# ---- the record ----------------------------------------------------------------------------------------------------------


def keep(app: str, found: Outlook, now: float) -> Forecast | None:
    """Keeps a forecast, once a minute and app; None for what says nothing about the future, and when it is there already."""
    if found.state not in ("soon", "clear"):
        return None
    due = HORIZON_MIN if found.minutes is None else _late(found.minutes)
    row = {
        "made_at": utc(now), "minutes": found.minutes, "limit": found.limit, "because": found.because,
        "due_at": utc(now) + timedelta(minutes=due),
    }  # fmt: skip
    kept, made = Forecast.objects.get_or_create(app=app, minute=int(now // 60), defaults=row)
    return kept if made else None


def _late(minutes: float) -> float:
    """The last minute at which a refusal still proves a forecast right."""
    return max(minutes + SLACK_MIN, 1.5 * minutes)


def right(minutes: float | None, refused_after: float | None) -> bool:
    """Whether a forecast was right; both in minutes, None for not at all."""
    if minutes is None or refused_after is None:
        return minutes is None and refused_after is None
    return min(minutes - SLACK_MIN, 0.5 * minutes) <= refused_after <= _late(minutes)


def settle(now: float, most: int = 500) -> int:
    """Fills in what happened, for forecasts that came due. Returns how many. Safe to run twice at once."""
    due = Forecast.objects.filter(settled_at__isnull=True, due_at__lt=utc(now)).order_by("due_at")[:most]
    return sum(_settle(row, now) for row in due)


def _settle(row: Forecast, now: float) -> int:
    made, due = row.made_at.timestamp(), row.due_at.timestamp()
    refused = Decision.objects.filter(app=row.app, observed=False).exclude(action=int(Action.ADMIT))
    found = list(lookup.within(refused, made, due).order_by("id").values_list("at", "inclusion_probability"))
    after = max(0.0, (min(at for at, _ in found) - row.made_at).total_seconds() / 60.0) if found else None
    chance = min(p for _, p in found) if found else chance_kept(row.app, made, due, now)
    verdict = {
        "refused_after": after, "refusals": sum(1.0 / p for _, p in found), "chance": chance, "settled_at": utc(now),
        "right": right(row.minutes, after) if found or would_show(chance) else None,
    }  # fmt: skip
    return Forecast.objects.filter(pk=row.pk, settled_at__isnull=True).update(**verdict)


def would_show(chance: float) -> bool:
    """Whether one of LEAST refusals would have been kept for sure enough, each with probability `chance`."""
    return 1.0 - (1.0 - min(1.0, chance)) ** LEAST >= SURE


def chance_kept(app: str, since: float, until: float, now: float) -> float:
    """Probability with which a refusal of an app was kept between two moments.

    By all refusals of its tier then, from the counts kept ready: kept over what they stand for. Where its tier had none, what the
    newest config says, which holds while the sampling budget does.
    """
    newest = lookup.within(Decision.objects.filter(app=app), since - LOOK_BACK_S, until).order_by("-id")
    tier = newest.values_list("tier", flat=True).first()
    tier = int(Tier.STANDARD) if tier is None else tier
    where, values = levels.within(APPS, int(since // MINUTE_S), int(-(-until // MINUTE_S)), now)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT sum(r.kept), sum(r.weight) FROM {APPS.table} r JOIN {APPS.keys} k ON k.id = r.key "  # noqa: S608
            f"WHERE ({where}) AND k.tier = %s AND k.action IN (1, 2, 3)",
            [*values, tier],
        )
        kept, weight = cursor.fetchone()
    if weight:
        return float(min(1.0, kept / weight))
    config = configs.newest()
    if config is None:
        return 0.0
    return config.sampling.enterprise_refuse if tier == Tier.ENTERPRISE else config.sampling.refuse


def record(app: str, now: float) -> Record:
    """How often forecasts of the last days were right, by kind: the app's own when there are enough, else those of all apps."""
    due = Forecast.objects.filter(settled_at__isnull=False, made_at__gte=utc(now) - timedelta(days=RECORD_DAYS))
    return Record(*(_kind(state, due.filter(minutes__isnull=state == "clear"), app) for state in ("soon", "clear")))


_OF_HOUR = Window(RowNumber(), partition_by=[F("app"), F("minute") / 60], order_by="minute")


def _kind(state: str, rows: QuerySet[Forecast], app: str) -> Kind:
    first = rows.annotate(of_hour=_OF_HOUR).filter(of_hour=1)
    every = list(first.values_list("app", "minutes", "refused_after", "right"))
    mine = [row for row in every if row[0] == app]
    own = sum(row[3] is not None for row in mine) >= ENOUGH
    shown = mine if own else every
    settled = [row for row in shown if row[3] is not None]
    off = [abs(after - minutes) for _, minutes, after, _ in settled if minutes is not None and after is not None]
    error = statistics.median(off) if off else None
    return Kind(state, sum(row[3] for row in settled), len(settled), len(shown) - len(settled), own, error)


def look_ahead(now: float, most: int = 20) -> int:
    """Forecasts the apps with the most requests of the last minutes, so that the record is not only about apps someone opened."""
    rows = lookup.within(Decision.objects.all(), now - FRESH_S)
    return sum(keep(app, outlook(app, now), now) is not None for app, _ in aggregate.largest_apps(rows, most))


def forget(days: int = KEEP_DAYS) -> int:
    """Drops forecasts older than so many days. Returns how many."""
    return Forecast.objects.filter(made_at__lt=timezone.now() - timedelta(days=days)).delete()[0]
