"""The home page, from stored decisions, heartbeats and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.urls import reverse
from django.utils.text import Truncator

from console.display import charts
from console.display import format as fmt
from console.pages.home import guardrail_tiles, mix, mix_chart
from console.pages.home.guardrail_tiles import Tile
from console.pages.home.mix import RANGES, Mix, Range
from console.pages.home.mix_chart import Chart, Mark
from control import disk
from control.audit import app_looks
from control.models import AnchorReport, AuditEntry
from decider.contracts import units
from decider.contracts.config import ALL_ML, OBSERVE_ONLY
from decider.contracts.vocabulary import Action
from decisions.outcomes import disputes
from decisions.store import buried, ledger
from explain.models import Explanation
from explain.shap import backlog
from monitoring import attention, fleet, guardrails
from monitoring.anchors import Anchoring
from monitoring.attention import Explained, Facts
from monitoring.attention_item import AttentionItem
from monitoring.fleet import Fleet, ServiceLoad
from monitoring.storing import Storing

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

# Seconds. The page leaves out the newest decisions, because ingest needs a moment to store them.
SETTLE_S = 5.0
# Seconds that count as "now". Chosen: figures are counts a minute, and of less time mostly noise.
NOW_S = 60
# Seconds. An installation with less history than this opens on the shortest range.
_FRESH_S = 3_600.0
# Newest entries of the audit log on the page. Chosen: few enough to read at a glance.
_ACTIONS = 7
# Target of a service that the config does not name: the default of `target` in the config.
_DEFAULT_TARGET = 0.85


@dataclass(frozen=True)
class Attention:
    """An attention row with its link."""

    item: AttentionItem
    href: str


@dataclass(frozen=True)
class ServiceRow:
    """One service: how much of its capacity is used, and what that costs its clients."""

    name: str
    utilisation: float
    target: float
    latency_ms: float
    deferred: float
    """Requests a minute that were deferred or batched, weighted."""
    shed: float
    """Requests a minute that were shed, weighted."""
    level: str
    word: str

    @property
    def bar(self) -> float:
        """Percent of the bar, full at capacity."""
        return charts.scale(self.utilisation, 0, 1)

    @property
    def tick(self) -> float:
        """Percent of the bar at which the target stands."""
        return charts.scale(self.target, 0, 1)

    @property
    def look(self) -> str:
        return {"bad": "bad", "warn": "warn"}.get(self.level, "")


@dataclass(frozen=True)
class Home:
    """Everything on the page."""

    at: datetime
    headline: str
    lead: str
    span: Range
    ranges: tuple[Range, ...]
    chart: Chart | None
    """None while nothing was decided in the range."""
    now: Mix
    attention: tuple[Attention, ...]
    tiles: tuple[Tile, ...]
    services: tuple[ServiceRow, ...]
    fleet: Fleet | None
    ingest: str
    actions: tuple[AuditEntry, ...]
    may_audit: bool

    @property
    def known(self) -> bool:
        """Whether the deciders' reports could be read."""
        return self.fleet is not None


def home_page(user: AbstractUser, asked: str = "", now: float | None = None) -> Home:
    """Read the home page for one person.

    `asked` is a key of RANGES or empty, `now` unix seconds. Raise Django's OperationalError when
    PostgreSQL does not answer.
    """
    at = datetime.now(UTC).timestamp() if now is None else now
    until = at - SETTLE_S
    span = RANGES[asked or _default(until)]
    history, lately = mix.mix_over(span, until), mix.mix_lately(until, NOW_S)
    report = _fleet(at)
    targets = _targets(report)
    tiles = guardrail_tiles.guardrail_tiles(history, report)
    over = tuple(tile.over for tile in tiles if tile.over)
    progress = backlog.measure_progress(at)
    explained, old_disputes = _explained(at, progress), _old_disputes(at)
    items = attention.find(
        Facts(
            report,
            over=over,
            targets=targets,
            explained=explained,
            old_disputes=old_disputes,
            storing=_storing(at),
            anchoring=_anchoring(at),
        )
    )
    may_audit = user.has_perm("control.view_audit")
    return Home(
        at=datetime.fromtimestamp(lately.until, UTC),
        headline=_headline(report, items, lately),
        lead=_lead(report, lately),
        span=span,
        ranges=tuple(RANGES.values()),
        chart=_chart(history, lately, may_audit=may_audit),
        now=lately,
        attention=tuple(Attention(item, _href(item)) for item in items),
        tiles=tiles,
        services=_services(report, targets, lately),
        fleet=report,
        ingest=f"{_ingest(report, lately)} {_explaining(progress)} {_disk(disk.recent())}",
        actions=_audit_entries() if may_audit else (),
        may_audit=may_audit,
    )


def _targets(report: Fleet | None) -> dict[str, float]:
    """Return the utilisation that the config aims at, 0 to 1, by service."""
    config = report.config if report else None
    return {s.name: s.target for s in config.services} if config else {}


def _audit_entries() -> tuple[AuditEntry, ...]:
    """Return the newest entries of the audit log about changes."""
    # Most entries are looks at data, but the page is about what people changed.
    changes = AuditEntry.objects.exclude(action=app_looks.ACTION)
    return tuple(changes.order_by("-seq")[:_ACTIONS])


def _chart(history: Mix, lately: Mix, *, may_audit: bool) -> Chart | None:
    """Draw the chart, with config changes for those who may read them; None without decisions."""
    if not history.total:
        return None
    return mix_chart.draw_chart(history, lately, _marks(history) if may_audit else [])


def _services(
    report: Fleet | None, targets: dict[str, float], lately: Mix
) -> tuple[ServiceRow, ...]:
    """Return a row for each service that the deciders report."""
    loads = report.services if report else ()
    return tuple(_service(load, targets.get(load.name, _DEFAULT_TARGET), lately) for load in loads)


def _default(until: float) -> str:
    """Return the range that an installation opens on."""
    first = mix.oldest_decision()
    return "3h" if first is not None and until - first > _FRESH_S else "15m"


def _fleet(at: float) -> Fleet | None:
    """Return the deciders' reports; None when Valkey does not answer."""
    try:
        return fleet.read_fleet(at)
    except fleet.Unreachable:
        return None


def _headline(report: Fleet | None, items: Sequence[AttentionItem], lately: Mix) -> str:
    """Say in a sentence how the fleet runs and how many rows need attention."""
    if report is None:
        return "Status unknown: Valkey does not answer"
    if not report.size and not lately.total:
        return "Ready. No decider has reported yet"
    count = len(items)
    look = f", {count} thing{'s' if count > 1 else ''} to look at" if count else ""
    over = any(item.where == "guardrails" for item in items)
    return f"{_how(report, lately, over)}{look}"


def _how(report: Fleet, lately: Mix, over: bool) -> str:
    """Say how the fleet runs; of several conditions, name the worst."""
    if not report.nodes:
        return "No decider’s report is believed" if report.unbelieved else "No decider reports"
    if report.engaged(OBSERVE_ONLY):
        return "Observing only, everything is admitted"
    if report.engaged(ALL_ML):
        return "ML is off, the fallback limiter decides"
    if len(report.without_ml) == len(report.nodes):
        return "Running without ML, the fallback limiter decides"
    if (
        report.lost
        or report.doubts
        or report.without_ml
        or (report.unasked_share or 0.0) > guardrails.UNASKED_LIMIT
        or any(load.utilisation >= 1 and not load.late for load in report.services)
    ):
        return "Running, degraded"
    if over:
        return "Running, over a guardrail"
    return "Running normally" if lately.total else "Running, without traffic"


def _lead(report: Fleet | None, lately: Mix) -> str:
    """Return the line under the headline."""
    refused = lately.share(mix.refused, mix.every)
    if refused is None:
        traffic = "Nothing was decided in the last minute."
    else:
        rate = fmt.number(lately.total / lately.minutes)
        traffic = f"{fmt.percent(1 - refused, 1)} of about {rate} requests a minute are admitted."
    return f"{traffic} {_who_decides(report)}" if report and report.nodes else traffic


def _who_decides(report: Fleet) -> str:
    """Say whether ML or the fallback limiter decides, and on how many deciders."""
    model = report.config.model if report.config else None
    every = len(report.nodes)
    live = every - len(report.without_ml)
    deciders = f"{every} decider{'s' if every > 1 else ''}"
    if not model or not live:
        return f"The fallback limiter decides on {deciders}."
    where = (
        deciders if every == 1 else f"all {deciders}" if live == every else f"{live} of {deciders}"
    )
    return f"ML decides on {where}, with {model.name} v{model.version}."


def _marks(history: Mix) -> list[Mark]:
    """Return the last three changes of the config within the time shown."""
    since, until = (datetime.fromtimestamp(t, UTC) for t in (history.since, history.until))
    entries = AuditEntry.objects.filter(
        at__gte=since, at__lt=until, config_version__isnull=False
    ).order_by("-seq")[:3]
    return [
        Mark(entry.at.timestamp(), f"{entry.at:%H:%M} {_short(entry.summary)}")
        for entry in reversed(entries)
    ]


def _short(summary: str) -> str:
    """Shorten an audit summary to fit beside a line in the chart."""
    return str(Truncator(summary.partition(" until ")[0]).chars(32))


def _service(load: ServiceLoad, target: float, lately: Mix) -> ServiceRow:
    """Return how a service is used, and its deferred and shed requests in the last minute."""
    deferred = (
        lately.count(
            lambda cell: cell.service == load.name and cell.action in (Action.DEFER, Action.BATCH)
        )
        / lately.minutes
    )
    shed = lately.count(lambda cell: cell.service == load.name and mix.shed(cell)) / lately.minutes
    level, word = _pressure(load, target, shed)
    return ServiceRow(
        load.name, load.utilisation, target, load.latency_ms, deferred, shed, level, word
    )


def _pressure(load: ServiceLoad, target: float, shed: float) -> tuple[str, str]:
    """Return the level of a service and its word. `shed` is requests a minute."""
    # The figures are too old to judge.
    if load.late:
        return "off", "Late feed"
    if load.utilisation >= 1:
        return "bad", "Over capacity"
    if load.utilisation >= target:
        return ("bad", "Shedding") if shed else ("warn", "Priced")
    # Chosen: a tenth below the target is close enough to look at.
    return ("warn", "Close") if load.utilisation >= 0.9 * target else ("ok", "Fine")


def _ingest(report: Fleet | None, lately: Mix) -> str:
    """Say how far ingest is behind, and what the figures rest on."""
    if report is None:
        return (
            "Valkey does not answer: service load and ingest lag are not known. Decisions shown are"
            " those already stored."
        )
    lag = report.ingest_lag_s
    lagging = (
        f"Ingest lag {units.span(lag)}. " if lag is not None else "Nothing has been stored yet. "
    )
    late = [load.name for load in report.services if load.late]
    feed = f" The feedback of {', '.join(late)} is late; its last value is shown." if late else ""
    return (
        f"{lagging}Figures are weighted from {lately.kept:,} decisions kept in the last"
        f" minute.{feed}"
    )


def _disk(use: disk.DiskUse) -> str:
    """Say how much of the disk's budget is used."""
    return f"{use.used / disk.GB:,.1f} GB of {use.budget / disk.GB:,.0f} GB of disk are used."


def _explaining(progress: backlog.BacklogProgress) -> str:
    """Say how many decisions wait for their explanation, for how long, the rate, and what was left
    out.
    """
    return f"{_waiting(progress)}{_left_out(progress)}"


def _left_out(progress: backlog.BacklogProgress) -> str:
    """Say what was dropped in the last minute, "" for nothing."""
    if not (count := progress.dropped):
        return ""
    refusals = progress.dropped_refusals
    of_these = f", {refusals:,} of them refusals" if refusals else ", all of them admitted"
    return (
        f" {count:,} were left out in the last minute{of_these}, as there was more to explain than"
        " time; each is explained when somebody opens it."
    )


def _waiting(progress: backlog.BacklogProgress) -> str:
    if not progress.waiting:
        return (
            f"No decision waits for its explanation; {progress.per_s:,.1f} a second were explained"
            " in the last minute."
        )
    many = progress.waiting > 1
    wait = (
        f"{progress.waiting:,}"
        f" decision{'s wait for their explanations' if many else ' waits for its explanation'}"
    )
    return (
        f"{wait}, the oldest for {units.span(progress.oldest_s)}; {progress.per_s:,.1f} a second"
        " were explained in the last minute."
    )


def _explained(at: float, progress: backlog.BacklogProgress) -> Explained:
    """Return how well explaining keeps up, and how many explanations of the last day do not add up
    to their score.
    """
    day = datetime.fromtimestamp(at - 86_400, UTC)
    mismatches = Explanation.objects.filter(at__gte=day, mismatch=True).count()
    stopped = progress.dropped > 0 and progress.per_s == 0.0
    return Explained(progress.dropped_refusals, mismatches, stopped=stopped)


def _storing(at: float) -> Storing:
    """Return how many sampled decisions are not stored, and why."""
    waiting, use = buried.waiting(), disk.recent()
    newest = waiting.newest_at.timestamp() if waiting.newest_at else 0.0
    left = max(0.0, use.left / disk.GB)
    return Storing(at, waiting.count, newest, ledger.lost_lately(), int(use.room), left)


def _anchoring(at: float) -> Anchoring | None:
    """Return how anchoring the audit log goes; None until the worker did so for the first time."""
    report = AnchorReport.objects.first()
    if report is None:
        return None
    anchored_at, failing = report.anchored_at, report.failing_since
    return Anchoring(
        at,
        anchored_at.timestamp() if anchored_at else 0.0,
        failing.timestamp() if failing else 0.0,
        report.why,
        report.waiting,
    )


def _old_disputes(at: float) -> tuple[int, float]:
    """Return how many disputes wait too long, and the age of the oldest, seconds."""
    waiting = disputes.waiting(datetime.fromtimestamp(at, UTC))
    return (
        waiting.old,
        at - waiting.oldest_at.timestamp() if waiting.old and waiting.oldest_at else 0.0,
    )


_PLACES = {
    "disputes": ("disputes", ""),
    "switches": ("switches", ""),
    "propagation": ("switches", "#propagation"),
    "ingest": ("home", "#ingest"),
    "storing": ("storing", ""),
    "services": ("home", "#services"),
    "guardrails": ("home", "#guardrails"),
    "lookup": ("lookup", ""),
}


def _href(item: AttentionItem) -> str:
    """Return the address where people deal with an attention row."""
    name, anchor = _PLACES[item.where]
    return reverse(name) + anchor
