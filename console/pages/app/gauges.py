"""The buckets of an app right now, as the deciders report them, against its plan."""

from __future__ import annotations

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
from decider.node.commands import Spending, View
from decider.whatif.plan import Plan, plan_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

# Expected false throttles. Less than this counts as nothing left: only a refusal at a risk above
# 0.995 would fit, and the page would show 0.00.
NOTHING_LEFT = 0.005
# A quota counts a UTC day.
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure against its limit."""

    title: str
    value: str
    of: str
    share: float
    """How much of the bar is filled, percent."""
    tick: float | None
    """A mark on the bar, percent."""
    css: str
    """accent, warn, bad or empty."""
    note: str

    @property
    def label(self) -> str:
        return f"{self.value} {self.of}"


@dataclass(frozen=True, slots=True)
class SpendingRow:
    """The error budget in one sliding window: what was spent, and why nothing is left."""

    name: str
    """Length of the window: hour or day."""
    spending: Spending
    allowed: float
    """Expected false throttles that its requests allow in all."""
    why: str
    """Empty while something is left."""
    unless: str
    """When ML refuses although nothing is left: the end of a sentence after "unless"."""


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
    spending: tuple[SpendingRow, ...]
    """The last hour and day of the error budget, by the decider that saw the app last."""
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
        spending(found) if found else (),
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
        _errors(owner),
        _pace(sum(v.pace for v in views), owner.rate, sum(v.refused for v in views)),
    )


def _quota(used: float, limit: float, since: float, now: float) -> Gauge:
    """Show today's requests against the quota; the tick is the share of the day that has passed."""
    share, gone = used / limit, now % DAY_S / DAY_S
    # Using the quota faster than the day passes is a warning only once half of it is used.
    css = "bad" if share >= 1 else "warn" if share > max(gone, 0.5) else ""
    counted = "" if since <= now - now % DAY_S else f" Counted since {fmt.utc_minute(since)}."
    note = f"{_percent(share)} used, {gone:.0%} of the day gone (tick). Resets 00:00 UTC.{counted}"
    return Gauge(
        "Admitted today",
        fmt.number(used),
        f"of {units.plan_figure(limit)}",
        _bar(share),
        _bar(gone),
        css,
        note,
    )


def _burst(tokens: float, burst: float, rate: float, wait: float) -> Gauge:
    """Show the burst bucket. `rate` is tokens a second, `wait` the seconds clients still wait."""
    left = tokens / burst
    note = f"Refills {units.plan_figure(rate)} a second."
    if tokens < 1:
        note = (
            f"{units.two_digits(max(0.0, -tokens))} into the headroom. {note} One is back in"
            f" {units.span((1 - tokens) / rate)}."
        )
    # Less than half a token from full counts as full; otherwise the note would flicker.
    elif tokens < burst - 0.5:
        note += f" Full in {units.span((burst - tokens) / rate)}."
    if wait > 0.5:
        note += f" Clients were told to wait {units.span(wait)} more."
    css = "bad" if tokens < 1 else "warn" if left < 0.2 else "accent"
    return Gauge(
        "Burst bucket",
        units.whole_left(tokens),
        f"of {units.plan_figure(burst)} tokens",
        _bar(left),
        None,
        css,
        note,
    )


def _errors(view: View) -> Gauge:
    """Show what is left of the error budget, in the window in which least is left."""
    title = "False throttles left"
    if not view.spending:
        # an older decider reports what is left of the budget, but neither its rate nor its windows
        if view.error_budget == 0.0:
            return Gauge(title, "?", "", 0.0, None, "empty", "Its decider is of an older version.")
        return Gauge(title, "–", "no limit", 0.0, None, "empty", "Its tier has no error budget.")
    tightest = min(_rows(view), key=lambda row: row.spending.left)
    left = tightest.spending.left
    note = (
        f"ML may refuse it at a risk of {max(0.0, 1.0 - left):.2f} or more."
        if left >= NOTHING_LEFT
        else "ML refuses it no more until some is left."
    )
    if view.tier != Tier.ENTERPRISE:
        # `policy.error_budget_rate`
        note += " It does not hold while its service is far short of room."
    return Gauge(
        title,
        fmt.number(left, 2),
        f"of {fmt.number(tightest.allowed, 2)} that its requests of the last {tightest.name} allow",
        _bar(left / tightest.allowed if tightest.allowed else 0.0),
        None,
        "accent" if left >= NOTHING_LEFT else "warn",
        note,
    )


def spending(found: Peek) -> tuple[SpendingRow, ...]:
    """Return the error budget in the last hour and day; () for an app without a budget."""
    owner = next((n.view for n in found.tracking if n.view is not None), None)
    return _rows(owner) if owner else ()


def _rows(view: View) -> tuple[SpendingRow, ...]:
    names = {3_600.0: "hour", DAY_S: "day"}
    found = ((names.get(one.window_s, "window"), one) for one in view.spending)
    unless = "its burst and headroom are used up"
    if view.tier != Tier.ENTERPRISE:
        # `policy.error_budget_rate`
        unless += " or its service is far short of room"
    return tuple(
        SpendingRow(name, one, view.error_budget * one.requests, _why(name, one, view), unless)
        for name, one in found
    )


def _why(name: str, one: Spending, view: View) -> str:
    """Say why nothing is left of the error budget in a window; empty while something is left."""
    if one.left >= NOTHING_LEFT:
        return ""
    promise = f"{units.one_in(view.error_budget)} of its requests"
    if one.spent < NOTHING_LEFT:
        return f"It has sent too few in the present {name} for a refusal by ML to fit {promise}."
    # refusals that are about to leave the window count in part
    times = max(1, round(one.refusals))
    risk = min(1.0, max(0.0, 1.0 - one.spent / max(one.refusals, one.spent)))
    refused = (
        f"ML refused it about {times:,} time{'' if times == 1 else 's'} in the last {name}, at"
        f" risks around {risk:.2f}."
    )
    over = one.spent - view.error_budget * one.requests
    if over > NOTHING_LEFT:
        return f"{refused} That is more than {promise}."
    if over > -NOTHING_LEFT:
        return f"{refused} That is all that {promise} allows."
    return f"{refused} Its requests of the present {name} alone do not allow more yet."


def _pace(pace: float, rate: float, refused: float) -> Gauge:
    """Show the pace of the last minute against the plan's rate, both requests a second."""
    note = (
        f"Over the last minute, {fmt.number(refused)} not admitted. Plan sustains"
        f" {units.plan_figure(rate)} (tick)."
    )
    # A tenth more than the larger figure keeps the bar and its tick inside the frame.
    scale = max(pace, rate) * 1.1
    css = "warn" if pace > rate else ""
    return Gauge(
        "Pace",
        units.told_apart(pace, rate, places=1)[0],
        "requests a second",
        _bar(pace / scale),
        _bar(rate / scale),
        css,
        note,
    )


def _percent(share: float) -> str:
    """Return a share in whole percent; 0% and 100% only for none and all."""
    return f"{units.told_apart(share * 100.0, 0.0, 100.0, places=0)[0]}%"


def _bar(share: float) -> float:
    """Return a share as percent of a bar, within 0 and 100."""
    return round(100 * min(1.0, max(0.0, share)), 1)
