"""The stored config documents, looked up by version or by time."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from django.db.models import QuerySet

from control.models import ConfigVersion
from decider.contracts import config as configs
from decider.contracts.config import Config, ConfigError, Sampling


# the decisions on one page were made under only a few versions
@lru_cache(maxsize=32)
def _decoded(payload: bytes) -> Config:
    return configs.decode(payload)


def config(version: int) -> Config | None:
    """Return a config document by its version; None when it is not stored or its format cannot be
    read here.
    """
    return _usable(ConfigVersion.objects.filter(version=version))


def newest() -> Config | None:
    """Return the newest config document; None when there is none or it cannot be read here."""
    return _usable(ConfigVersion.objects.order_by("-version"))


def sampling() -> Sampling:
    """Return the sampling rules of the newest config document; the default rules when there is
    none. Under load, the budget scales their rates down.
    """
    return found.sampling if (found := newest()) else Sampling()


def _usable(rows: QuerySet[ConfigVersion]) -> Config | None:
    row = rows.only("payload").first()
    # an old document may have a format that is no longer read; pages then do without the document
    try:
        return _decoded(bytes(row.payload)) if row else None
    except ConfigError:
        return None


def in_force(at: float) -> tuple[int, Config | None]:
    """Return the number and the document of the newest version made at or before `at` (unix
    seconds). Return 0 and None when there was no version yet, and None as the document when its
    format cannot be read here.
    """
    made = ConfigVersion.objects.filter(made_at__lte=datetime.fromtimestamp(at, UTC)).order_by(
        "-version"
    )
    row = made.only("version").first()
    return (row.version, config(row.version)) if row else (0, None)
