"""Stored decisions, registered apps and people for the tests of this room."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from django.db import transaction

from control.database_roles.roles import DatabaseRole, role_name
from control.models import App, Tenant
from decisions.store import copy_format, rows
from decisions.store.worker import Worker
from tests.database import as_role


@pytest.fixture(autouse=True)
def workers_are_ingest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a worker be its own role in the database, so that a grant it lacks is found."""
    ingest = role_name(DatabaseRole.INGEST)
    for name in ("store", "_publish_status"):
        monkeypatch.setattr(Worker, name, as_that_role(ingest, getattr(Worker, name)))


def as_that_role(role: str, method: Callable) -> Callable:
    @functools.wraps(method)
    def call(*arguments: object) -> object:
        with as_role(role):
            return method(*arguments)

    return call


@pytest.fixture
def store(db) -> Callable[[list], list]:
    """Stores events as ingest does."""

    def put(events: list) -> list:
        with transaction.atomic():
            rows.copy_events(events, copy_format.Texts())
        return events

    return put


@pytest.fixture
def known(db) -> App:
    """The app Order sync of Tidewell Retail, and its sibling Stock levels."""
    tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
    App.objects.create(id="app_stock", name="Stock levels", tenant=tenant, tier=1)
    return App.objects.create(id="app_7q2m4kx9", name="Order sync", tenant=tenant, tier=1)
