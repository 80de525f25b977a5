"""Guardrails: a figure next to the limit it must keep, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass

# Share of all requests that may be shed; more means capacity is missing, not that clients
# misbehave.
SHED_LIMIT = 0.01
# Largest share of enterprise requests that may be refused; enterprise customers are promised nearly
# none.
ENTERPRISE_LIMIT = 0.001
# Milliseconds, 99th percentile of what asking a decider adds to a request, as the gateway measures
# it: as long as the gateway waits. A check without an answer counts as that long at least.
ADDED_TIME_LIMIT_MS = 15.0
# Largest share of requests for which no decider answers in time. The gateway's own rule decides
# those, and knows neither app nor tier.
UNASKED_LIMIT = 0.001
# Largest share of checks that the fallback limiter decides because a decider is late. Chosen: a
# moment's rush stays below it, a decider without enough CPU does not.
LATE_LIMIT = 0.01
# From this share of its limit a figure is close to it.
CLOSE = 0.8


@dataclass(frozen=True)
class Verdict:
    """How a figure stands against its limit: inside, close, over, or not measured."""

    level: str
    word: str


def judge(value: float | None, limit: float) -> Verdict:
    """Return how a figure stands against an upper limit; None stands for a figure that is not
    measured.
    """
    if value is None:
        return Verdict("off", "Not measured")
    if value > limit:
        return Verdict("bad", "Over")
    return Verdict("warn", "Close") if value >= CLOSE * limit else Verdict("ok", "Inside")
