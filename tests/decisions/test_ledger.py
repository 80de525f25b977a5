"""Every sampled event is accounted for: stored, buried, discarded, dropped, lost or on its way."""

from __future__ import annotations

import random

import pytest
from django.db import connection

from control.disk import Room
from decider.contracts import store
from decisions.models import DeciderRun, Decision
from decisions.store import ledger
from tests.decisions.factory import batch, event, id_at, unranked
from tests.decisions.test_ingest import send, worker

pytestmark = pytest.mark.django_db(transaction=True)
RUN, NEXT_RUN = id_at(1.7e9), id_at(1.7e9 + 60)


def account() -> tuple[int, int, int]:
    """Sent, stored and lost, over all runs."""
    every = DeciderRun.objects.all()
    return sum(r.sent for r in every), sum(r.stored for r in every), sum(r.lost for r in every)


def sent_by(run: bytes, sizes: list[int], **fields) -> list:
    """Batches of one run, as many events in each as `sizes` says."""
    made, first = [], 0
    for size in sizes:
        made.append(batch([event() for _ in range(size)], run=run, first=first, **fields))
        first += size
    return made


def test_what_the_stream_trimmed_while_the_database_was_away_is_counted_exactly(valkey) -> None:
    one = worker(valkey)
    send(valkey, *sent_by(RUN, [3, 1, 4, 1, 5]))
    # nobody read the first three
    valkey.xtrim(store.EVENTS_STREAM, maxlen=2, approximate=False)
    assert one.step() == 6
    ledger.settle(valkey)
    assert account() == (14, 6, 8)
    assert ledger.lost_lately() == 8
    (mine,) = ledger.by_node()
    assert (mine.sampled, mine.stored, mine.lost, mine.on_their_way) == (14, 6, 8, 0)


def test_what_was_trimmed_after_it_was_handed_out_is_counted_too(valkey) -> None:
    send(valkey, *sent_by(RUN, [2, 3]))
    dead = worker(valkey, "dead")
    assert len(dead._new()) == 2
    valkey.xtrim(store.EVENTS_STREAM, maxlen=1, approximate=False)
    other = worker(valkey, "w2")
    assert other.step() == 3
    # the one that is gone is still listed as handed out until somebody asks for it again
    other._claimed_at = float("-inf")
    other.step()
    ledger.settle(valkey)
    assert account() == (5, 3, 2)


def test_nothing_is_lost_while_another_worker_may_still_store_it(valkey) -> None:
    send(valkey, *sent_by(RUN, [2, 3]))
    slow, quick = worker(valkey, "slow"), worker(valkey, "quick")
    held = slow.client.xreadgroup(store.EVENTS_GROUP, "slow", {store.EVENTS_STREAM: ">"}, count=1)
    assert quick.store(quick._new()) == 3
    ledger.settle(valkey)
    assert account() == (5, 3, 0)
    slow.store(held[0][1])
    ledger.settle(valkey)
    assert account() == (5, 5, 0)


def test_a_batch_that_was_taken_for_lost_and_comes_after_all_is_no_loss(valkey) -> None:
    one, two = sent_by(RUN, [2, 3])
    send(valkey, two)
    first = worker(valkey)
    first.step()
    ledger.settle(valkey)
    assert account() == (5, 3, 2)
    send(valkey, one)
    first.step()
    ledger.settle(valkey)
    assert account() == (5, 5, 0)


def test_a_batch_that_is_sent_twice_counts_once(valkey) -> None:
    (one,) = sent_by(RUN, [4])
    send(valkey, one, one)
    worker(valkey).step()
    ledger.settle(valkey)
    assert account() == (4, 4, 0)


def test_what_a_decider_dropped_and_what_an_old_one_sends_is_counted_as_they_say(valkey) -> None:
    send(valkey, *sent_by(RUN, [1, 1], dropped=7), batch([event()]))
    worker(valkey).step()
    (mine,) = ledger.by_node()
    assert (mine.sampled, mine.dropped, mine.stored) == (9, 7, 2)


def test_two_runs_of_a_decider_are_one_decider(valkey) -> None:
    send(valkey, *sent_by(RUN, [2]), *sent_by(NEXT_RUN, [3]))
    worker(valkey).step()
    (mine,) = ledger.by_node()
    assert (mine.sampled, mine.stored) == (5, 5)


def test_whatever_is_trimmed_and_however_workers_share_it_the_account_is_exact(valkey) -> None:
    chance = random.Random(7)
    workers = [worker(valkey, f"w{k}") for k in range(3)]
    sizes = [chance.randrange(1, 5) for _ in range(60)]
    waiting, kept = sent_by(RUN, sizes), 0
    while waiting:
        some, waiting = waiting[:7], waiting[7:]
        send(valkey, *some)
        if chance.random() < 0.4:
            valkey.xtrim(store.EVENTS_STREAM, maxlen=chance.randrange(3), approximate=False)
        if chance.random() < 0.7:
            kept += chance.choice(workers).step()
        ledger.settle(valkey)
    # the last batch of a run tells how many there were
    last = batch([event()], run=RUN, first=sum(sizes))
    send(valkey, last)
    for one in workers:
        one._claimed_at = float("-inf")
        while gained := one.step():
            kept += gained
    for one in workers:
        one._claimed_at = float("-inf")
        kept += one.step()
    ledger.settle(valkey)
    total = sum(sizes) + 1
    assert account() == (total, kept, total - kept)


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (Room.ENOUGH, {"admit", "refusal"}),
        (Room.NO_ADMITS, {"refusal"}),
        (Room.NO_DECISIONS, set()),
        (Room.NO_CHANGES, set()),
    ],
)
def test_without_disk_admits_are_not_stored_first_but_all_are_counted(valkey, room, kept) -> None:
    admit, refusal = unranked(request_id="admit"), event(request_id="refusal")
    send(valkey, batch([admit, refusal, event(tier=9)], run=RUN))
    one = worker(valkey)
    one.room = lambda: room
    assert one.step() == len(kept)
    assert set(Decision.objects.values_list("request_id", flat=True)) == kept
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(kept) FROM decisions_facet WHERE span = 0")
        assert cursor.fetchone() == (2,)
    (mine,) = ledger.by_node()
    assert (mine.sampled, mine.stored, mine.withheld, mine.buried) == (
        3,
        len(kept),
        2 - len(kept),
        1,
    )
    ledger.settle(valkey)
    assert account() == (3, len(kept), 0)
