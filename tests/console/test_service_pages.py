"""A service's page: who asks for how much of it, and who pays while it is short of room."""

from __future__ import annotations

import numpy as np
import pytest
from django.urls import reverse

from control.models import Tenant
from decider.contracts import store
from decider.contracts.vocabulary import Tier
from decider.engine.shared import report as reports
from decider.engine.shared.report import NAMED, Report
from decider.engine.text_hash import TextHash
from tests.pages import shown

pytestmark = pytest.mark.django_db


@pytest.fixture
def say(keys, valkey, beat):
    """Does what a decider does four times a second; of each tenant its id, demand and use."""
    token_key = bytes.fromhex((keys / "token.key").read_text())
    hashes = TextHash(token_key)

    def put(named: list[tuple[str, float, float]], *, price: float = 0.5, given: float = 40.0):
        figures = np.zeros((1, reports.N_FIGURES), np.float32)
        figures[0, : reports.REST] = sum(asks for _, asks, _ in named), given, price
        rows = np.array(
            [(0, Tier.PREMIUM, 1.0, asks, gets, hashes.one(one)) for one, asks, gets in named],
            NAMED,
        )
        # last: compiling the hash takes seconds, in which a decider would count as silent
        beat("d01")
        said = Report("d01", 1.0, 1, ["search"], figures.tobytes(), rows.tobytes())
        sealed = reports.seal(said, reports.derive_key(token_key))
        valkey.set(store.REPORT_PREFIX + "d01", sealed)

    return put


@pytest.fixture
def tenants() -> None:
    for one, name in {"tidewell": "Tidewell Retail", "nord": "Nordlicht", "oak": "Oak"}.items():
        Tenant.objects.create(id=one, name=name)


def rows(html: str) -> list[str]:
    return [" ".join(row.split()) for row in html.split("<tr")[2:]]


def test_who_asks_for_more_than_its_due_pays(browser, publish, say, tenants) -> None:
    publish()
    say([("tidewell", 60.0, 18.0), ("nord", 10.0, 9.8), ("oak", 10.0, 5.0)], given=38.0)
    html = browser("sre").get(reverse("service", args=["search"])).content.decode()
    text = shown(html)
    assert (
        "search is short of room: 1 of 3 tenants asks for more than its due,"
        " and 1 gets less than due" in text
    )
    noisy, *_, _ = rows(html)
    assert "Tidewell Retail" in noisy
    assert "Over its due, pays" in noisy
    assert "Gets its due" in text
    assert "Below its due" in text


def test_with_room_nobody_pays(browser, publish, say, tenants) -> None:
    publish()
    say([("tidewell", 60.0, 60.0)], price=0.0)
    text = shown(browser().get(reverse("service", args=["search"])).content.decode())
    assert "search has room for all that it is asked for" in text
    assert "Gets what it asks for" in text


def test_a_tenant_that_nobody_registered_is_shown_without_a_name(browser, publish, say) -> None:
    publish()
    say([("unheard", 60.0, 20.0)])
    text = shown(browser().get(reverse("service", args=["search"])).content.decode())
    assert "A tenant that nobody registered" in text


def test_a_forged_report_shows_nothing(browser, publish, beat, valkey) -> None:
    publish()
    beat("d01")
    valkey.set(store.REPORT_PREFIX + "d01", b"x" * 400)
    text = shown(browser().get(reverse("service", args=["search"])).content.decode())
    assert "No decider has reported this service" in text


def test_a_service_that_nobody_has_is_not_found(browser, publish) -> None:
    publish()
    assert browser().get(reverse("service", args=["nothing"])).status_code == 404


def test_who_may_not_read_sees_nothing_and_nobody_posts(browser, publish) -> None:
    publish()
    nobody, support = browser(""), browser("support")
    for name in ("service", "ui-service"):
        address = reverse(name, args=["search"])
        assert nobody.get(address).status_code == 403
        assert support.post(address).status_code == 405


def test_the_part_that_refreshes_itself_is_the_same(browser, publish, say, tenants) -> None:
    publish()
    say([("tidewell", 60.0, 18.0)])
    part = browser().get(reverse("ui-service", args=["search"])).content.decode()
    assert "Tidewell Retail" in part
    assert "<html" not in part
