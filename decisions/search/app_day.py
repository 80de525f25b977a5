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

_WORDS = {"admit": int(Action.ADMIT), "triage": int(Stage.TRIAGE), "ml": list(_ML)}
_REFUSED = "action <> %(admit)s"
_JUDGED = f"{_REFUSED} AND stage = ANY(%(ml)s)"


def _number(which: str) -> str:
    """The three columns of an estimate of those decisions."""
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
    """An endpoint the app asked for."""

    name: str
    service: str
    number: Estimate
    refused: Estimate

    @property
    def admitted_share(self) -> float:
        return 1.0 - self.refused.count / self.number.count


@dataclass(frozen=True, slots=True)
class Hour:
    """What one hour held of refusals that may have been wrong."""

    at: float = 0.0
    """Unix seconds at which it began."""
    wrong: float = 0.0
    """False throttles to be expected of ML: each of its refusals counts 1 - its risk."""
    bursts: Estimate = NOTHING
    """Refused because the burst was used up."""
    variance: float = 0.0
    """Of `wrong`, for the sampling: of a total of y / p over kept rows it is the sum of y^2 (1 - p)
    / p^2, as in `estimate`.
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
    """What the day held."""

    endpoints: list[Endpoint] = field(default_factory=list)
    """Busiest first."""
    models: dict[str, float] = field(default_factory=dict)
    """Digest of each model that scored a request, and when it first did, unix seconds; oldest
    first.
    """
    tokens: dict[str, float] = field(default_factory=dict)
    """Digest of each credential, and when it was first seen, unix seconds."""
    regions: list[str] = field(default_factory=list)
    refused: Estimate = NOTHING
    """Requests that were not admitted."""
    worst: Hour = Hour()
    """The hour in which most false throttles of ML are to be expected; without any, that with most
    refusals for bursts.
    """


def read(app: str, since: float) -> Day:
    """Reads an app's kept decisions since a moment, unix seconds."""
    asked = {"app": app, "since": utc(since), "first": id_at(since)} | _WORDS
    day = Day()
    with connection.cursor() as cursor:
        cursor.execute(_SQL, asked)
        for row in cursor.fetchall():
            numbers = (Estimate(*row[at : at + 3]) for at in (9, 12, 15))
            _take(day, *row[:9], *numbers, wrong=row[18], variance=row[19])
    day.endpoints.sort(key=lambda e: -e.number.count)
    day.regions.sort()
    day.models = dict(sorted(day.models.items(), key=lambda item: item[1]))
    return day


def _take(
    day: Day,
    kind: int,
    method: str,
    endpoint: str,
    service: str,
    model: str,
    region: str,
    token: str,
    hour: datetime,
    first: datetime,
    number: Estimate,
    refused: Estimate,
    bursts: Estimate,
    *,
    wrong: float,
    variance: float,
) -> None:
    if kind == _ENDPOINT:
        day.endpoints.append(Endpoint(f"{method} {endpoint}", service, number, refused))
    elif kind == _MODEL and model:
        day.models[model] = first.timestamp()
    elif kind == _REGION:
        day.regions.append(region)
        day.refused += refused
    elif kind == _TOKEN and token:
        day.tokens[token] = first.timestamp()
    elif kind == _HOUR and (wrong, bursts.count) > (day.worst.wrong, day.worst.bursts.count):
        day.worst = Hour(hour.timestamp(), wrong, bursts, variance)
