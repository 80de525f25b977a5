"""A service's page: who asks for how much of it, and who pays while it is short of room."""

from __future__ import annotations

import numpy as np
import pytest
from django.urls import reverse

from console.pages.service.page import _judge
from control.models import Tenant
from decider.contracts import store
from decider.contracts.vocabulary import Tier
from decider.engine.shared import report as reports
from decider.engine.shared.report import NAMED, Report
from decider.engine.text_hash import TextHash
from monitoring.shares import TenantShare
from tests.pages import shown

pytestmark = pytest.mark.django_db


@pytest.fixture
def say(keys, valkey, beat):
    """Does what a decider does four times a second; of each tenant its id, demand and use. `asked`:
    what all ask for, by default what the named ones do.
    """
    token_key = bytes.fromhex((keys / "token.key").read_text())
    hashes = TextHash(token_key)

    def put(
        named: list[tuple[str, float, float]],
        *,
        price: float = 0.5,
        given: float = 40.0,
        asked: float | None = None,
    ):
        figures = np.zeros((1, reports.N_FIGURES), np.float32)
        named_ask = sum(asks for _, asks, _ in named)
        figures[0, : reports.REST] = named_ask if asked is None else asked, given, price
        rows = np.array(
            [(0, Tier.PREMIUM, 1.0, asks, gets, hashes.one(one)) for one, asks, gets in named],
            NAMED,
        )
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
    say([("tidewell", 60.0, 22.0), ("nord", 10.0, 9.8), ("oak", 10.0, 5.0)])
    html = browser("sre").get(reverse("service", args=["search"])).content.decode()
    text = shown(html)
    assert (
        "search is short of room: 1 tenant asks for more than its due and pays,"
        " 1 tenant gets less than its due" in text
    )
    noisy, *_, _ = rows(html)
    assert "Tidewell Retail" in noisy
    assert "Over its due, pays" in noisy
    assert "Gets its due" in text
    assert "Below its due" in text


def test_who_asks_for_little_has_no_row(browser, publish, say, tenants) -> None:
    publish()
    say([("tidewell", 60.0, 38.0), ("nord", 0.5, 0.5), ("oak", 0.25, 0.25)], given=38.75)
    text = shown(browser().get(reverse("service", args=["search"])).content.decode())
    assert "All others ask for 0.8 a second together." in text
    assert "Nordlicht" not in text


def test_where_no_tenant_is_named_all_that_is_asked_for_is_told(browser, publish, say) -> None:
    publish()
    say([], price=0.0, given=14.0, asked=15.0)
    text = shown(browser().get(reverse("service", args=["search"])).content.decode())
    assert "All together ask for 15.0 cost units a second." in text
    assert "All others" not in text


def test_a_tier_that_higher_ones_leave_nothing_waits() -> None:
    low = TenantShare(7, Tier.FREE, 1.0, 5.0, 0.0, 0.0)
    assert _judge(low, short=True) == ("warn", "Its tier waits")


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
