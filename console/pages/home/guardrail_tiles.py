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

    @property
    def over(self) -> str:
        """A clause for the attention list when the limit is exceeded; empty otherwise."""
        return f"{self.label} is {self.figure}, {self.limit}" if self.verdict.word == "Over" else ""


def guardrail_tiles(history: Mix, fleet: Fleet | None) -> tuple[Tile, ...]:
    """Return the four tiles in the order of the page. `fleet` is None when the deciders' reports
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
        _decision_time(fleet),
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


def _decision_time(fleet: Fleet | None) -> Tile:
    """Show the p99 decision time of the slowest decider."""
    label, limit = "Decision time p99", guardrails.DECISION_TIME_LIMIT_MS
    if fleet is None or not fleet.nodes:
        return Tile(
            label,
            guardrails.judge(None, limit),
            units.UNKNOWN,
            f"limit {fmt.duration_ms(limit)}",
            "No decider reports.",
        )
    # The slowest and not the mean, because one slow decider slows all its clients.
    slowest = max(node.latency_p99_us for node in fleet.nodes) / 1_000
    each = ", ".join(
        f"{node.node} {fmt.duration_ms(node.latency_p99_us / 1_000)}" for node in fleet.nodes[:4]
    )
    more = f" and {len(fleet.nodes) - 4} more" if len(fleet.nodes) > 4 else ""
    finding = f"Slowest decider, each over its last 1,024 batches. {each}{more}."
    return Tile(
        label,
        guardrails.judge(slowest, limit),
        fmt.duration_ms(slowest),
        f"limit {fmt.duration_ms(limit)}",
        finding,
    )
