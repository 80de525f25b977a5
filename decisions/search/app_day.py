"""One app's day of kept decisions, grouped in every way its page needs by a single scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection

from decider.contracts.vocabulary import Action, Stage
from decisions.counts.estimate import NOTHING, Estimate, within
from decisions.models import Decision, utc
from decisions.search.lookup import id_at

# Stages whose refusals are a judgement of ML. Triage refuses as well, for bursts that the plan does
# not hold.
_ML = (int(Stage.RANK), int(Stage.RERANK))

_WORDS: dict[str, int | list[int]] = {
    "admit": int(Action.ADMIT),
    "triage": int(Stage.TRIAGE),
    "ml": list(_ML),
}
_REFUSED = "action <> %(admit)s"
_JUDGED = f"{_REFUSED} AND stage = ANY(%(ml)s)"


def _number(which: str) -> str:
    """Return the three columns of an estimate of the decisions for which `which` (SQL) holds."""
    sums = (
        f"coalesce(sum(inclusion_probability ^ {power}) FILTER (WHERE {which}), 0)"
        for power in (-1, -2)
    )
    return f"{', '.join(sums)}, count(*) FILTER (WHERE {which})"


_SQL = f"""
SELECT grouping(endpoint, model, region, token_digest), method, endpoint, service, model, region,
       token_digest, date_trunc('hour', at), min(at),
       {_number("true")}, {_number(_REFUSED)}, {_number(f"{_REFUSED} AND stage = %(triage)s")},
       coalesce(sum((1 - risk) / inclusion_probability) FILTER (WHERE {_JUDGED}), 0),
       coalesce(sum((1 - risk) ^ 2 * (inclusion_probability ^ -2 - inclusion_probability ^ -1))
                FILTER (WHERE {_JUDGED}), 0)
FROM {Decision._meta.db_table} WHERE app = %(app)s AND at >= %(since)s AND id >= %(first)s
GROUP BY GROUPING SETS ((method, endpoint, service), (model), (region), (token_digest),
                        (date_trunc('hour', at)))
"""  # noqa: S608 - the table's name is ours
# Values of grouping(): a bit is 0 where the row is grouped by that column.
_ENDPOINT, _MODEL, _REGION, _TOKEN, _HOUR = 0b0111, 0b1011, 0b1101, 0b1110, 0b1111


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that the app called."""

    name: str
    service: str
    number: Estimate
    refused: Estimate

    @property
    def admitted_share(self) -> float:
        return 1.0 - self.refused.count / self.number.count


@dataclass(frozen=True, slots=True)
class Hour:
    """The refusals of one hour that may have been wrong."""

    at: float = 0.0
    """Unix seconds at which it began."""
    number: Estimate = NOTHING
    """Requests in the hour."""
    wrong: float = 0.0
    """Expected number of false throttles by ML: each refusal by ML counts 1 - its risk."""
    bursts: Estimate = NOTHING
    """Requests that triage refused because the burst was used up."""
    variance: float = 0.0
    """Variance of `wrong` from the sampling: for a total of y / p over kept rows, the sum of
    y^2 (1 - p) / p^2, as in `estimate`.
    """

    @property
    def low(self) -> float:
        """Lower end of the 95% interval of `wrong`."""
        return within(self.wrong, self.variance)[0]

    @property
    def high(self) -> float:
        """Upper end of the 95% interval of `wrong`."""
        return within(self.wrong, self.variance)[1]

    @property
    def estimated(self) -> bool:
        """Whether the sampling leaves `wrong` uncertain."""
        return self.high > self.low


@dataclass(slots=True)
class Day:
    """One app's day."""

    endpoints: list[Endpoint] = field(default_factory=list)
    """Busiest first."""
    models: dict[str, float] = field(default_factory=dict)
    """Digest of each model that scored a request, and when it first did (unix seconds), oldest
    first.
    """
    tokens: dict[str, float] = field(default_factory=dict)
    """Digest of each credential, and when it was first seen, unix seconds."""
    regions: list[str] = field(default_factory=list)
    refused: Estimate = NOTHING
    """Requests that were not admitted."""
    worst: Hour = Hour()
    """The hour with the most expected false throttles by ML; when there are none, the hour with the
    most requests refused for their burst.
    """


@dataclass(frozen=True, slots=True)
class _Group:
    """One row of the answer: decisions that agree in one of the grouping sets."""

    kind: int
    """Value of SQL's grouping(): which set."""
    method: str
    endpoint: str
    service: str
    model: str
    region: str
    token: str
    hour: datetime
    first: datetime
    """When the first of them was decided."""
    number: Estimate
    refused: Estimate
    bursts: Estimate
    wrong: float
    variance: float


def read_day(app: str, since: float) -> Day:
    """Return an app's kept decisions from `since` (unix seconds) until now, grouped."""
    asked = {"app": app, "since": utc(since), "first": id_at(since), **_WORDS}
    day = Day()
    with connection.cursor() as cursor:
        cursor.execute(_SQL, asked)
        for row in cursor.fetchall():
            # each estimate takes three columns (`_number`)
            numbers = (Estimate(*row[at : at + 3]) for at in (9, 12, 15))
            _take(day, _Group(*row[:9], *numbers, *row[18:]))
    day.endpoints.sort(key=lambda e: -e.number.count)
    day.regions.sort()
    day.models = dict(sorted(day.models.items(), key=lambda item: item[1]))
    return day


def _take(day: Day, group: _Group) -> None:
    """Add one group to the part of the day that it belongs to."""
    if group.kind == _ENDPOINT:
        name = f"{group.method} {group.endpoint}"
        day.endpoints.append(Endpoint(name, group.service, group.number, group.refused))
    elif group.kind == _MODEL and group.model:
        day.models[group.model] = group.first.timestamp()
    elif group.kind == _REGION:
        day.regions.append(group.region)
        # every decision has one region, so the regions add up to the day
        day.refused += group.refused
    elif group.kind == _TOKEN and group.token:
        day.tokens[group.token] = group.first.timestamp()
    elif group.kind == _HOUR:
        # any expected false throttle weighs more than all requests refused for their burst
        worst = (day.worst.wrong, day.worst.bursts.count)
        if (group.wrong, group.bursts.count) > worst:
            at = group.hour.timestamp()
            day.worst = Hour(at, group.number, group.wrong, group.bursts, group.variance)
