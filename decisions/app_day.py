"""One app's day of kept decisions, grouped in every way its page needs by a single scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection

from decider.vocabulary import Action, Stage

from .estimate import Estimate, total
from .lookup import id_at
from .models import Decision, utc

_ML = (int(Stage.RANK), int(Stage.RERANK))
"""Stages whose refusals a model had a part in: false throttles are to be expected of them, each 1 - its risk."""

_SQL = f"""
SELECT grouping(endpoint, model, region, token_digest, action), method, endpoint, service, model, region, token_digest, action,
       date_trunc('hour', at), min(at), sum(1 / inclusion_probability), sum(inclusion_probability ^ -2), count(*),
       coalesce(sum(1 / inclusion_probability) FILTER (WHERE action <> %(admit)s), 0),
       coalesce(sum(inclusion_probability ^ -2) FILTER (WHERE action <> %(admit)s), 0), count(*) FILTER (WHERE action <> %(admit)s),
       coalesce(sum((1 - risk) / inclusion_probability) FILTER (WHERE action <> %(admit)s AND stage = ANY(%(ml)s)), 0),
       coalesce(sum(1 / inclusion_probability) FILTER (WHERE action <> %(admit)s AND stage = %(triage)s), 0)
FROM {Decision._meta.db_table} WHERE app = %(app)s AND at >= %(since)s AND id >= %(first)s
GROUP BY GROUPING SETS ((method, endpoint, service), (model), (region), (token_digest), (action), (date_trunc('hour', at)))
"""  # noqa: S608 - the table's name is ours
_ENDPOINT, _MODEL, _REGION, _TOKEN, _ACTION, _HOUR = 0b01111, 0b10111, 0b11011, 0b11101, 0b11110, 0b11111
"""Values of grouping(): a bit is 0 where the row is grouped by that column."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint the app asked for."""

    name: str
    service: str
    number: Estimate
    """Requests."""
    refused: Estimate
    """Those that were not admitted."""

    @property
    def admitted_share(self) -> float:
        return 1.0 - self.refused.count / self.number.count


@dataclass(frozen=True, slots=True)
class Hour:
    """The hour of a day in which most false throttles are to be expected."""

    at: float = 0.0
    """Unix seconds at which it begins; 0 when no hour had any."""
    wrong: float = 0.0
    """Expected false throttles of a model: each refusal it had a part in counts 1 - its risk."""
    bursts: float = 0.0
    """Requests refused in it for bursts beyond the plan, whatever a model said."""


@dataclass(slots=True)
class Day:
    """What the day held; numbers are estimates."""

    actions: dict[int, Estimate] = field(default_factory=dict)
    endpoints: list[Endpoint] = field(default_factory=list)
    """Busiest first."""
    models: dict[str, float] = field(default_factory=dict)
    """Digest of each model that scored a request, and when it first did, unix seconds; oldest first."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Digest of each credential, and when it was first seen, unix seconds."""
    regions: list[str] = field(default_factory=list)
    worst: Hour = Hour()

    @property
    def number(self) -> Estimate:
        """All requests."""
        return total(self.actions.values())

    @property
    def refused(self) -> Estimate:
        """Requests that were not admitted."""
        return total(number for action, number in self.actions.items() if action != Action.ADMIT)


def read(app: str, since: float) -> Day:
    """Reads an app's kept decisions since a moment, unix seconds."""
    asked = {
        "app": app, "since": utc(since), "first": id_at(since),
        "admit": int(Action.ADMIT), "ml": list(_ML), "triage": int(Stage.TRIAGE),
    }  # fmt: skip
    day = Day()
    with connection.cursor() as cursor:
        cursor.execute(_SQL, asked)
        for row in cursor.fetchall():
            _take(day, *row)
    day.endpoints.sort(key=lambda e: -e.number.count)
    day.regions.sort()
    day.models = dict(sorted(day.models.items(), key=lambda item: item[1]))
    return day


def _take(
    day: Day, kind: int, method: str, endpoint: str, service: str, model: str, region: str, token: str, action: int,
    hour: datetime, first: datetime, count: float, square: float, kept: int, refused: float, refused_square: float,
    refused_kept: int, wrong: float, bursts: float,
) -> None:  # fmt: skip
    number = Estimate(count, square, kept)
    if kind == _ENDPOINT:
        day.endpoints.append(Endpoint(f"{method} {endpoint}", service, number, Estimate(refused, refused_square, refused_kept)))
    elif kind == _MODEL and model:
        day.models[model] = first.timestamp()
    elif kind == _REGION:
        day.regions.append(region)
    elif kind == _TOKEN and token:
        day.tokens[token] = first.timestamp()
    elif kind == _ACTION:
        day.actions[action] = number
    elif kind == _HOUR and wrong > day.worst.wrong:
        day.worst = Hour(hour.timestamp(), wrong, bursts)
