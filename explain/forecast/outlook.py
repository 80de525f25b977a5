"""The forecast of when an app will be refused if it keeps its pace.

It follows from the app's newest kept decisions and the policy in force: the burst bucket (tokens
over what its pace drains), the daily quota (what is left over its pace), and the trend of its risk
against the risk at which its action would change. The limit that is reached first is named. The
error budget is not a limit of this kind: as it is spent, refusals become fewer, not more.

Where no limit is near, the last hour is the best estimate of the next: an app of which some
requests were refused in the last hour will meet some in the next one as well. On simulated traffic
(two hours, 3,000 apps) this came true 86% of the time, and an app called clear stayed clear 82% of
the time. Without the state "some", it stayed clear only 63% of the time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from control.config import documents
from decider.contracts.config import Config
from decider.contracts.features import INDEX, SCHEMA
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import unpack
from decider.contracts.units import plan_figure
from decider.contracts.vocabulary import REASONS, Action, MlState, Reason
from decider.whatif import replay
from decider.whatif.replay import ReplayError
from decisions.counts.estimate import of_row, total
from decisions.models import Decision
from decisions.search import lookup
from explain.comparison import effective_config
from explain.recourse.text import format_pace as pace_text

# Minutes ahead: the page promises the next hour.
HORIZON_MIN = 60.0
# Seconds of decisions that a forecast reads. Chosen: only recent ones tell what comes next.
LOOK_BACK_S = 900.0
# Most decisions that one forecast reads, which bounds its cost for a busy app.
MOST_ROWS = 300
# Seconds. Without a kept decision this recent, nothing is forecast.
FRESH_S = 300.0
# Fewest ranked decisions for a trend of the risk. Its slope must also exceed two standard errors.
TREND_ROWS = 8
# Seconds, as long as the horizon: the last hour is the estimate of the next.
LATELY_S = 3_600.0
# Fewest kept refusals in that time from which more are expected; a single one may be chance.
LATELY_KEPT = 2
# Most of these refusals read, because an app may be refused all the time.
MOST_LATELY_ROWS = 500


@dataclass(frozen=True, slots=True)
class Outlook:
    """The forecast of an app's next hour."""

    state: str
    """soon, some (refusals go on as in the last hour), clear, refused (right now) or unknown."""
    sentence: str
    because: str
    minutes: float | None = None
    """Minutes until the first refusal; only for soon."""
    limit: str = ""
    """The limit that is reached first: bucket, quota or risk; only for soon."""
    pace: float = 0.0
    """Requests a second that the forecast assumes."""


def forecast_app(app: str, now: float) -> Outlook:
    """Return the forecast for an app at unix time `now`."""
    # A decider's clock may run ahead of this one, so up to a minute of the future is read too.
    mine = Decision.objects.filter(app=app, feature_schema=SCHEMA)
    rows = list(lookup.within(mine, now - LOOK_BACK_S, now + 60.0).order_by("-id")[:MOST_ROWS])
    config = documents.newest()
    if not rows or now - rows[0].at.timestamp() > FRESH_S:
        return _unknown(
            "No request of it was kept in the last five minutes, so nothing is forecast."
        )
    if config is None:
        return _unknown("There is no config document, so nothing is forecast.")
    if rows[0].observed:
        return _unknown(
            "Decisions are recorded and not enforced (observe-only), so it is not refused."
        )
    if _being_refused(rows):
        said = "It is being refused now: at least half of its last minute’s requests."
        return Outlook("refused", said, "")
    return _forecast_pace(app, rows, config, now)


def _unknown(sentence: str) -> Outlook:
    return Outlook("unknown", sentence, "")


def _forecast_pace(app: str, rows: list[Decision], config: Config, now: float) -> Outlook:
    """Return the forecast for an app that is served now and keeps its pace."""
    limits = (_bucket(rows, config, now), _quota(rows[0], config, now), _risk(rows))
    found = [one for one in limits if one and one[0] <= HORIZON_MIN]
    pace = _pace(rows[0])
    if not found:
        # The last hour counts only if no limit is near, because a limit gives a time as well.
        return _lately(app, now, pace) or Outlook(
            "clear",
            "At this pace it is not refused within the next hour.",
            f"It sends {pace_text(pace)}.",
            pace=pace,
        )
    minutes, limit, because = min(found)
    sentence = f"At this pace it is refused in {_about(minutes)}, because {because}."
    return Outlook("soon", sentence, because, minutes, limit, pace)


def _about(minutes: float) -> str:
    return (
        "less than a minute"
        if minutes < 1.0
        else f"about {minutes:.0f} minute{'' if round(minutes) == 1 else 's'}"
    )


def _being_refused(rows: list[Decision]) -> bool:
    newest = rows[0].at
    # Weights turn kept decisions into traffic: refusals are kept more often than admits, so their
    # plain share would be too large.
    last = [row for row in rows if (newest - row.at).total_seconds() < 60.0]
    refused = sum(row.weight for row in last if row.action != Action.ADMIT and not row.observed)
    return rows[0].action != Action.ADMIT and refused >= 0.5 * sum(row.weight for row in last)


def _lately(app: str, now: float, pace: float) -> Outlook | None:
    """Return the forecast "some" from the refusals of the last hour, or None when fewer than
    LATELY_KEPT were kept.
    """
    refused = Decision.objects.filter(app=app, observed=False).exclude(action=int(Action.ADMIT))
    rows = (
        lookup.within(refused, now - LATELY_S, now)
        .order_by("-id")
        .values_list("inclusion_probability", "reason")[:MOST_LATELY_ROWS]
    )
    kept = list(rows)
    if len(kept) < LATELY_KEPT:
        return None
    # The number shown is an estimate, but LATELY_KEPT counts kept refusals. Otherwise a single one
    # with a low inclusion probability would be enough.
    number = total(of_row(p) for p, _ in kept)
    reasons: defaultdict[int, float] = defaultdict(float)
    for p, reason in kept:
        reasons[reason] += 1.0 / p
    commonest = REASONS[Reason(max(reasons, key=reasons.__getitem__))].text
    sentence = (
        f"Some of its requests are refused now and then: {number.words} in the last hour, so expect"
        " some in the next."
    )
    return Outlook("some", sentence, f"Most often because {commonest}.", pace=pace)


def read_pace(features: bytes) -> float:
    """Return requests a second over the last minute, as the decider counted them, from a recorded
    feature vector.
    """
    return float(np.frombuffer(features, "<f4")[INDEX["rate_60s"]])


def _pace(row: Decision) -> float:
    return read_pace(bytes(row.features))


def _signals(row: Decision) -> np.ndarray:
    return unpack(bytes(row.signals))


# Minutes, limit, because.
_Due = tuple[float, str, str]


def _plan(row: Decision, config: Config, now: float) -> tuple[float, float, float]:
    """Return (refill a second, burst, quota a day) in force for the app: its tier's, with refill
    and burst multiplied by any override.
    """
    tier = config.tiers[row.tier]
    times = float(effective_config.find_rules(config, row.event(), now)[3])
    return tier.rate * times, tier.burst * times, tier.quota_per_day


def _bucket(rows: list[Decision], config: Config, now: float) -> _Due | None:
    """Return when the bucket is used up, with ML live also its headroom; None when it lasts."""
    row, pace = rows[0], _pace(rows[0])
    rate, burst, _ = _plan(row, config, now)
    # Within 1% the measured pace cannot be told from the refill, and the time would be hours.
    if pace <= rate * 1.01:
        return None
    # A live model may admit down to the end of the headroom; the fallback limiter stops at one
    # token.
    signals = _signals(row)
    headroom = burst - float(signals[S["headroom_withheld"]])
    floor = 1.0 - headroom if row.ml_state == MlState.LIVE else 1.0
    # The bucket went on draining since the record was made.
    tokens = min(burst, float(signals[S["tokens"]])) + (rate - pace) * max(
        0.0, now - row.at.timestamp()
    )
    minutes = max(0.0, (tokens - floor) / (pace - rate) / 60.0)
    return (
        minutes,
        "bucket",
        (
            f"it sends {pace_text(pace)} and its bucket of {plan_figure(burst)} is refilled at"
            f" {plan_figure(rate)} a second"
        ),
    )


def _quota(row: Decision, config: Config, now: float) -> _Due | None:
    """Return when today's quota is used up, or None when it resets first."""
    pace, seen = _pace(row), _signals(row)
    quota = _plan(row, config, now)[2]
    age = max(0.0, now - row.at.timestamp())
    left = _left_today(row, quota, config) - pace * age
    seconds = max(0.0, left) / pace if pace > 0.0 else math.inf
    # A new day brings the whole quota back before this one is used up.
    if seconds >= float(seen[S["quota_reset"]]) - age:
        return None
    return (
        seconds / 60.0,
        "quota",
        f"about {max(0.0, left):,.0f} of its {plan_figure(quota)} requests a day are left",
    )


def _left_today(row: Decision, quota: float, config: Config) -> float:
    """Return the requests left of today's quota: all that its decider has not counted while more
    may be leased, else what that decider holds.
    """
    seen = _signals(row)
    # All deciders lease from one quota, so each gets an even part of a later change of the plan.
    held = float(seen[S["quota_left"]]) + (quota - float(seen[S["quota_limit"]])) / max(
        1, config.nodes
    )
    if seen[S["lease_due"]] == 0.0:
        return held
    # The decider may lease more, so what the whole fleet has left counts, not what it holds.
    used = float(np.frombuffer(bytes(row.features), "<f4")[INDEX["quota_used"]]) * float(
        seen[S["quota_limit"]]
    )
    return max(held, quota - used)


def _risk(rows: list[Decision]) -> _Due | None:
    """Return when the app's risk, if it goes on rising, will change the action. Return None when it
    does not rise or no risk changes the action.
    """
    ranked = [row for row in rows if row.risk is not None]
    if len(ranked) < TREND_ROWS or ranked[0].action != Action.ADMIT:
        return None
    slope, level = _trend(ranked)
    cut = _cut(ranked[0])
    # A fitted risk at or above the cut contradicts the admit, so the trend says nothing.
    if slope <= 0.0 or cut is None or cut <= level:
        return None
    return (cut - level) / slope, "risk", "its traffic looks more and more like abuse"


def _trend(ranked: list[Decision]) -> tuple[float, float]:
    """Return (risk a minute, risk now) by weighted least squares. The slope is 0 unless it is over
    twice its standard error.
    """
    t = np.array([(row.at - ranked[0].at).total_seconds() / 60.0 for row in ranked])
    y, w = np.array([row.risk for row in ranked], float), np.array([row.weight for row in ranked])
    mean_t, mean_y = np.average(t, weights=w), np.average(y, weights=w)
    spread = float((w * (t - mean_t) ** 2).sum())
    if spread <= 0.0:
        return 0.0, float(mean_y)
    slope = float((w * (t - mean_t) * (y - mean_y)).sum()) / spread
    level = float(mean_y - slope * mean_t)
    # A robust (sandwich) error, because inclusion weights make the residuals unequal. Two of them
    # are about 95%.
    error = math.sqrt(float(((w * (t - mean_t) * (y - level - slope * t)) ** 2).sum())) / spread
    return (slope if slope > 2.0 * error else 0.0), level


def _cut(row: Decision) -> float | None:
    # The config that decided, not the newest: its threshold is what the risk was compared with.
    config = documents.config(row.config_version)
    try:
        found = replay.threshold(row.event(), config) if config else None
    except ReplayError:
        return None
    return found.down if found else None
