"""Apps over REST."""

from __future__ import annotations

import pytest

from control.models import App, AuditEntry, Tenant
from tests.api.conftest import problem
from tests.decisions.factory import event

APP = "/api/v1/apps/app_7q2m4kx9"


@pytest.fixture
def known(db) -> App:
    tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
    return App.objects.create(id="app_7q2m4kx9", name="Order sync", tenant=tenant, tier=1)


def test_an_app_is_told_with_its_day_and_the_look_is_written_down(known, store, caller) -> None:
    store([event(), event(action=0, reason=20, stage=2)])
    told = caller().get(APP).json()
    assert (told["name"], told["tier"], told["kept"]) == ("Order sync", "standard", 2)
    assert told["count"] == pytest.approx(4.0)
    assert AuditEntry.objects.filter(action="app.look", subject="app_7q2m4kx9").count() == 1


def test_its_policy_says_what_sets_each_value(known, document, caller) -> None:
    lines = caller().get(f"{APP}/policy").json()
    assert {"tier"} <= {line["kind"] for line in lines}
    assert all(line["name"] and line["value"] for line in lines)


def test_its_forecast_says_how_often_forecasts_were_right(known, document, caller) -> None:
    told = caller().get(f"{APP}/forecast").json()
    assert told["state"] == "unknown"
    assert told["settled"] == 0


@pytest.mark.parametrize("part", ["", "/policy", "/forecast"])
def test_an_app_nobody_knows_is_a_404(db, caller, part) -> None:
    assert problem(caller().get(f"/api/v1/apps/app_unheard_of{part}"))["status"] == 404
