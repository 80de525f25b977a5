"""A decision that is not stored: its page says why, what was decided then, and under which rules;
it is never empty.
"""

from __future__ import annotations

import html
import re
import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from control.models import App, Tenant
from decider.contracts.ids import format_decision_id
from tests.decisions.factory import event, id_at, unranked
from tests.pages import shown

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown(response))))


@pytest.fixture
def client(browser):
    return browser()


def page(client, at: float, **given: str):
    return client.get(reverse("decision", args=[format_decision_id(id_at(at))]), given)


def test_its_minute_is_told_with_intervals(store, document, client) -> None:
    at = time.time() // 60 * 60 - 300
    store(
        [
            event(at=at + 1, inclusion_probability=0.5),
            unranked(at=at + 2, inclusion_probability=0.02),
            event(at=at + 130),
        ]
    )
    response = page(client, at + 20)
    text = text_of(response)
    assert response.status_code == 404
    assert "This decision was not kept, but its minute was" in text
    assert "In that minute there were about 52 decisions, 2 of them kept." in text
    assert text.count("Admit 50 9 and 279") == 2
    assert "Stored decisions nearest in time" in text


def test_one_app_is_told_apart(store, document, client) -> None:
    tenant = Tenant.objects.create(id="ten_x", name="Tidewell Retail")
    App.objects.create(id="app_mine", name="Order sync", tenant=tenant, tier=1)
    at = time.time() // 60 * 60 - 300
    mine, _ = store(
        [
            event(at=at + 1, app="app_mine"),
            event(at=at + 2, app="app_other", inclusion_probability=0.1),
        ]
    )
    for named in ("app_mine", "order sync"):
        response = page(client, at + 20, app=named)
        assert "about 2 decisions about Order sync, 1 of them kept." in text_of(response)
        assert format_decision_id(mine.id) in shown(response)
    assert "No app of this id or name was seen." in text_of(page(client, at + 20, app="nobody\x00"))


def test_an_app_is_named_by_post_and_a_credential_leaves_no_trace(store, document, client) -> None:
    at = time.time() // 60 * 60 - 300
    store([event(at=at + 1, app="app_mine")])
    address, secret = (
        reverse("decision", args=[format_decision_id(id_at(at))]),
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    )
    assert client.post(address, {"app": " app_mine "})["Location"] == f"{address}?app=app_mine"
    with CaptureQueriesContext(connection) as queries:
        posted, asked = client.post(address, {"app": secret}), client.get(address, {"app": secret})
    assert "No app of this id or name was seen." in text_of(posted)
    assert secret not in shown(posted)
    assert secret not in shown(asked).partition("<main")[2]
    assert not any(secret in q["sql"] for q in queries)


def test_the_rules_are_those_of_then(document, client) -> None:
    tenant = Tenant.objects.create(id="ten_x", name="Tidewell Retail")
    App.objects.create(id="app_mine", name="Order sync", tenant=tenant, tier=1)
    text = text_of(page(client, time.time() + 30, app="app_mine"))
    assert "cfg 1" in text
    assert "Standard: " in text
    assert "No config version of that time is readable here." in text_of(
        page(client, time.time() - 86_400)
    )


@pytest.mark.parametrize(
    ("ago", "says"),
    [
        (2.0, "This decision is not stored yet"),
        (-7_200.0, "This id is of a time that has not come"),
        (40 * 86_400.0, "This decision is no longer kept"),
        (3_600.0, "This decision was not kept"),
    ],
)
def test_it_says_why_it_is_missing(document, client, ago, says) -> None:
    text = text_of(page(client, time.time() - ago))
    assert says in text
    assert "none was kept" in text
