"""Config documents that decisions were made under, found again by version."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from django.db.models import QuerySet

from control.models import ConfigVersion
from decider.contracts import config as configs
from decider.contracts.config import Config, ConfigError, Sampling


# a page of decisions was made under a handful of versions
@lru_cache(maxsize=32)
def _decoded(payload: bytes) -> Config:
    return configs.decode(payload)


def config(version: int) -> Config | None:
    """Return a config document by its version; None when it is not kept, or is of a form
    that cannot be read here.
    """
    return _usable(ConfigVersion.objects.filter(version=version))


def newest() -> Config | None:
    """Return the newest config document; None before there is one."""
    return _usable(ConfigVersion.objects.order_by("-version"))


def sampling() -> Sampling:
    """Return how likely a decision is to be kept now, before the budget scales it down."""
    return found.sampling if (found := newest()) else Sampling()


def _usable(rows: QuerySet[ConfigVersion]) -> Config | None:
    row = rows.only("payload").first()
    # a document of a form that is no longer read is history: pages do without it
    try:
        return _decoded(bytes(row.payload)) if row else None
    except ConfigError:
        return None


def in_force(at: float) -> tuple[int, Config | None]:
    """Return the newest version made at or before `at` (unix seconds), and its document: 0 and
    None when there was none, and no document when it is not usable here.
    """
    made = ConfigVersion.objects.filter(made_at__lte=datetime.fromtimestamp(at, UTC)).order_by(
        "-version"
    )
    row = made.only("version").first()
    return (row.version, config(row.version)) if row else (0, None)
