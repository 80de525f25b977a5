"""What is typed is read as what it is; filters narrow; pages go back in time without a gap or a repeat."""

from __future__ import annotations

import time
import uuid

import pytest

from decider.ids import format_decision_id
from decider.vocabulary import Action, Stage
from decisions import directory, lookup
from decisions.lookup import Filters
from tests.decisions.factory import event, id_at, unranked

pytestmark = pytest.mark.django_db
EVERYTHING = Filters(range="all")


def found(text: str, filters: Filters = EVERYTHING, insist: str = "") -> set[bytes]:
    return {d.id.bytes for d in lookup.rows(lookup.read(text, insist), filters, time.time())}


def test_a_decision_id_is_read_with_and_without_its_prefix(store) -> None:
    one, _ = store([event(), event()])
    for text in (format_decision_id(one.id), one.id.hex(), f"  {uuid.UUID(bytes=one.id)} "):
        assert lookup.read(text).kind == "decision"
        assert found(text) == {one.id}


def test_a_decision_is_found_in_the_partition_of_its_own_time(store) -> None:
    old = event(at=time.time() - 3 * 86_400)
    store([old])
    assert lookup.find(uuid.UUID(bytes=old.id)).event().request_id == old.request_id


def test_a_decision_whose_clock_was_wrong_is_still_found(store) -> None:
    odd = event(at=time.time() - 9 * 86_400, id=id_at(time.time()))
    store([odd])
    assert not lookup.near(uuid.UUID(bytes=odd.id)).exists()
    assert lookup.find(uuid.UUID(bytes=odd.id)) is not None


def test_a_request_id_finds_every_decision_of_that_request(store) -> None:
    again = store([event(request_id="req_same"), event(request_id="req_same"), event()])[:2]
    assert lookup.read("req_same").kind == "request"
    assert found("req_same", Filters(range="15m", actions=frozenset({4}))) == {e.id for e in again}


def test_an_app_is_read_by_id_and_by_name(store, known) -> None:
    mine, other = store([event(), event(app="app_other")])
    assert found("app_7q2m4kx9") == found("order SYNC") == {mine.id}
    assert lookup.read("order sync").label == "app Order sync"
    assert found("app_other") == {other.id}
    assert "not registered" in lookup.read("app_other").label


def test_a_tenant_is_read_as_all_its_apps(store, known) -> None:
    store([event(), event(app="app_stock"), event(app="app_else")])
    reading = lookup.read("tidewell")
    assert reading.kind == "tenant"
    assert reading.label == "tenant Tidewell Retail, 2 apps"
    assert len(found("tidewell")) == len(found("ten_tidewell")) == 2


def test_the_reader_may_insist_on_another_reading(store, known) -> None:
    (odd,) = store([event(app="app_x", request_id="app_7q2m4kx9")])
    assert lookup.read("app_7q2m4kx9").kind == "app"
    assert found("app_7q2m4kx9", insist="request") == {odd.id}


@pytest.mark.parametrize("text", ["no such thing", "a\x00b", "%", "' OR 1=1 --", "\ud7ff", "x" * 500])
def test_what_nobody_knows_is_read_as_nothing(store, known, text) -> None:
    store([event()])
    assert lookup.read(text).kind == "nothing"
    assert found(text) == set()


def test_nothing_typed_means_everything(store) -> None:
    both = store([event(), unranked()])
    assert found("") == {e.id for e in both}


def test_filters_narrow_by_time_action_stage_tier_and_service(store) -> None:
    now = time.time()
    a = event(at=now - 30)
    b = unranked(at=now - 2_000, tier=3, service="search")
    store([a, b])
    assert found("", Filters(range="15m")) == {a.id}
    assert found("", Filters(range="all", out=frozenset({("action", 0)}))) == {a.id}
    assert found("", Filters(range="all", endpoints=frozenset({"GET /v2/orders/{id}"}), services=frozenset({"search"}))) == {b.id}
    assert found("", Filters(range="all", out=frozenset({("endpoint", "GET /v2/orders/{id}")}))) == set()
    assert found("", Filters(start=now - 2_100, end=now - 1_900)) == {b.id}
    assert found("", Filters(range="all", actions=frozenset({Action.ADMIT}))) == {b.id}
    assert found("", Filters(range="all", stages=frozenset({Stage.RANK}))) == {a.id}
    assert found("", Filters(range="all", tiers=frozenset({3}))) == {b.id}
    assert found("", Filters(range="all", services=frozenset({"search"}), actions=frozenset({Action.DEFER}))) == set()


def test_pages_go_back_in_time_without_gap_or_repeat(store) -> None:
    start = time.time() - 100
    sent = [event(at=start + k // 3 * 0.001) for k in range(23)]
    store(sent)
    seen, before = [], None
    while True:
        some, more = lookup.page(lookup.rows(lookup.read(""), EVERYTHING, time.time()), before, size=5)
        seen += [d.id.bytes for d in some]
        if not more:
            break
        before = some[-1].id
    assert seen == sorted((e.id for e in sent), reverse=True)


def test_the_neighbours_of_a_decision_are_its_apps(store) -> None:
    now = time.time()
    first, _, third, other = (event(at=now - 40 + 10 * k, app="app_b" if k == 1 else "app_a") for k in range(4))
    store([first, third, other])
    newer, older = lookup.neighbours(lookup.find(uuid.UUID(bytes=third.id)))
    assert (newer.id.bytes, older.id.bytes) == (other.id, first.id)


def test_apps_of_one_name_are_told_apart_by_their_tenant(db) -> None:
    from control.models import App, Tenant

    one, two = (Tenant.objects.create(id=f"ten_{n}", name=n.title()) for n in ("north", "south"))
    for app, tenant in (("app_a", one), ("app_b", two), ("app_c", two)):
        App.objects.create(id=app, name="Staff portal", tenant=tenant, tier=0)
    App.objects.create(id="app_d", name="Order sync", tenant=one, tier=0)
    told = directory.labels(["app_a", "app_b", "app_c", "app_d", "app_e"])
    assert told == {
        "app_a": "Staff portal, North", "app_b": "Staff portal, app_b", "app_c": "Staff portal, app_c",
        "app_d": "Order sync", "app_e": "app_e",
    }  # fmt: skip


@pytest.mark.parametrize("digits", ["ffffffffffff7000b5fb05101e6a941a", "0fffffffffff7000b5fb05101e6a941a"])
def test_an_id_of_a_time_no_clock_shows_is_no_id(db, digits: str) -> None:
    reading = lookup.read(f"dec_{digits}")
    assert reading.kind == "nothing"
    assert "of the present" in reading.hint


@pytest.fixture
def many(db) -> None:
    """A tenant of sixty apps, and six hundred apps of others that share a word with it."""
    from control.models import App, Tenant

    big, other = (Tenant.objects.create(id=f"ten_{n}", name=n) for n in ("Big Corp", "Other"))
    App.objects.bulk_create(App(id=f"app_b{k:03}", name=f"Worker {k}", tenant=big, tier=0) for k in range(60))
    App.objects.bulk_create(App(id=f"app_o{k:03}", name=f"Portal {k}", tenant=other, tier=0) for k in range(600))


def test_a_tenant_is_whole_however_many_apps_it_has(many) -> None:
    reading = lookup.read("big corp")
    assert (reading.kind, len(reading.apps), reading.label) == ("tenant", 60, "tenant Big Corp, 60 apps")
    assert len(lookup.read("Other").apps) == 600


def test_a_name_that_fits_too_many_says_so(many) -> None:
    from control.models import App

    App.objects.filter(id="app_b000").update(name="Portal of Big Corp")
    reading = lookup.read("portal")
    assert reading.label == "a name, the first 500 of 601 apps; type more of it"
    assert lookup.read("Portal 7").apps == ("app_o007",)
