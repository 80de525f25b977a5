"""What replays of logs decided is stored and found, and no figure of live traffic counts it."""

from __future__ import annotations

import html
import re
import time
import uuid
from importlib import import_module
from pathlib import Path

import pytest
import redis
from django.conf import settings as site
from django.db import connection
from django.urls import reverse

from console.pages.home import mix
from console.pages.lookup import page as lookup_page
from control.audit.actors import Actor
from control.errors import Refused
from decider.contracts import store as contract
from decider.contracts.event import REPLAY_NODE, encode_batch
from decider.contracts.ids import format_decision_id
from decider.node import process
from decisions.counts import aggregate
from decisions.models import Decision, ReplayedDecision
from decisions.models.decision import AppCount, FacetCount
from decisions.outcomes import disputes
from decisions.search import app_day, lookup
from decisions.search.filters import Filters
from decisions.store import copy_format, partitions, rows
from decisions.store.worker import Worker
from decisions.tasks import keep_partitions
from explain.forecast import outlook
from explain.shap import backlog
from tests.database import as_owner
from tests.decisions.factory import batch, event, id_at, unranked
from tests.explain import world
from tests.explain.conftest import keep_version
from tests.pages import shown

pytestmark = pytest.mark.django_db
APP = "app_7q2m4kx9"
DIGEST = "ab" * 16
# The only places that may read or write the table; every other one would count its rows.
KNOWN_TO = {
    "decisions/models/__init__.py",
    "decisions/models/decision.py",
    "decisions/search/lookup.py",
    "decisions/store/partitions.py",
    "decisions/store/rows.py",
    "decisions/store/worker.py",
    "decisions/store/retention.py",
    "decisions/migrations/0005_replayed.py",
    "console/local/postgres/tables.py",
}


def replayed(**fields):
    return event(node=REPLAY_NODE, **fields)


def figures(now: float) -> list[object]:
    """Return what pages and tasks count about live traffic."""
    everything = lookup.interpret("")
    found = lookup_page.search_results(everything, Filters("1h"), now)
    mine = lookup_page.search_results(lookup.interpret(APP, "app"), Filters("1h"), now)
    return [
        mix.mix_lately(now, 600).cells,
        mix.oldest_decision(),
        [row.decision.id for row in found.rows],
        (found.number, found.facets, found.apps),
        (mine.number, mine.facets),
        aggregate.largest_apps(Decision.objects.all()),
        app_day.read_day(APP, now - 3_600),
        outlook.forecast_app(APP, now),
        list(backlog.select_unexplained(0.0, now).values_list("id")),
        lookup.interpret(f"token:{DIGEST}"),
    ]


def flood(node: str, now: float) -> list:
    """A burst of refusals, and one decision of two hours ago."""
    many = [event(node=node, at=now - 10, app=APP, token_digest=DIGEST) for _ in range(40)]
    return [*many, event(node=node, at=now - 7_200, app=APP)]


def test_no_figure_changes_when_a_replay_is_stored(store, known) -> None:
    keep_version(world.config(1))
    now = time.time()
    store([event(at=now - 30), unranked(at=now - 20)])
    before = figures(now)
    store(flood(REPLAY_NODE, now))
    assert figures(now) == before
    assert ReplayedDecision.objects.count() == 41
    # the same decisions of a decider change every one of these figures
    store(flood("d02", now))
    assert all(one != other for one, other in zip(figures(now), before, strict=True))


def test_only_the_search_for_decisions_knows_the_table_of_replays() -> None:
    base = Path(site.BASE_DIR)
    rooms = ("console", "control", "decisions", "explain", "learning", "monitoring", "rollouts")
    found = {
        str(path.relative_to(base))
        for room in rooms
        for path in (base / room).rglob("*.py")
        if re.search(r"ReplayedDecision|decisions_replayed|partitions\.REPLAYED", path.read_text())
    }
    assert found == KNOWN_TO


def test_live_and_replayed_decisions_of_one_batch_are_told_apart(store) -> None:
    live, played = store([event(), replayed()])
    assert [d.id.bytes for d in Decision.objects.all()] == [live.id]
    assert [d.id.bytes for d in ReplayedDecision.objects.all()] == [played.id]
    assert not Decision.objects.get().replayed
    stored = ReplayedDecision.objects.get()
    assert stored.replayed
    assert stored.event().features == played.features


def test_counts_kept_ready_leave_replays_out(store) -> None:
    store([replayed(), replayed()])
    assert not FacetCount.objects.exists()
    assert not AppCount.objects.exists()


def test_a_replayed_decision_is_found_by_its_id_and_its_page_says_what_it_is(
    store, known, browser
) -> None:
    old, new = store([replayed(at=time.time() - 40), replayed(at=time.time() - 20)])
    store([event(at=time.time() - 30)])
    page = shown(browser().get(reverse("decision", args=[format_decision_id(new.id)])))
    assert "A replay of a log decided this" in page
    assert "as=replay" in page
    assert "This was wrong" not in page
    found = lookup.find(uuid.UUID(bytes=new.id))
    assert found is not None
    newer, older = lookup.neighbours(found)
    assert newer is None
    assert older is not None
    assert older.id.bytes == old.id, "the live decision between them is no neighbour"


def test_a_live_decisions_page_does_not_say_that_it_was_a_replay(store, known, browser) -> None:
    (live,) = store([event()])
    page = shown(browser().get(reverse("decision", args=[format_decision_id(live.id)])))
    assert "A replay of a log" not in page


def test_an_app_of_replays_only_is_found_by_its_id(store, browser) -> None:
    (played,) = store([replayed(app="anon_0123456789ab")])
    reading = lookup.interpret("anon_0123456789ab")
    assert reading.replayed
    assert [d.id.bytes for d in lookup.rows(reading, Filters("1h"), time.time())] == [played.id]
    text = html.unescape(shown(browser().get("/lookup?q=anon_0123456789ab&f=1&range=1h")))
    assert "app anon_0123456789ab in replayed logs" in text
    assert format_decision_id(played.id) in text


def test_a_live_apps_replays_are_found_by_asking_for_them(store, known, browser) -> None:
    live, played = store([event(), replayed()])
    client = browser()
    usual = shown(client.get(f"/lookup?q={APP}&f=1&range=1h"))
    asked = shown(client.get(f"/lookup?q={APP}&as=replay&f=1&range=1h"))
    assert (format_decision_id(live.id) in usual, format_decision_id(played.id) in usual) == (1, 0)
    assert (format_decision_id(live.id) in asked, format_decision_id(played.id) in asked) == (0, 1)
    there = client.get(f"/api/v1/decisions?q={APP}&as=replay").json()
    assert [one["id"] for one in there["results"]] == [format_decision_id(played.id)]


def test_a_replayed_refusal_cannot_be_disputed(store) -> None:
    (played,) = store([replayed()])
    found = lookup.find(uuid.UUID(bytes=played.id))
    assert found is not None
    with pytest.raises(Refused, match="replay of a log"):
        disputes.open_dispute(
            found, by=Actor("Ada", "ada", "Support"), reason="It was a busy customer of ours."
        )


@pytest.mark.django_db(transaction=True)
def test_a_replay_does_not_make_ingest_look_late(valkey: redis.Redis) -> None:
    one = Worker(valkey, "w1", claim_idle_ms=0, block_ms=5)
    one.join()
    played = batch([replayed(at=time.time() - 9_000)], node=REPLAY_NODE)
    valkey.xadd(contract.EVENTS_STREAM, {"b": encode_batch(played)})
    assert one.step() == 1
    assert one.lag_s == 0.0
    assert ReplayedDecision.objects.count() == 1


def test_no_decider_may_have_the_name_of_replays(capsys, tmp_path: Path) -> None:
    given = ["--valkey", "redis://x", "--data", "d", "--models", "m", "--keys", "k", "--node"]
    assert process.parse([*given, "d01"]).node == "d01"
    with pytest.raises(SystemExit):
        process.parse([*given, REPLAY_NODE])
    assert "kept for replays" in capsys.readouterr().err


def test_replays_expire_with_the_days_of_live_traffic(settings) -> None:
    keep_partitions()
    assert partitions.existing(partitions.REPLAYED)
    assert partitions.existing(partitions.REPLAYED) <= partitions.existing(partitions.DECISIONS)


def test_replays_stored_before_move_to_their_table(store) -> None:
    forward = import_module("decisions.migrations.0005_replayed").FORWARD
    move = forward[forward.index("WITH moved") :]
    live, old = event(), replayed(id=id_at(time.time() - 60), at=time.time() - 60)
    texts = copy_format.Texts()
    rows._copy(partitions.DECISIONS, [live, old], texts)
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(move)
    assert [d.id.bytes for d in Decision.objects.all()] == [live.id]
    assert [d.id.bytes for d in ReplayedDecision.objects.all()] == [old.id]
    moved = ReplayedDecision.objects.get().event()
    assert moved.at == pytest.approx(old.at, abs=1e-6)
    moved.at = old.at
    assert moved == old
