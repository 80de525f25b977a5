"""What is pasted: a credential is looked up by its digest and leaves no trace; everything else is read as what it is."""

from __future__ import annotations

import logging

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from decider.ids import format_decision_id, token_digest
from decisions import credentials, pasted
from decisions.models import SavedSearch
from tests.decisions.factory import event, id_at

pytestmark = pytest.mark.django_db
LOOKUP = "/lookup"
SECRET = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"


@pytest.fixture(autouse=True)
def token_key(settings, keys) -> bytes:
    settings.SLUICE_KEYS = keys
    return bytes.fromhex((keys / "token.key").read_text())


@pytest.mark.parametrize("written", [SECRET, f"Bearer {SECRET}", f"  bearer   {SECRET} "])
def test_a_token_leads_to_its_digest_and_nowhere_else(store, browser, token_key, caplog, written) -> None:
    digest = token_digest(token_key, SECRET)
    (one,) = store([event(token_digest=digest, app="app_x")])
    client = browser()
    with (
        CaptureQueriesContext(
            connection,
        ) as queries,
        caplog.at_level(logging.DEBUG),
    ):
        response = client.post(LOOKUP, {"q": written, "f": "1", "range": "24h"})
        page = client.get(response["Location"])
    assert response["Location"].startswith(f"{LOOKUP}?q=token%3A{digest}&range=24h")
    assert format_decision_id(one.id) in page.content.decode()
    assert not any(SECRET in q["sql"] for q in queries)
    assert SECRET not in caplog.text + page.content.decode() + response["Location"] + str(dict(client.session))


@pytest.mark.parametrize("written", [SECRET, "Bearer abc", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x", "a" * 400])
def test_an_unknown_credential_is_neither_searched_nor_repeated(browser, caplog, written) -> None:
    client = browser()
    for headers in ({}, {"hx-request": "true"}):
        with CaptureQueriesContext(connection) as queries, caplog.at_level(logging.DEBUG):
            response = client.post(LOOKUP, {"q": written}, headers=headers)
        assert "looks like a credential" in response.content.decode()
        assert "HX-Push-Url" not in response
        assert written not in response.content.decode() + caplog.text
        assert not any(written in q["sql"] for q in queries)


def test_who_may_not_see_digests_may_not_look_tokens_up(store, browser, token_key) -> None:
    digest = token_digest(token_key, SECRET)
    store([event(token_digest=digest)])
    client = browser("sre")
    assert pasted.NOT_YOURS in client.post(LOOKUP, {"q": SECRET}).content.decode()
    page = client.get(LOOKUP, {"q": f"token:{digest}"})
    assert pasted.NOT_YOURS in page.content.decode()
    assert digest not in page.content.decode().partition('id="found"')[2]


def test_without_the_key_it_says_so(browser, settings, tmp_path) -> None:
    settings.SLUICE_KEYS = tmp_path / "none"
    assert "token.key cannot be read" in browser().post(LOOKUP, {"q": SECRET}).content.decode()


def test_htmx_gets_the_results_and_the_safe_address(store, known, browser) -> None:
    store([event()])
    response = browser().post(LOOKUP, {"q": "order sync"}, headers={"hx-request": "true"})
    assert "<html" not in response.content.decode()
    assert response["HX-Push-Url"].startswith(f"{LOOKUP}?q=order+sync&range=1h")


@given(st.integers(0, 2**48 - 1))
def test_a_decision_id_never_looks_like_a_secret(milliseconds) -> None:
    assert not credentials.looks_secret(format_decision_id(id_at(milliseconds / 1000)))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("dec_019e70448800765", "15 digits; a whole one has dec_ and 32"),
        ("dec_019e704488007659996558f77ba88fzz", "“z” is no hexadecimal digit"),
        ("019e7044-8800-4659-9965-58f77ba88f92", "version 7 UUIDs"),
    ],
)
def test_what_is_almost_an_id_is_told_what_is_wrong_with_it(browser, written, says) -> None:
    assert says in browser().post(LOOKUP, {"q": written}).content.decode()
    assert says in browser("auditor").get(LOOKUP, {"q": written}).content.decode()


def test_the_palette_finds_apps_decisions_and_saved_searches(known, browser) -> None:
    client = browser()
    SavedSearch.objects.create(owner_id=client.session["_auth_user_id"], name="Order refusals", query="q=order+sync&range=1h&f=1")
    found = client.post("/ui/palette", {"q": "order"}).content.decode()
    assert "/apps/app_7q2m4kx9" in found
    assert "/lookup?q=order+sync&amp;range=1h&amp;f=1" in found
    name = format_decision_id(id_at(1_780_000_000.0))
    assert f"/decisions/{name}" in client.post("/ui/palette", {"q": name}).content.decode()
    assert client.post("/ui/palette", {"q": SECRET}).content.decode().strip() == ""
    assert client.get("/ui/palette").status_code == 405
    assert browser("").post("/ui/palette", {"q": "order"}).status_code == 403
