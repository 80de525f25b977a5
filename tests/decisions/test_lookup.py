"""What is typed is read as what it is; filters narrow; pages go back in time without a gap or a
repeat.
"""

from __future__ import annotations

import time
import uuid

import msgspec
import pytest

from console.pages.lookup import page as lookup_page
from control.directory import apps as directory
from control.models import App, Tenant
from decider.contracts import defaults
from decider.contracts.config import ListEntry
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action, Stage
from decisions.counts import seen_tokens
from decisions.search import export, lookup
from decisions.search.lookup import Filters
from tests.decisions.factory import event, id_at, unranked

pytestmark = pytest.mark.django_db
EVERYTHING = Filters(range="all")


def found(text: str, filters: Filters = EVERYTHING, insist: str = "") -> set[bytes]:
    return {d.id.bytes for d in lookup.rows(lookup.interpret(text, insist), filters, time.time())}


def test_a_decision_id_is_read_with_and_without_its_prefix(store) -> None:
    one, _ = store([event(), event()])
    for text in (format_decision_id(one.id), one.id.hex(), f"  {uuid.UUID(bytes=one.id)} "):
        assert lookup.interpret(text).kind == "decision"
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
    assert lookup.interpret("req_same").kind == "request"
    assert found("req_same", Filters(range="15m", actions=frozenset({4}))) == {e.id for e in again}


def test_an_app_is_read_by_id_and_by_name(store, known) -> None:
    mine, other = store([event(), event(app="app_other")])
    assert found("app_7q2m4kx9") == found("order SYNC") == {mine.id}
    assert lookup.interpret("order sync").label == "app Order sync"
    assert found("app_other") == {other.id}
    assert "not registered" in lookup.interpret("app_other").label


def test_a_tenant_is_read_as_all_its_apps(store, known) -> None:
    store([event(), event(app="app_stock"), event(app="app_else")])
    reading = lookup.interpret("tidewell")
    assert reading.kind == "tenant"
    assert reading.label == "tenant Tidewell Retail, 2 apps"
    assert len(found("tidewell")) == len(found("ten_tidewell")) == 2


def many(count: int, *tenants: str) -> list[str]:
    """Registers apps, one tenant after another in turn. Their ids."""
    owners = [Tenant.objects.create(id=f"ten_{k}", name=name) for k, name in enumerate(tenants)]
    rows = [
        App(id=f"app_{k:03}", name=f"Sync {k:03}", tenant=owners[k % len(owners)], tier=1)
        for k in range(count)
    ]
    return [row.id for row in App.objects.bulk_create(rows)]


def test_a_tenant_of_many_apps_is_whole_in_list_counts_and_export(store) -> None:
    ids = many(60, "Big Corp")
    store([event(app=app) for app in ids])
    for text in ("big corp", "ten_0"):
        reading = lookup.interpret(text)
        assert (reading.kind, reading.label, len(reading.apps)) == (
            "tenant",
            "tenant Big Corp, 60 apps",
            60,
        )
        rows = lookup.rows(reading, EVERYTHING, time.time())
        assert rows.count() == 60
        assert lookup_page.search_results(reading, EVERYTHING, time.time()).number.kept == 60
        assert len("".join(export.lines(rows)).splitlines()) == 61


def test_a_name_that_matches_too_many_apps_says_so(store) -> None:
    many(312, "Tidewell Retail", "Grid Mobility")
    reading = lookup.interpret("sync")
    assert (reading.kind, len(reading.apps)) == ("apps", 312)
    many_more = lookup.directory.MOST_NAMED
    App.objects.bulk_create(
        App(id=f"app_x{k}", name=f"Sync x{k}", tenant_id="ten_0", tier=1) for k in range(many_more)
    )
    assert (
        lookup.interpret("sync").label
        == f"a name, the first {many_more} of {many_more + 312} apps; type more of it"
    )
    assert lookup.interpret("sync 00").label == "a name, 10 apps"


def test_exactly_fifty_of_a_name_are_all_of_them(store) -> None:
    many(50, "Tidewell Retail", "Grid Mobility")
    assert lookup.interpret("sync").label == "a name, 50 apps"


def test_an_app_of_exactly_this_name_is_found_among_many_that_hold_it(store) -> None:
    many(60, "Tidewell Retail", "Grid Mobility")
    App.objects.create(id="app_last", name="Zync", tenant_id="ten_0", tier=1)
    App.objects.create(id="app_longer", name="A zync", tenant_id="ten_1", tier=1)
    assert lookup.interpret("zync").apps == ("app_last",)
    assert lookup.interpret("sync 059").apps == ("app_059",)


def test_a_credential_that_many_apps_used_finds_all_of_them(store) -> None:
    sent = [event(app=f"app_{k}", token_digest="cd" * 16) for k in range(60)]
    seen = seen_tokens.SeenTokens()
    store(sent)
    seen.add(sent)
    reading = lookup.interpret(f"token:{'cd' * 16}")
    assert (reading.kind, len(reading.apps)) == ("token", 60)
    assert lookup.rows(reading, EVERYTHING, time.time()).count() == 60


def test_the_reader_may_insist_on_another_reading(store, known) -> None:
    (odd,) = store([event(app="app_x", request_id="app_7q2m4kx9")])
    assert lookup.interpret("app_7q2m4kx9").kind == "app"
    assert found("app_7q2m4kx9", insist="request") == {odd.id}


@pytest.mark.parametrize(
    "text", ["no such thing", "a\x00b", "%", "' OR 1=1 --", "\ud7ff", "x" * 500]
)
def test_what_nobody_knows_is_read_as_nothing(store, known, text) -> None:
    store([event()])
    assert lookup.interpret(text).kind == "nothing"
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
    assert found(
        "",
        Filters(
            range="all",
            endpoints=frozenset({"GET /v2/orders/{id}"}),
            services=frozenset({"search"}),
        ),
    ) == {b.id}
    assert (
        found("", Filters(range="all", out=frozenset({("endpoint", "GET /v2/orders/{id}")})))
        == set()
    )
    assert found("", Filters(start=now - 2_100, end=now - 1_900)) == {b.id}
    assert found("", Filters(range="all", actions=frozenset({Action.ADMIT}))) == {b.id}
    assert found("", Filters(range="all", stages=frozenset({Stage.RANK}))) == {a.id}
    assert found("", Filters(range="all", tiers=frozenset({3}))) == {b.id}
    assert (
        found(
            "",
            Filters(range="all", services=frozenset({"search"}), actions=frozenset({Action.DEFER})),
        )
        == set()
    )


def test_pages_go_back_in_time_without_gap_or_repeat(store) -> None:
    start = time.time() - 100
    sent = [event(at=start + k // 3 * 0.001) for k in range(23)]
    store(sent)
    seen, before = [], None
    while True:
        some, more = lookup.page(
            lookup.rows(lookup.interpret(""), EVERYTHING, time.time()), before, size=5
        )
        seen += [d.id.bytes for d in some]
        if not more:
            break
        before = some[-1].id
    assert seen == sorted((e.id for e in sent), reverse=True)


def test_the_neighbours_of_a_decision_are_its_apps(store) -> None:
    now = time.time()
    first, _, third, other = (
        event(at=now - 40 + 10 * k, app="app_b" if k == 1 else "app_a") for k in range(4)
    )
    store([first, third, other])
    newer, older = lookup.neighbours(lookup.find(uuid.UUID(bytes=third.id)))
    assert (newer.id.bytes, older.id.bytes) == (other.id, first.id)


def test_apps_of_one_name_are_told_apart_by_their_tenant(db) -> None:

    one, two = (Tenant.objects.create(id=f"ten_{n}", name=n.title()) for n in ("north", "south"))
    for app, tenant in (("app_a", one), ("app_b", two), ("app_c", two)):
        App.objects.create(id=app, name="Staff portal", tenant=tenant, tier=0)
    App.objects.create(id="app_d", name="Order sync", tenant=one, tier=0)
    told = directory.labels(["app_a", "app_b", "app_c", "app_d", "app_e"])
    assert told == {
        "app_a": "Staff portal, North",
        "app_b": "Staff portal, app_b",
        "app_c": "Staff portal, app_c",
        "app_d": "Order sync",
        "app_e": "app_e",
    }


@pytest.mark.parametrize(
    "digits", ["ffffffffffff7000b5fb05101e6a941a", "0fffffffffff7000b5fb05101e6a941a"]
)
def test_an_id_of_a_time_no_clock_shows_is_no_id(db, digits: str) -> None:
    reading = lookup.interpret(f"dec_{digits}")
    assert reading.kind == "nothing"
    assert "not a version 7 UUID" in reading.hint


def test_a_pasted_address_is_read_as_deciders_count_it(store, monkeypatch) -> None:
    entries = [
        ListEntry(verdict="block", kind="source", subject="2001:db8::/32"),
        ListEntry(verdict="allow", kind="source", subject="2001:db8::/64", until=1.0),
        ListEntry(verdict="block", kind="source", subject="banana"),
        ListEntry(verdict="allow", kind="source", subject="192.0.2.0/24"),
    ]
    document = msgspec.structs.replace(defaults.config(1, 0.0), lists=entries)
    monkeypatch.setattr(lookup.documents, "newest", lambda: document)
    reading = lookup.interpret("[2001:DB8::1]:443")
    assert reading.kind == "nothing"
    assert "as the source 2001:db8::/64" in reading.hint
    assert reading.hint.endswith("Lists in force name it: block 2001:db8::/32.")
    assert lookup.interpret("203.0.113.9").hint.endswith("No list in force names it.")
    assert "allow 192.0.2.0/24" in lookup.interpret("::ffff:192.0.2.7").hint
