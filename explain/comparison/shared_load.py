"""The shares of others in the load on the limit that fired: other credentials of the app, other
apps of its tenant, and other tenants.

Loads are estimated from stored decisions: each counts for its endpoint's cost over its inclusion
probability (Horvitz and Thompson, 1952). The 95% interval of a share is that of a ratio, linearised
(Särndal, Swensson and Wretman, 1992, 5.6), for decisions kept independently of each other.

Groups of fewer than five others are not shown: neither their number, nor figures that would give
away their load by subtraction. This protects the panel, the REST answer, and what people copy from
them:

- the four minutes are cells of a fixed grid and are shown only when they are over. So two decisions
  count the same requests or none in common, and nobody learns what one request added by subtracting
  one answer from the next;
- only whole percents are returned, and ranges are rounded outwards;
- where a group is held back, so are the number of decisions, and other shares that would give the
  group away together with the panel of the tenant's share.

It does not protect against people who may look up all decisions: they can add them up. The
data-access log records each such look.
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import connection

from control.config import documents
from decider.contracts.config import Config, EndpointPolicy, Service
from decider.contracts.signals import service_is_short
from decider.contracts.vocabulary import Action, Reason
from decider.engine.routing import Names, cost_of, endpoints_at, listed_endpoints
from decisions import reason_text
from decisions.models import Decision, utc
from decisions.search import lookup

# Seconds of a cell: the window that a decision falls in, in a grid that begins at unix time 0.
# Chosen: long enough to hold other participants, short enough to be about this refusal.
CELL_S = 240.0
# Seconds after the end of a cell in which its events may still arrive.
LATE_S = 15.0
# Participants below which a group is not shown. Chosen: with fewer, a participant who knows its own
# load could work out another's.
FEWEST = 5
# Kept decisions below which no share is told. Chosen: from one to four, a share's interval takes up
# most of the scale.
FEWEST_KEPT = 5
# The normal quantile of a two-sided 95% interval, which the panel names.
Z95 = 1.96


@dataclass(frozen=True, slots=True)
class LoadShare:
    """One group's share of the load."""

    label: str
    share: float
    """Share of the load, 0 to 1, in whole percents that add up to 100 over all parts."""
    low: float
    high: float
    """Ends of the 95% interval of the share, 0 to 1, in whole percents."""
    participants: int | None
    """Number of others in the group, as far as the sample shows them: at least FEWEST. None for the
    app or credential itself.
    """

    @property
    def percent(self) -> int:
        return round(self.share * 100)

    @property
    def low_percent(self) -> int:
        return round(self.low * 100)

    @property
    def span_percent(self) -> int:
        return round((self.high - self.low) * 100)


@dataclass(frozen=True, slots=True)
class SharedLoad:
    """The groups that loaded the limit that fired, and their shares."""

    limit: str
    """Name of the limit, in words."""
    sentence: str
    parts: tuple[LoadShare, ...]
    """Largest first; empty when nothing may be shown or nothing is known."""
    kept: int | None
    """Number of stored decisions behind the shares; None when something is left out."""
    suppressed: bool
    """Whether something is left out because fewer than five others took part."""


@dataclass(frozen=True, slots=True)
class LoadGroup:
    """Estimated load of one group, in cost units, with its variance."""

    key: str
    load: float
    variance: float
    kept: int
    participants: int


# For each kind of limit: which group a decision belongs to, who its participant is, and which
# decisions load the limit.
_SCOPES = {
    "app": (
        "CASE WHEN token_digest = %(token)s THEN 'own' ELSE 'tokens' END",
        "token_digest",
        "app = %(app)s AND token_digest <> ''",
    ),
    "tenant": (
        "CASE WHEN app = %(app)s THEN 'own' ELSE 'apps' END",
        "app",
        "{served} AND tenant = %(tenant)s",
    ),
    "service": (
        (
            "CASE WHEN app = %(app)s THEN 'own' WHEN tenant = %(tenant)s THEN 'apps' ELSE"
            " 'tenants' END"
        ),
        "CASE WHEN tenant = %(tenant)s THEN app ELSE tenant END",
        "{served}",
    ),
}
# Grouping sets give the load by endpoint and a group's distinct participants in one reading:
# participants of several endpoints overlap, so they cannot be added up.
_SQL = """
SELECT grp, method, endpoint, grouping(endpoint) = 1, sum(1 / p), sum((1 - p) / (p * p)),
       count(*), count(DISTINCT who)
FROM (SELECT {group} AS grp, {who} AS who, method, endpoint, inclusion_probability AS p
      FROM {table}
      WHERE at >= %(since)s AND at < %(until)s AND id >= %(first)s AND id < %(last)s
        AND region = %(region)s
        AND (action = 0 OR observed) AND {where}) AS d
GROUP BY GROUPING SETS ((grp, method, endpoint), (grp))
"""
# Whether a decision is about a request that loaded the service.
_SERVED = "service = %(service)s"
_SERVED_OR = f"({_SERVED} OR method || ' ' || endpoint = ANY(%(loading)s))"
_OTHERS = {
    "tokens": "other credentials of the app",
    "apps": "other apps of the tenant",
    "tenants": "other tenants",
}


# Group, method, endpoint, whether it is the row over all endpoints, weight, variance, kept,
# participants: as _SQL selects them.
_LoadRow = tuple[str, str, str, bool, float, float, int, int]


# Reasons of refusals by a limit of the app's own that its requests use up.
_OWN_LIMITS = frozenset(
    {Reason.QUOTA_EXHAUSTED, Reason.LEASE_AWAITED, Reason.BURST_EXHAUSTED, Reason.TOKENS_EMPTY}
)


def find_scope(d: Decision) -> str | None:
    """Return whose limit fired: "app" (its own), "tenant" (its tenant's share) or "service"; None
    for an admit and for a refusal that no load explains, such as one by risk or by a list.
    """
    if d.action == Action.ADMIT:
        return None
    if d.reason == Reason.TENANT_OVER_SHARE:
        return "tenant"
    seen = reason_text.signals(d)
    priced = seen is not None and service_is_short(seen)
    if (
        d.reason == Reason.SERVICE_OVERLOADED
        or (priced and d.reason == Reason.VALUE_LOW)
        or reason_text.find_telling_reason(d.action, d.reason) == Reason.SERVICE_OVERLOADED
    ):
        return "service"
    return "app" if d.reason in _OWN_LIMITS else None


def find_cell(at: float) -> tuple[float, float]:
    """Return the grid cell that a moment falls in: start and exclusive end, unix seconds."""
    since = math.floor(at / CELL_S) * CELL_S
    return since, since + CELL_S


def estimate_shared_load(d: Decision, now: float | None = None) -> SharedLoad | None:
    """Return who loaded the limit that refused one stored decision, None where none did. `now` is
    in unix seconds, the present by default.
    """
    scope = find_scope(d)
    if scope is None:
        return None
    if scope == "app" and not d.token_digest:
        return SharedLoad(_limit(d, scope), _alone(d), (), 0, False)
    until = find_cell(d.at.timestamp())[1] + LATE_S
    if (time.time() if now is None else now) < until:
        return SharedLoad(
            _limit(d, scope),
            f"Who loaded it is not said before {utc(until):%H:%M:%S} UTC, {_UNTIL}",
            (),
            0,
            False,
        )
    groups = _groups(d, scope, documents.config(d.config_version))
    if 0 < sum(g.kept for g in groups) < FEWEST_KEPT:
        return SharedLoad(
            _limit(d, scope),
            f"Too few admitted requests of {_when(d)} were kept to say who loaded it.",
            (),
            0,
            False,
        )
    parts, suppressed = compute_shares(groups, "This credential" if scope == "app" else "This app")
    kept = None if suppressed else sum(g.kept for g in groups)
    return SharedLoad(
        _limit(d, scope), _sentence(d, scope, parts, groups), tuple(parts), kept, suppressed
    )


_UNTIL = "when the four minutes it fell in are over and stored."


def _groups(d: Decision, scope: str, config: Config | None) -> list[LoadGroup]:
    group, who, where = _SCOPES[scope]
    since, until = find_cell(d.at.timestamp())
    listed = _costs(d, scope, config.services if config else [])
    values: dict[str, str | datetime | uuid.UUID | list[str]] = {
        "app": d.app,
        # A decision about an endpoint that loads several services is stored under one of them.
        "loading": [f"{m} {t}" for (m, t), e in listed.items() if e.costs],
        "tenant": d.tenant,
        "service": d.service,
        "token": d.token_digest,
        "region": d.region,
        "since": utc(since),
        "until": utc(until),
        "first": lookup.id_at(since),
        # The time in an id may be a little later than the decision's, so `at` decides.
        "last": lookup.id_at(until + 300.0),
    }
    with connection.cursor() as cursor:
        where = where.format(served=_SERVED_OR if values["loading"] else _SERVED)
        sql = _SQL.format(group=group, who=who, where=where, table=d._meta.db_table)
        cursor.execute(sql, values)
        rows = cursor.fetchall()
    return [
        _add_up(key, [row for row in rows if row[0] == key], listed)
        for key in sorted({row[0] for row in rows})
    ]


def _costs(d: Decision, scope: str, services: list[Service]) -> dict[Names, EndpointPolicy]:
    """Return the listed endpoints with their costs at the service whose load is told; where that is
    an app's own limit, with each one's cost at its own service.
    """
    if scope == "app":
        return {names: e for s in services for names, e in listed_endpoints(s).items()}
    return endpoints_at(services, d.service)


def _add_up(key: str, rows: list[_LoadRow], listed: dict[Names, EndpointPolicy]) -> LoadGroup:
    """Return the load of one group from its rows by endpoint and the one over all endpoints."""
    whole = next(row for row in rows if row[3])
    by_cost = [(cost_of((row[1], row[2]), listed), row) for row in rows if not row[3]]
    load = sum(c * row[4] for c, row in by_cost)
    # Variance of a weighted sum: costs enter squared.
    variance = sum(c * c * row[5] for c, row in by_cost)
    return LoadGroup(key, load, variance, whole[6], whole[7])


def compute_shares(groups: list[LoadGroup], own_label: str) -> tuple[list[LoadShare], bool]:
    """Return the shares that may be shown, largest first, and whether something is held back.

    A group of fewer than FEWEST is joined with the other groups. If they are still too few, nothing
    is shown, because the app's own share would reveal theirs. Nothing is shown either if only the
    other tenants are too few: the panel of the tenant's share shows the load of its apps, and
    subtraction would reveal the rest.
    """
    total = sum(g.load for g in groups)
    others = [g for g in groups if g.key != "own"]
    if total <= 0.0:
        return [], False
    held = any(g.participants < FEWEST for g in others)
    if held:
        joined = _join(others)
        completed = any(g.key == "apps" and g.participants >= FEWEST for g in others)
        if len(others) == 1 or joined.participants < FEWEST or completed:
            return [], True
        others = [joined]
    # An app without an admitted request of its own still gets its row, at 0%.
    own = [g for g in groups if g.key == "own"] or [LoadGroup("own", 0.0, 0.0, 0, 0)]
    labels = {
        "own": own_label,
        **{key: text[:1].upper() + text[1:] for key, text in _OTHERS.items()},
    }
    whole = sum(g.variance for g in groups)
    parts = [_part(g, labels.get(g.key, "All others"), total, whole) for g in [*own, *others]]
    return sorted(_rounded(parts), key=lambda part: -part.share), held


def _join(groups: list[LoadGroup]) -> LoadGroup:
    return LoadGroup(
        "+".join(g.key for g in groups),
        sum(g.load for g in groups),
        sum(g.variance for g in groups),
        sum(g.kept for g in groups),
        sum(g.participants for g in groups),
    )


def _rounded(parts: list[LoadShare]) -> list[LoadShare]:
    """Round to whole percents by the largest remainder, so that they add up to 100; round ranges
    outwards.
    """
    # 1e-9 keeps a share like 0.29, which is a little less in binary, from losing its percent.
    down = [math.floor(part.share * 100.0 + 1e-9) for part in parts]
    order = sorted(range(len(parts)), key=lambda k: down[k] - parts[k].share * 100.0)
    up = set(order[: max(0, 100 - sum(down))])
    found = []
    for k, part in enumerate(parts):
        whole = down[k] + (k in up)
        low, high = (
            min(whole, math.floor(part.low * 100.0)),
            max(whole, math.ceil(part.high * 100.0)),
        )
        found.append(
            replace(part, share=whole / 100.0, low=low / 100.0, high=min(100, high) / 100.0)
        )
    return found


def _part(group: LoadGroup, label: str, total: float, variance: float) -> LoadShare:
    share = group.load / total
    low, high = _interval(group, share, total, variance)
    return LoadShare(label, share, low, high, group.participants if group.key != "own" else None)


def _interval(group: LoadGroup, share: float, total: float, variance: float) -> tuple[float, float]:
    """Return the 95% interval of a group's share of `total`, whose variance is `variance`.

    It is Wilson's interval (1927), for the number of decisions that would give the share its
    variance. The normal interval would read "100 to 100%" for a group that has all of three kept
    decisions.
    """
    spread = (1.0 - share) ** 2 * group.variance + share**2 * (variance - group.variance)
    if variance <= 0.0:
        return share, share  # every decision was kept
    count = share * (1.0 - share) * total**2 / spread if spread > 0.0 else total**2 / variance
    z2 = Z95**2 / count
    half = Z95 * math.sqrt(share * (1.0 - share) / count + z2 / (4.0 * count))
    middle, scale = share + z2 / 2.0, 1.0 + z2
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _limit(d: Decision, scope: str) -> str:
    if scope == "service":
        return f"Capacity of {d.service}"
    return f"Its tenant’s share of {d.service}" if scope == "tenant" else "The app’s own limits"


def _alone(d: Decision) -> str:
    return "The limit that fired is the app’s own; other apps do not load it."


def _sentence(d: Decision, scope: str, parts: list[LoadShare], groups: list[LoadGroup]) -> str:
    """Return the finding in one sentence."""
    lead = _alone(d) + " " if scope == "app" else ""
    if not groups:
        return f"{lead}No admitted request of {_when(d)} was kept, so who loaded it cannot be said."
    whom = {"app": "other credentials", "tenant": "other apps of its tenant", "service": "others"}[
        scope
    ]
    if not parts:
        return f"{lead}Fewer than five {whom} took part, so what came from whom is not shown."
    others = sum(part.percent for part in parts if part.participants is not None)
    return f"{lead}About {others}% of the load on it came from {whom}, {_when(d)}."


def _when(d: Decision) -> str:
    """Return the cell's times as in "14:20 to 14:24 UTC"."""
    since, until = find_cell(d.at.timestamp())
    return f"{utc(since):%H:%M} to {utc(until):%H:%M} UTC"
