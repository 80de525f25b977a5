"""Lookup and app pages answer every role, every input, and nobody else."""

from __future__ import annotations

import html
import re
import time

import pytest
from django.test import Client
from django.urls import reverse

from decider.contracts.ids import format_decision_id
from tests.decisions.factory import event, id_at, unranked
from tests.pages import shown

pytestmark = pytest.mark.django_db
ROLES = ("support", "sre", "ml_owner", "policy_admin", "auditor")
LOOKUP = "/lookup"


def text_of(response) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown(response))))


@pytest.mark.parametrize("role", ROLES)
def test_every_role_may_look_decisions_up(store, known, browser, role) -> None:
    store([event(), unranked()])
    client = browser(role)
    assert "2 decisions, 1 kept" in text_of(client.get(LOOKUP))
    assert client.get(reverse("app", args=["app_7q2m4kx9"])).status_code == 200


@pytest.mark.parametrize("address", [LOOKUP, "/apps/app_1"])
def test_nobody_else_may(browser, address) -> None:
    assert browser("").get(address).status_code == 403
    assert Client().get(address).status_code == 302


def test_a_first_visit_shows_what_was_not_admitted_and_a_chip_takes_that_away(
    store, browser
) -> None:
    refused, admitted = store([event(), unranked()])
    client = browser()
    page = client.get(LOOKUP)
    assert format_decision_id(refused.id) in shown(page)
    assert format_decision_id(admitted.id) not in shown(page)
    without = shown(client.get(LOOKUP + "?f=1&range=1h"))
    assert format_decision_id(admitted.id) in without


def test_counts_are_weighted_and_say_so(store, browser) -> None:
    store([event(inclusion_probability=0.25) for _ in range(3)])
    text = text_of(browser().get(LOOKUP))
    assert "12 decisions, 3 kept" in text
    assert "Counts are weighted" in text


def test_it_says_how_it_read_what_was_typed(store, known, browser) -> None:
    store([event()])
    text = text_of(browser().get(LOOKUP, {"q": "order sync"}))
    assert "Read as app Order sync ." in text
    assert "Search it as a request id instead" in text


def test_htmx_gets_the_results_alone(store, browser) -> None:
    store([event()])
    client = browser()
    part = client.get(LOOKUP, headers={"hx-request": "true"})
    assert "<html" not in shown(part)
    assert "HX-Request" in part["Vary"]


def test_a_live_tail_is_asked_for_and_only_of_the_newest_page(store, browser) -> None:
    rows = store([event(at=time.time() - k) for k in range(60)])
    client = browser()
    first = shown(client.get(LOOKUP))
    assert "data-tail" not in first
    assert "data-tail" in shown(client.get(LOOKUP + "?live=1"))
    older = html.unescape(re.search(r'href="([^"]*before=[^"]*)"', first)[1])
    second = shown(client.get(older + "&live=1"))
    assert "data-tail" not in second
    assert format_decision_id(rows[-1].id) in second


def test_a_decision_that_was_not_kept_leads_to_what_is_known_of_its_moment(browser) -> None:
    text = text_of(browser().get(LOOKUP, {"q": format_decision_id(id_at(time.time()))}))
    assert "No stored decision has this id" in text
    assert "What is known of that moment" in text


def test_nothing_found_names_the_filter_to_drop(store, browser) -> None:
    store([event(at=time.time() - 7_200)])
    page = browser().get(LOOKUP)
    assert "Drop the time range “Last 1 h”" in text_of(page)
    assert "range=all" in shown(page)


def test_what_nobody_knows_is_said(browser) -> None:
    assert "matches nothing here" in text_of(browser().get(LOOKUP, {"q": "zzz"}))


def test_what_was_pasted_and_not_known_is_never_echoed_or_put_in_an_address(browser) -> None:
    response = browser().post(LOOKUP, {"q": "secret-credential-1234"})
    assert response.status_code == 200
    assert "secret-credential" not in shown(response)


def test_what_was_posted_and_known_becomes_an_address(store, known, browser) -> None:
    response = browser().post(LOOKUP, {"q": "order sync"})
    assert response.status_code == 302
    assert response["Location"].startswith(LOOKUP + "?q=order+sync")


@pytest.mark.parametrize(
    "query", ["range=9y", "action=explode", "stage=x", "tier=gold", "before=1", "as=token"]
)
def test_a_filter_that_does_not_exist_gets_a_sentence_and_loses_nothing(
    store, browser, query
) -> None:
    kept, _ = store([event(service="orders-read"), event(service="search")])
    page = browser().get(f"{LOOKUP}?f=1&service=orders-read&{query}")
    assert page.status_code == 422
    assert "note-warn" in shown(page)
    assert format_decision_id(kept.id) in shown(page)
    assert "Remove the filter orders-read" in shown(page)


def test_hostile_texts_are_shown_and_not_run(store, browser) -> None:
    bad = '"><script>alert(1)</script>'
    (one,) = store([event(app=bad, endpoint=bad, service=bad, node=bad, request_id=bad)])
    client = browser()
    for response in (
        client.get(LOOKUP),
        client.get(LOOKUP, {"q": bad}),
        client.get(reverse("app", args=[bad])),
    ):
        assert response.status_code == 200
        assert "<script>alert" not in shown(response)
        assert format_decision_id(one.id) in shown(response)


def test_the_page_of_an_app_says_how_it_is(store, known, browser) -> None:
    store([event(inclusion_probability=0.5), unranked(inclusion_probability=0.02)])
    text = text_of(browser().get(reverse("app", args=["app_7q2m4kx9"])))
    assert "About 2 of 52 requests in the last 24 h were not admitted, 3.85%." in text
    assert "Tidewell Retail" in text


def test_an_app_nobody_registered_has_a_page_too(store, browser) -> None:
    store([unranked(app="anon_3f")])
    text = text_of(browser().get(reverse("app", args=["anon_3f"])))
    assert "This app is not registered." in text
    assert "all admitted" in text


def test_an_app_that_was_never_seen_says_so(browser) -> None:
    assert "No decision about it was stored" in text_of(
        browser().get(reverse("app", args=["app_none"]))
    )
