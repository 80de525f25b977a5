from __future__ import annotations

import io

import pytest
from django.core.management import call_command

from control.audit import chain
from control.config import changes
from control.models import App, Tenant
from decider.contracts.config import Sampling
from decider.contracts.store import PROFILE_PREFIX
from decider.store_users.roles import Role
from tests.servers import store_url


@pytest.fixture(autouse=True)
def as_operator(settings, installation) -> None:
    settings.VALKEY_URL = store_url(Role.OPERATOR)


@pytest.mark.django_db
def test_seeding_makes_the_demo_world_once(settings, tmp_path, valkey) -> None:
    settings.SLUICE_VAR, settings.SLUICE_KEYS, settings.SLUICE_MODELS = (
        tmp_path,
        tmp_path / "keys",
        tmp_path / "models",
    )
    out = io.StringIO()
    for _ in range(2):
        call_command("seed", apps=200, stdout=out)
    first, second = out.getvalue().split("\n")[0::2][:2]
    assert first.startswith("200 apps added, 200 apps of")
    assert second.startswith("0 apps added, 200 apps of")
    assert (
        App.objects.count(),
        Tenant.objects.filter(apps=None).count(),
        changes.current().version,
    ) == (200, 0, 1)
    assert len(valkey.keys(PROFILE_PREFIX + "*")) == 200
    assert chain.verify().broken is None


@pytest.mark.django_db
def test_an_app_that_a_person_changed_is_left_as_it_is(settings, tmp_path, valkey) -> None:
    settings.SLUICE_VAR, settings.SLUICE_KEYS = tmp_path, tmp_path / "keys"
    call_command("seed", apps=20, stdout=io.StringIO())
    App.objects.update(abuse_history=9)
    call_command("seed", apps=20, stdout=io.StringIO())
    assert set(App.objects.values_list("abuse_history", flat=True)) == {9}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("demo", "rates"),
    [(False, Sampling()), (True, Sampling(admit=0.01, block=0.05))],
)
def test_only_the_demos_traffic_is_kept_at_rates_of_its_own(
    settings, tmp_path, valkey, demo, rates
) -> None:
    settings.SLUICE_VAR, settings.SLUICE_KEYS = tmp_path, tmp_path / "keys"
    call_command("seed", apps=20, demo_traffic=demo, stdout=io.StringIO())
    assert changes.current().sampling == rates
