"""Saved searches: named, one's own or shared, deleted by their owner; and the live tail."""

from __future__ import annotations

import time
import uuid
from urllib.parse import urlencode

import pytest

from console.pages.lookup import live_tail, saved_searches
from decider.contracts.ids import format_decision_id
from decisions.models.decision import SavedSearch
from decisions.search import lookup
from tests.decisions.factory import event, unranked
from tests.pages import shown

pytestmark = pytest.mark.django_db
SAVE = "/lookup/saved"


def test_a_search_is_saved_as_it_was_read_and_seen_by_its_owner_alone(browser) -> None:
    mine, other = browser("support"), browser("auditor")
    answer = mine.post(
        SAVE,
        {
            "name": "  Enterprise   refusals ",
            "query": "tier=enterprise&f=1&-action=block&before=x",
        },
    )
    assert answer["Location"] == "/lookup?range=1h&f=1&not_action=block&tier=enterprise"
    assert "Enterprise refusals" in shown(mine.get("/lookup"))
    assert "Enterprise refusals" not in shown(other.get("/lookup"))


def test_a_shared_one_is_seen_by_all_and_deleted_by_its_owner(browser) -> None:
    mine, other = browser("support"), browser("auditor")
    mine.post(SAVE, {"name": "Shed", "query": "action=shed", "shared": "1"})
    assert "Shed" in shown(other.get("/lookup"))
    number = SavedSearch.objects.get().id
    other.post(f"{SAVE}/{number}/delete")
    assert SavedSearch.objects.exists()
    mine.post(f"{SAVE}/{number}/delete")
    assert not SavedSearch.objects.exists()


def test_the_same_name_replaces(browser) -> None:
    client = browser()
    for action in ("shed", "block"):
        client.post(SAVE, {"name": "One", "query": f"action={action}"})
    assert SavedSearch.objects.get().query.endswith("action=block")


@pytest.mark.parametrize(
    "form",
    [
        {"name": " "},
        {"name": "x" * 61},
        {"name": "t", "shared": "1", "query": "q=token:" + "ab" * 16},
        {"name": "t", "query": "aktion=block"},
    ],
)
def test_what_cannot_be_saved_is_said(browser, form) -> None:
    client = browser()
    assert "note-bad" in shown(client.post(SAVE, {"query": "", **form}, follow=True))
    assert not SavedSearch.objects.exists()


@pytest.mark.parametrize(
    "text",
    [
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        " AKIAIOSFODNN7EXAMPLE",
        "token:sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    ],
)
def test_a_credential_is_not_kept_and_not_repeated(browser, text) -> None:
    answer = browser().post(
        SAVE, {"name": "One", "query": urlencode({"q": text}), "shared": "1"}, follow=True
    )
    assert "looks like a credential" in shown(answer)
    assert text.strip() not in shown(answer) + str(answer.redirect_chain)
    assert not SavedSearch.objects.exists()


def test_a_digest_is_not_shared_whatever_stands_before_it(browser) -> None:
    client, digest = browser(), "token:" + "ab" * 16
    client.post(SAVE, {"name": "One", "query": urlencode({"q": f"  {digest}"}), "shared": "1"})
    assert not SavedSearch.objects.exists()
    client.post(SAVE, {"name": "One", "query": urlencode({"q": f"  {digest}"})})
    assert SavedSearch.objects.get().query.startswith(urlencode({"q": digest}))


def test_no_filter_is_added_to_what_is_kept(browser) -> None:
    browser().post(SAVE, {"name": "One", "query": "range=6h&as=sk_live_4eC39HqLyjWDarjtT1zdp7dc"})
    assert SavedSearch.objects.get().query == "range=6h&f=1"


def test_there_is_a_most(browser, monkeypatch) -> None:
    monkeypatch.setattr(saved_searches, "MOST", 1)
    client = browser()
    client.post(SAVE, {"name": "a", "query": ""})
    assert "Delete one first" in shown(client.post(SAVE, {"name": "b", "query": ""}, follow=True))


def test_only_posts_save_and_only_who_may_look(browser) -> None:
    assert browser().get(SAVE).status_code == 405
    assert browser("").post(SAVE, {"name": "a"}).status_code == 403


def test_the_tail_brings_what_is_newer_once_and_in_order(store, browser) -> None:
    now = time.time()
    first, *later = store(
        [event(at=now - 30 + k) for k in range(5)] + [event(at=now), unranked(at=now - 10)]
    )
    client, address = browser(), "/ui/lookup/tail?range=1h&f=1&action=defer"
    page = shown(
        client.get(
            address,
            {"after": str(uuid.UUID(bytes=first.id)), "range": "1h", "f": "1", "action": "defer"},
        )
    )
    places = [page.find(format_decision_id(e.id)) for e in later[:4]]
    assert all(p > 0 for p in places)
    assert places == sorted(places, reverse=True)
    assert format_decision_id(later[4].id) not in page  # younger than every node's report
    assert format_decision_id(later[5].id) not in page  # outside the filters
    assert f"after={uuid.UUID(bytes=later[3].id)}" in page


def test_what_is_stored_late_is_passed_over_by_the_tail_and_is_in_the_list(store) -> None:
    now = time.time()
    first, seen = store([event(at=now - 30), event(at=now - 10)])
    reading, filters = lookup.interpret(""), lookup.Filters()
    news = live_tail.newer_decisions(reading, filters, uuid.UUID(bytes=first.id), now, hold=False)
    (late,) = store([event(at=now - 20)])
    assert news.newest == uuid.UUID(bytes=seen.id)
    assert live_tail.newer_decisions(reading, filters, news.newest, now + 5, hold=False).rows == ()
    assert uuid.UUID(bytes=late.id) in {d.id for d in lookup.rows(reading, filters, now)}


def test_a_held_tail_counts_and_moves_nothing(store, browser) -> None:
    now = time.time()
    first, *_ = store([event(at=now - 30 + k) for k in range(4)])
    after = str(uuid.UUID(bytes=first.id))
    page = shown(browser().get("/ui/lookup/tail", {"after": after, "hold": "1", "f": "1"}))
    assert "3 wait" in page
    assert "<tr" not in page
    assert f"after={after}" in page


def test_a_tail_has_an_end(store, monkeypatch) -> None:
    now = time.time()
    store([event(at=now - 60 + k) for k in range(9)])
    monkeypatch.setattr(live_tail, "MOST", 4)
    news = live_tail.newer_decisions(
        lookup.interpret(""), lookup.Filters(), lookup.id_at(now - 100), now, hold=False
    )
    assert len(news.rows) == 4
    assert (
        live_tail.newer_decisions(
            lookup.interpret("nobody"), lookup.Filters(), news.newest, now, hold=False
        ).rows
        == ()
    )


@pytest.mark.parametrize(
    "query", ["", "?after=1", "?after=019e7044-8800-7659-9965-58f77ba88f92&action=x"]
)
def test_a_tail_of_nothing_is_refused(browser, query) -> None:
    assert browser().get("/ui/lookup/tail" + query).status_code == 400
