"""Stored decisions, registered apps and people for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from control.models import App, Tenant
from decisions.store import copy_format, rows


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
