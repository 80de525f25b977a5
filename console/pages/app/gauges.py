"""The buckets of an app right now, as the deciders report them, against its plan."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.display import format as fmt
from console.frame import roles
from control.deciders import buckets
from control.deciders.buckets import Node, Peek
from control.errors import ControlError
from control.policies.effective import Subject
from decider.contracts import units
from decider.contracts.config import Config
from decider.contracts.vocabulary import Tier
from decider.whatif.plan import Plan, plan_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

# A quota counts a UTC day.
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure against its limit."""

    title: str
    value: str
    of: str
    share: float
    """Of the bar that is filled, percent."""
    tick: float | None
    """A mark on the bar, percent."""
    css: str
    """accent, warn, bad or empty."""
    note: str

    @property
    def label(self) -> str:
        return f"{self.value} {self.of}"


@dataclass(frozen=True, slots=True)
class Gauges:
    """The panel of buckets."""

    app: str
    at: float
    """Unix seconds of the reading."""
    peek: Peek | None
    """None when it could not be read; `problem` says why."""
    problem: str
    tiles: tuple[Gauge, ...]
    plan: Plan | None
    """What applies to an app no decider tracks: full buckets of this plan."""
    may_reset: bool
    who_may: str

    @property
    def others(self) -> tuple[Node, ...]:
        """Deciders that track the app besides the one that saw it last."""
        return self.peek.tracking[1:] if self.peek else ()


def read_gauges(user: AbstractUser, app_id: str, about: Subject, config: Config | None) -> Gauges:
    """Ask the deciders for the buckets of an app. A bucket that could not be read is reported,
    never guessed.
    """
    now, problem, found = time.time(), "", None
    try:
        found = buckets.peek(app_id)
    except ControlError as error:
        problem = str(error)
    tier = (config.unknown_tier if about.tier is None else about.tier) if config else 0
    plan = plan_of(config, app=app_id, tenant=about.tenant, tier=tier, now=now) if config else None
    may = buckets.may_reset(user)
    return Gauges(
        app_id,
        now,
        found,
        problem,
        tiles(found, now) if found else (),
        plan,
        may,
        roles.who_can(buckets.PERMISSION),
    )


def tiles(found: Peek, now: float) -> tuple[Gauge, ...]:
    """Return the four gauges; () when no decider tracks the app."""
    views = [n.view for n in found.tracking if n.view is not None]
    if not views:
        return ()
    # Deciders lease from one store: the one that saw the app last knows its burst bucket best.
    owner = views[0]
    return (
        _quota(
            sum(v.quota_used for v in views),
            owner.quota_per_day,
            min(v.tracked_since for v in views),
            now,
        ),
        _burst(owner.tokens, owner.burst, owner.rate, owner.wait_until - now),
        _errors(owner.errors_left, owner.errors_per_hour, owner.tier),
        _pace(sum(v.pace for v in views), owner.rate, sum(v.refused for v in views)),
    )


def _quota(used: float, limit: float, since: float, now: float) -> Gauge:
    """Show today's requests against the quota, with the share of the day that is gone as tick."""
    share, gone = used / limit, now % DAY_S / DAY_S
    # Ahead of the clock is a warning only once half of the quota is used.
    css = "bad" if share >= 1 else "warn" if share > max(gone, 0.5) else ""
    counted = "" if since <= now - now % DAY_S else f" Counted since {fmt.utc_minute(since)}."
    note = f"{share:.0%} used, {gone:.0%} of the day gone (tick). Resets 00:00 UTC.{counted}"
    return Gauge(
        "Admitted today",
        fmt.number(used),
        f"of {fmt.number(limit)}",
        _bar(share),
        _bar(gone),
        css,
        note,
    )


def _burst(tokens: float, burst: float, rate: float, wait: float) -> Gauge:
    """Show the burst bucket. `rate` is tokens a second, `wait` the seconds clients still wait."""
    left = tokens / burst
    note = f"Refills {rate:,.4g} a second."
    if tokens < 1:
        note = (
            f"{fmt.number(max(0.0, -tokens))} into the headroom. {note} One is back in"
            f" {units.span((1 - tokens) / rate)}."
        )
    # Under half a token from full, it is full: refilling shows as a flicker otherwise.
    elif tokens < burst - 0.5:
        note += f" Full in {units.span((burst - tokens) / rate)}."
    if wait > 0.5:
        note += f" Clients were told to wait {units.span(wait)} more."
    css = "bad" if tokens < 1 else "warn" if left < 0.2 else "accent"
    return Gauge(
        "Burst bucket",
        fmt.number(math.floor(tokens)),
        f"of {fmt.number(burst)} tokens",
        _bar(left),
        None,
        css,
        note,
    )


def _errors(left: float, per_hour: float, tier: int) -> Gauge:
    """Show the false throttles that are left of the hour's budget."""
    share = left / per_hour if per_hour else 0.0
    strict = tier == Tier.ENTERPRISE
    note = (
        "Once it is spent, ML refuses no more."
        if strict
        else "The more is spent, the milder ML."
        if per_hour
        else "Its tier has none."
    )
    css = "accent" if share >= 0.2 or not per_hour else "warn"
    return Gauge(
        "False throttles left",
        fmt.number(left, 1),
        f"of {per_hour:,.4g} an hour",
        _bar(share),
        None,
        css,
        note,
    )


def _pace(pace: float, rate: float, refused: float) -> Gauge:
    """Show the pace of the last minute against the plan's rate, both requests a second."""
    note = (
        f"Over the last minute, {fmt.number(refused)} not admitted. Plan sustains {rate:,.4g}"
        " (tick)."
    )
    # A tenth of room keeps the longer bar and its tick inside the frame.
    scale = max(pace, rate) * 1.1
    css = "warn" if pace > rate else ""
    return Gauge(
        "Pace",
        fmt.number(pace, 1),
        "requests a second",
        _bar(pace / scale),
        _bar(rate / scale),
        css,
        note,
    )


def _bar(share: float) -> float:
    """Return a share as percent of a bar, within 0 and 100."""
    return round(100 * min(1.0, max(0.0, share)), 1)
