"""An installation with a small real model, its config document and decisions made with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection, transaction

from decider.contracts import config as configs
from decider.contracts.config import Config
from decisions.store import copy_format, rows
from explain.shap import backlog, model_files
from explain.shap import values as shap_values
from tests.database import without_triggers
from tests.explain import world


@pytest.fixture
def models(settings, tmp_path: Path) -> Path:
    """A folder with the small model's artifact; nothing of other tests is remembered."""
    settings.SLUICE_MODELS = tmp_path / "models"
    world.install(settings.SLUICE_MODELS)
    forget()
    yield settings.SLUICE_MODELS
    forget()


_BOOSTER_OF = shap_values.load_booster  # a test may put another in its place


def forget() -> None:
    model_files.forget_cached()
    _BOOSTER_OF.cache_clear()
    backlog._shelf.clear()


@pytest.fixture
def document(db) -> Config:
    """Config version 1, kept as the control room keeps it."""
    made = world.config(1)
    keep_version(made)
    return made


def keep_version(config: Config) -> None:
    """Keeps a config document as the control room does; the audit row that one needs is another
    room's concern.
    """
    with transaction.atomic(), without_triggers(), connection.cursor() as cursor:
        columns = "version, payload, signed, made_at, by, reason"
        cursor.execute(
            f"INSERT INTO control_configversion ({columns}) VALUES (%s, %s, '', now(), 'test',"  # noqa: S608
            " 'test')",
            [config.version, configs.encode(config)],
        )


@pytest.fixture
def store(db) -> Callable[[list], list]:
    """Stores events as ingest does."""

    def put(events: list) -> list:
        with transaction.atomic():
            rows.copy_events(events, copy_format.Texts())
        return events

    return put
