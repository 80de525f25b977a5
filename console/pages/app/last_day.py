"""What stored decisions say about one app: how it is now, its last day, and what happened around
its bursts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.db.models import Count, QuerySet

from console.display import columns
from console.pages.lookup import page as lookup_page
from control.directory import apps as directory
from control.directory.apps import KnownApp
from decider.contracts.vocabulary import Action
from decisions.counts import aggregate
from decisions.counts.estimate import NOTHING, Estimate, total
from decisions.models import Decision, Dispute, utc
from decisions.models.outcome import OutcomeKind, State
from decisions.outcomes import reports
from decisions.search import app_day, lookup
from decisions.search.app_day import Endpoint, Hour
from decisions.search.filters import DAY_S, REFUSED, Filters

# Half hours: 48 columns show a day, and a burst stays visible.
BUCKET_S = 1_800.0
# Seconds that count as "now" in the finding. Chosen: long enough that even a rare caller was seen.
RECENT_S = 600.0
# Refusals listed on the page; the rest is a link away.
LATEST = 10
# Seconds of outcomes that are counted. Most mature within a month; a shorter time would miss them.
LABELS_S = 30 * DAY_S
# People ask for these kinds most, so they are listed even with a count of 0.
_ALWAYS = (OutcomeKind.FALSE_THROTTLE, OutcomeKind.CORRECT_REFUSAL, OutcomeKind.FRAUD)
# Seconds. A credential that was not seen in this time before the day shown counts as new.
LOOK_BACK_S = 6 * DAY_S
# Chosen: what fits on the page without scrolling; more marks in the chart would overlap.
ENDPOINTS, MARKS, BURSTS, NEW_TOKENS = 8, 3, 3, 6
# Where the baselines of the two charts stand, and how high they are, pixels of the drawing.
FLOOR, HEIGHT = 136.0, 100.0
# All requests stand small below what was not admitted.
ALL_FLOOR, ALL_HEIGHT = 208.0, 34.0


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that may have to do with a burst."""

    at: float
    """Unix seconds."""
    text: str
    short: str = ""
    """For the chart; the text when empty."""
    burst: bool = False
    own: bool = True
    """Whether it is about this app alone. Where there is little room, those about all apps are left
    out first.
    """


@dataclass(frozen=True, slots=True)
class Mark:
    """A happening in the chart: a line at `x` percent, its label `y` pixels down."""

    x: float
    y: int
    text: str
    anchor: str
    dx: int


@dataclass(frozen=True, slots=True)
class Labels:
    """What became of the app's requests, as reported for the last 30 days."""

    counts: tuple[tuple[OutcomeKind, int], ...]
    """Matured outcomes by kind; the three that are asked for most are always there."""
    settling: int
    """Reported and not matured yet."""
    disputed: int
    """Open disputes."""
    found_wrong: int
    """Refusals found wrong in the last 90 days (`outcomes.found_wrong`)."""


@dataclass(frozen=True, slots=True)
class AppPage:
    """An app and the last day of decisions about it."""

    id: str
    name: str
    known: KnownApp | None
    latest: tuple[lookup_page.DecisionRow, ...]
    """Newest refusals of the day."""
    number: Estimate
    """Decisions of the last 24 h."""
    between: Estimate
    """Decisions of the last 24 h that were not admitted."""
    recent: Estimate
    """Decisions of the last 10 min."""
    recent_refused: Estimate
    mix: tuple[tuple[Action, Estimate, float], ...]
    """Action, decisions, share of all."""
    endpoints: tuple[Endpoint, ...]
    chart: columns.Columns | None
    """Not admitted, per half hour."""
    all: columns.Columns | None
    """All requests, per half hour."""
    marks: tuple[Mark, ...]
    story: tuple[Happening, ...]
    """What happened and the bursts, in order of time."""
    worst: Hour
    """The hour in which most false throttles are expected."""
    tokens: int
    """Credentials seen in kept decisions of the day."""
    regions: tuple[str, ...]
    labels: Labels
    all_href: str
    refused_href: str

    @property
    def count(self) -> float:
        return self.number.count

    @property
    def kept(self) -> int:
        return self.number.kept

    @property
    def refused(self) -> float:
        return self.between.count

    @property
    def refused_now(self) -> bool:
        """Whether a tenth or more of the last 10 min was not admitted."""
        return (
            bool(self.recent_refused.count) and self.recent_refused.count >= 0.1 * self.recent.count
        )

    @property
    def refused_share(self) -> float:
        return self.refused / self.count if self.count else 0.0

    @property
    def finding(self) -> str:
        """How the app is, in one sentence without a full stop."""
        if not self.count:
            return f"{self.name}: nothing is known of the last 24 h"
        if self.refused_now:
            refused, recent = self.recent_refused.count, self.recent.count
            return (
                f"{self.name} is being refused now: about {refused:,.0f} of {recent:,.0f} in the"
                " last 10 min"
            )
        if self.chart is None:
            return f"{self.name} is well: everything was admitted in the last 24 h"
        state = "is well now" if self.recent.count else "is quiet now"
        when = (
            f"{int(self.chart.peak_at) // 3600 % 24:02d}:{int(self.chart.peak_at) // 60 % 60:02d}"
        )
        peak = self.chart.peak
        about = "" if peak.exact else "about "
        return (
            f"{self.name} {state}; its worst half hour began at {when} with"
            f" {about}{peak.count:,.0f} refused"
        )

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(e.service for e in self.endpoints))


def last_day(app_id: str, now: float, happenings: Iterable[Happening] = ()) -> AppPage:
    """Read the last day of an app up to `now` (unix seconds).

    `happenings` are further events that the caller knows, such as config changes.
    """
    # PostgreSQL cannot store a NUL, but an address may hold one: such an app has an empty page.
    storable = app_id.replace("\x00", "\ufffd")
    known, rows = directory.app(storable), Decision.objects.filter(app=storable)
    since = (now - DAY_S) // BUCKET_S * BUCKET_S + BUCKET_S
    day = lookup.within(rows, since)
    cells = aggregate.cells(day, since, BUCKET_S)
    counts = aggregate.estimates(cells, lambda c: c.action)
    number, refused = total(counts.values()), [c for c in cells if c.action != Action.ADMIT]
    recent = aggregate.cells(lookup.within(rows, now - RECENT_S), now - RECENT_S, RECENT_S)
    latest, _ = lookup.page(day.exclude(action=Action.ADMIT).order_by("-id"), size=LATEST)
    seen = app_day.read_day(storable, since)
    chart, every = _charts(cells, refused, since)
    mine = [*happenings, *_new_credentials(rows, seen.tokens, since), *_model_changes(seen.models)]
    name = known.name if known else app_id
    return AppPage(
        id=app_id,
        name=name,
        known=known,
        latest=tuple(lookup_page.rows_of(latest)),
        number=number,
        between=seen.refused,
        recent=total(c.number for c in recent),
        recent_refused=total(c.number for c in recent if c.action != Action.ADMIT),
        mix=_mix(counts, number.count),
        endpoints=tuple(seen.endpoints[:ENDPOINTS]),
        chart=chart,
        all=every,
        marks=marks(mine, since),
        story=tuple(sorted([*mine, *_bursts(refused)], key=lambda h: h.at)),
        worst=seen.worst,
        tokens=len(seen.tokens),
        regions=tuple(seen.regions),
        labels=labels(storable, now),
        all_href=lookup_page.lookup_address(
            app_id, Filters(range="24h"), insist="app" if known else ""
        ),
        refused_href=lookup_page.lookup_address(
            app_id, Filters(range="24h", actions=REFUSED), insist="app" if known else ""
        ),
    )


def _mix(counts: dict[int, Estimate], whole: float) -> tuple[tuple[Action, Estimate, float], ...]:
    """Return each action with its count and its share of all; () when nothing was decided."""
    return (
        tuple((a, counts.get(a, NOTHING), counts.get(a, NOTHING).count / whole) for a in Action)
        if whole
        else ()
    )


def labels(app_id: str, now: float) -> Labels:
    """Count the outcomes about an app that occurred in the last 30 days, and its open disputes."""
    reported = reports.of_app_since(app_id, utc(now - LABELS_S))
    matured = dict(
        reported.filter(matured_at__lte=utc(now)).values_list("kind").annotate(n=Count("*"))
    )
    kinds = [k for k in OutcomeKind if k in _ALWAYS or matured.get(k)]
    return Labels(
        tuple((k, matured.get(k, 0)) for k in kinds),
        reported.filter(matured_at__gt=utc(now)).count(),
        Dispute.objects.filter(app=app_id, state=State.OPEN).count(),
        reports.found_wrong(now, app_id).get(app_id, 0) if app_id else 0,
    )


def _charts(
    cells: list[aggregate.Cell], refused: list[aggregate.Cell], since: float
) -> tuple[columns.Columns | None, columns.Columns | None]:
    """Draw two charts, what was not admitted and all requests; None for a chart without data."""
    buckets = int(DAY_S / BUCKET_S)
    chart = (
        columns.columns(refused, since, BUCKET_S, buckets, floor=FLOOR, height=HEIGHT)
        if refused
        else None
    )
    plain = [replace(c, action=int(Action.ADMIT)) for c in cells]
    every = (
        columns.columns(
            plain, since, BUCKET_S, buckets, floor=ALL_FLOOR, height=ALL_HEIGHT, exact=True
        )
        if cells
        else None
    )
    return chart, every


def _new_credentials(
    rows: QuerySet[Decision], found: dict[str, float], since: float
) -> list[Happening]:
    """Return events of the day's new credentials; [] if the app was not seen before either."""
    before = lookup.within(rows, since - LOOK_BACK_S, since).order_by()
    if not found or not before.exists():
        return []
    old = set(
        before.filter(token_digest__in=list(found))
        .values_list("token_digest", flat=True)
        .distinct()
    )
    new = sorted(at for digest, at in found.items() if digest not in old)
    if len(new) > NEW_TOKENS:
        return [
            Happening(
                new[0],
                f"The first of {len(new):,} new credentials was seen",
                f"{len(new):,} new credentials",
            )
        ]
    return [
        Happening(at, "A credential was seen for the first time", "new credential") for at in new
    ]


def _model_changes(models: dict[str, float]) -> list[Happening]:
    """Return an event for each model that began to score the app after the day's first model."""
    later = list(models.items())[1:]
    return [
        Happening(at, f"Model {digest[:8]} began to score it", f"model {digest[:8]}")
        for digest, at in later
    ]


def _bursts(refused: list[aggregate.Cell]) -> list[Happening]:
    """Return the half hours that hold at least a quarter of the day's refusals, at most three."""
    by_time = aggregate.estimates(refused, lambda c: c.start)
    whole = total(by_time.values()).count
    fullest = sorted(by_time.items(), key=lambda one: (-one[1].count, -one[0]))[:BURSTS]
    return [
        Happening(at, f"Burst: {number.words} not admitted in this half hour", burst=True)
        for at, number in fullest
        # Fewer than five refusals are no burst, whatever their share.
        if number.count >= 0.25 * whole and number.count >= 5
    ]


def marks(found: Iterable[Happening], since: float) -> tuple[Mark, ...]:
    """Place the latest happenings in the chart, each label on a line of its own.

    Where there is little room, those about all apps are left out first.
    """
    inside = sorted(
        (h for h in found if since <= h.at < since + DAY_S), key=lambda h: (h.own, h.at)
    )[-MARKS:]
    out = []
    for k, h in enumerate(sorted(inside, key=lambda h: h.at)):
        x = round(100 * (h.at - since) / DAY_S, 2)
        clock = f"{int(h.at) // 3600 % 24:02d}:{int(h.at) // 60 % 60:02d}"
        anchor, dx = ("start", 5) if x < 50 else ("end", -5)
        out.append(Mark(x, 12 + 14 * k, f"{clock} {h.short or h.text}", anchor, dx))
    return tuple(out)
