"""The guardrail tiles of home: the figures that can be computed now, each beside its limit."""

from __future__ import annotations

from dataclasses import dataclass

from console.display import charts
from console.display import format as fmt
from console.pages.home import mix
from console.pages.home.mix import Mix
from decider.contracts import units
from decisions.models import utc
from decisions.outcomes import reports
from monitoring import guardrails
from monitoring.fleet import Fleet
from monitoring.guardrails import Verdict


@dataclass(frozen=True)
class Tile:
    """One guardrail."""

    label: str
    verdict: Verdict
    figure: str
    limit: str
    finding: str
    """What the line shows, in words."""
    path: str = ""
    """Path of the figure's line over the range; empty when only the present figure is known."""
    limit_y: float = 0.0
    """Where the limit lies, percent from the top."""
    told_apart: bool = False
    """Whether the attention list has a row of its own for it."""

    @property
    def over(self) -> str:
        """A clause for the attention list when the limit is exceeded; empty otherwise."""
        if self.verdict.word != "Over" or self.told_apart:
            return ""
        return f"{self.label} is {self.figure}, {self.limit}"


def guardrail_tiles(history: Mix, fleet: Fleet | None) -> tuple[Tile, ...]:
    """Return the five tiles in the order of the page. `fleet` is None when the deciders' reports
    could not be read.
    """
    return (
        _wrong(history),
        _share(
            "Shed rate",
            history.share(mix.shed, mix.every),
            history.shares(mix.shed, mix.every),
            guardrails.SHED_LIMIT,
        ),
        _share(
            "Enterprise not admitted",
            history.share(mix.refused, mix.enterprise),
            history.shares(mix.refused, mix.enterprise),
            guardrails.ENTERPRISE_LIMIT,
        ),
        _added_time(fleet),
        _unasked(fleet),
    )


def _wrong(history: Mix) -> Tile:
    """Show the known share of wrong refusals: a lower bound, as most have no outcome yet."""
    label, refused = "False-throttle rate", history.count(mix.refused)
    known = reports.judged(utc(history.since), utc(history.until))
    if not known.wrong + known.right or not refused:
        nothing = "No refusal of this time has a matured outcome yet."
        return Tile(label, guardrails.judge(None, 1), units.UNKNOWN, "", nothing)
    finding = (
        f"{known.wrong:,} found wrong and {known.right:,} found right, of about {refused:,.0f} not"
        " admitted. The others have no outcome yet."
    )
    return Tile(
        label,
        # Most refusals have no outcome yet, so the figure is not judged against a limit.
        Verdict("off", "Few labels"),
        f"≥ {fmt.percent(known.wrong_weight / refused)}",
        "of refusals",
        finding,
    )


def _share(label: str, value: float | None, over_time: list[float], limit: float) -> Tile:
    """Show a share, 0 to 1, against its limit; `over_time` has one value a bucket."""
    if value is None:
        return Tile(
            label,
            guardrails.judge(None, limit),
            units.UNKNOWN,
            f"limit {fmt.percent(limit)}",
            "Nothing was decided in this time.",
        )
    # A quarter more than the limit keeps the limit's line inside the frame.
    top = max(1.25 * limit, max(over_time))
    finding = (
        f"{label} {fmt.percent(min(over_time))} to {fmt.percent(max(over_time))}, limit"
        f" {fmt.percent(limit)}"
    )
    return Tile(
        label,
        guardrails.judge(value, limit),
        fmt.percent(value),
        f"limit {fmt.percent(limit)}",
        finding,
        charts.line(over_time, top),
        round(100 - 100 * limit / top, 2),
    )


def _added_time(fleet: Fleet | None) -> Tile:
    """Show what asking a decider adds to a request, as the slowest gateway measures it."""
    label, limit = "Time added, p99", guardrails.ADDED_TIME_LIMIT_MS
    added = fleet.added_p99_ms if fleet else None
    finding = (
        "No gateway tells how long it waits."
        if added is None
        else "As the gateway waited in the last minute; without an answer, as long as it waits."
    )
    return Tile(
        label,
        guardrails.judge(added, limit),
        units.UNKNOWN if added is None else f"{fmt.number(added, 1)} ms",
        f"limit {fmt.duration_ms(limit)}",
        f"{finding} {_own_time(fleet)}",
        # the gateway stops waiting there, so above it are requests without a decision
        told_apart=True,
    )


def _own_time(fleet: Fleet | None) -> str:
    """Say how much of it is the deciders' own: waiting and the way are not in it."""
    if fleet is None or not fleet.nodes:
        return "No decider reports."
    each = ", ".join(
        f"{node.node} {fmt.duration_ms(node.latency_p99_us / 1_000)}" for node in fleet.nodes[:4]
    )
    more = f" and {len(fleet.nodes) - 4} more" if len(fleet.nodes) > 4 else ""
    return f"Deciders’ own work, p99: {each}{more}."


def _unasked(fleet: Fleet | None) -> Tile:
    """Show the share of requests for which no decider answered in time."""
    label, limit = "No decision in time", guardrails.UNASKED_LIMIT
    share = fleet.unasked_share if fleet else None
    if fleet is None or share is None:
        return Tile(
            label,
            guardrails.judge(None, limit),
            units.UNKNOWN,
            f"limit {fmt.percent(limit)}",
            "No gateway tells of requests in the last minute.",
        )
    unasked, asked = fleet.unasked
    return Tile(
        label,
        guardrails.judge(share, limit),
        fmt.percent(share),
        f"limit {fmt.percent(limit)}",
        f"{unasked:,} of {asked:,} requests in the last minute. {_late(fleet)}",
        # the row about it has more to say than a clause
        told_apart=True,
    )


def _late(fleet: Fleet) -> str:
    timely = fleet.timely
    share = timely.recent_late / max(timely.recent_checks, 1)
    return f"{fmt.percent(share)} were decided without the model, as a decider was late."
