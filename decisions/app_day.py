"""One app's day of kept decisions, grouped in every way its page needs by a single scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection

from decider.vocabulary import Action, Stage

from .estimate import NOTHING, Estimate
from .lookup import id_at
from .models import Decision, utc

_JUDGED = (int(Stage.TRIAGE), int(Stage.RANK), int(Stage.RERANK))
"""Stages whose refusals spend the error budget (`passes._consume`)."""

_SQL = f"""
SELECT grouping(endpoint, model, region, token_digest), method, endpoint, service, model, region, token_digest,
       date_trunc('hour', at), min(at), sum(1 / inclusion_probability),
       coalesce(sum(1 / inclusion_probability) FILTER (WHERE action <> %(admit)s), 0),
       coalesce(sum(inclusion_probability ^ -2) FILTER (WHERE action <> %(admit)s), 0), count(*) FILTER (WHERE action <> %(admit)s),
       coalesce(sum((1 - risk) / inclusion_probability) FILTER (WHERE action <> %(admit)s AND stage = ANY(%(judged)s)), 0)
FROM {Decision._meta.db_table} WHERE app = %(app)s AND at >= %(since)s AND id >= %(first)s
GROUP BY GROUPING SETS ((method, endpoint, service), (model), (region), (token_digest), (date_trunc('hour', at)))
"""  # noqa: S608 - the table's name is ours
_ENDPOINT, _MODEL, _REGION, _TOKEN, _HOUR = 0b0111, 0b1011, 0b1101, 0b1110, 0b1111
"""Values of grouping(): a bit is 0 where the row is grouped by that column."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint the app asked for; counts are estimated."""

    name: str
    service: str
    count: float
    refused: float

    @property
    def admitted_share(self) -> float:
        return 1.0 - self.refused / self.count


@dataclass(slots=True)
class Day:
    """What the day held."""

    endpoints: list[Endpoint] = field(default_factory=list)
    """Busiest first."""
    models: dict[str, float] = field(default_factory=dict)
    """Digest of each model that scored a request, and when it first did, unix seconds; oldest first."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Digest of each credential, and when it was first seen, unix seconds."""
    regions: list[str] = field(default_factory=list)
    refused: Estimate = NOTHING
    """Requests that were not admitted."""
    wrong: tuple[float, float] = (0.0, 0.0)
    """(start, figure) of the hour in which most false throttles are to be expected: each refusal counts 1 - its risk."""


def read(app: str, since: float) -> Day:
    """Reads an app's kept decisions since a moment, unix seconds."""
    asked = {"app": app, "since": utc(since), "first": id_at(since), "admit": int(Action.ADMIT), "judged": list(_JUDGED)}
    day = Day()
    with connection.cursor() as cursor:
        cursor.execute(_SQL, asked)
        for row in cursor.fetchall():
            _take(day, *row)
    day.endpoints.sort(key=lambda e: -e.count)
    day.regions.sort()
    day.models = dict(sorted(day.models.items(), key=lambda item: item[1]))
    return day


def _take(
    day: Day, kind: int, method: str, endpoint: str, service: str, model: str, region: str, token: str,
    hour: datetime, first: datetime, count: float, refused: float, square: float, kept: int, wrong: float,
) -> None:  # fmt: skip
    if kind == _ENDPOINT:
        day.endpoints.append(Endpoint(f"{method} {endpoint}", service, count, refused))
    elif kind == _MODEL and model:
        day.models[model] = first.timestamp()
    elif kind == _REGION:
        day.regions.append(region)
        day.refused += Estimate(refused, square, kept)
    elif kind == _TOKEN and token:
        day.tokens[token] = first.timestamp()
    elif kind == _HOUR and wrong > day.wrong[1]:
        day.wrong = (hour.timestamp(), wrong)
