"""Every event of the stream is stored once, whatever dies in between."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest
import redis
from django.db import OperationalError

from decider.contracts import store
from decider.contracts.event import encode_batch, encode_event
from decisions.models import BuriedEvent, Decision, IngestedBatch
from decisions.store import worker as ingest_worker
from decisions.store.worker import Worker
from tests.decisions.factory import batch, event, unranked

pytestmark = pytest.mark.django_db(transaction=True)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def send(valkey: redis.Redis, *batches) -> None:
    for one in batches:
        valkey.xadd(
            store.EVENTS_STREAM, {"b": one if isinstance(one, bytes) else encode_batch(one)}
        )


def worker(valkey: redis.Redis, name: str = "w1") -> Worker:
    one = Worker(valkey, name, claim_idle_ms=0, block_ms=5)
    one.join()
    return one


def test_an_event_is_stored_as_it_was_sent(valkey) -> None:
    sent = [
        event(risk=None),
        unranked(),
        event(request_id="ünï\u2028<b>", payload_bytes=2**40, retry_after=0.1 + 0.2),
    ]
    send(valkey, batch(sent, dropped=3))
    assert worker(valkey).step() == 3
    for one in sent:
        stored = Decision.objects.get(id=one.id.hex()).event()
        assert stored.at == pytest.approx(one.at, abs=1e-6)
        stored.at = one.at
        assert stored == one
    taken = IngestedBatch.objects.get()
    assert (taken.rows, taken.dropped, taken.node) == (3, 3, "d01")


def test_a_worker_killed_between_copy_and_commit_leaves_nothing_and_loses_nothing(
    valkey, monkeypatch
) -> None:
    send(valkey, batch([event(), event()]))
    copy = ingest_worker.copy_events

    def copy_and_die(*arguments) -> None:
        copy(*arguments)
        raise Killed

    monkeypatch.setattr(ingest_worker, "copy_events", copy_and_die)
    with pytest.raises(Killed):
        worker(valkey).step()
    monkeypatch.undo()
    assert Decision.objects.count() == 0
    assert worker(valkey, "w2").step() == 2
    assert Decision.objects.count() == 2


def test_a_worker_killed_after_commit_and_before_its_acknowledgement_doubles_nothing(
    valkey, monkeypatch
) -> None:
    send(valkey, batch([event(), event()]))
    first = worker(valkey)

    def die(*arguments) -> None:
        raise Killed

    monkeypatch.setattr(first.client, "xack", die)
    with pytest.raises(Killed):
        first.step()
    monkeypatch.undo()
    second = worker(valkey, "w2")
    assert second.step() == 0
    assert Decision.objects.count() == 2
    assert ingest_worker.waiting(valkey) == 0


def test_a_batch_sent_twice_is_stored_once(valkey) -> None:
    one = batch([event()])
    send(valkey, one, one)
    first = worker(valkey)
    assert first.step() == 1
    send(valkey, one)
    assert first.step() == 0
    assert Decision.objects.count() == 1


def test_two_workers_share_the_stream_and_store_every_event_once(valkey) -> None:
    for _ in range(40):
        send(valkey, batch([event(), unranked()]))
    workers = [
        Worker(
            redis.Redis(connection_pool=valkey.connection_pool),
            f"w{k}",
            claim_idle_ms=0,
            block_ms=5,
        )
        for k in range(2)
    ]
    workers[0].join()
    stop = threading.Event()
    threads = [threading.Thread(target=run_closed, args=(w, stop)) for w in workers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while Decision.objects.count() < 80 and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert Decision.objects.count() == 80
    assert IngestedBatch.objects.count() == 40


def run_closed(one: Worker, stop: threading.Event) -> None:
    one.run(stop)
    ingest_worker.connection.close()


BAD_ROWS = {
    "NUL in a text": {"endpoint": "/v2/\x00"},
    "a tier that does not exist": {"tier": 9},
    "a number too large for its column": {"reason": 70_000},
    "a probability above one": {"inclusion_probability": 1.5},
    "a probability that is not a number": {"inclusion_probability": float("nan")},
    "a time that is not a number": {"at": float("nan")},
    "an endless time": {"at": float("inf")},
    "a time before time": {"at": -5.0},
    "an id of the wrong size": {"id": b"short"},
    "a risk above one": {"risk": 1.01},
    "a reason that no version has": {"reason": 9999},
    "a stage that does not exist": {"stage": 6},
    "an action that does not exist": {"action": 5},
    "an endless wait": {"retry_after": float("inf")},
    "a wait that is not a number": {"retry_after": float("nan")},
    "an endless score": {"raw_risk": float("-inf")},
    "a decision before its request": {"latency_us": -1.0},
}


@pytest.mark.parametrize("fields", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_event_is_buried_with_its_reason_and_all_others_are_stored(valkey, fields) -> None:
    bad = event()
    for name, value in fields.items():
        setattr(bad, name, value)
    send(valkey, batch([event()]), batch([event(), bad]), batch([event(), event()]))
    one = worker(valkey)
    assert one.step() == 4
    assert Decision.objects.count() == 4
    letter = BuriedEvent.objects.get()
    assert one.buried == 1
    assert letter.reason
    assert not letter.whole
    assert bytes(letter.raw) == encode_event(bad)
    assert ingest_worker.waiting(valkey) == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02\x03",
        b"\x95" + b"\x91" * 100_000,
        msgspec.msgpack.encode(["a"] * 5),
    ],
)
def test_bytes_that_are_no_batch_are_buried(valkey, raw) -> None:
    send(valkey, raw, batch([event()]))
    assert worker(valkey).step() == 1
    letter = BuriedEvent.objects.get()
    assert (letter.whole, bytes(letter.raw)) == (True, raw)
    assert ingest_worker.waiting(valkey) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"id": b"x"},
        {"sent_at": float("nan")},
        {"dropped": 2**63},
        {"node": "a\x00"},
        {"node": "a" * 129},
        {"run": b"x"},
        {"first": -1},
    ],
)
def test_a_batch_whose_own_fields_cannot_be_stored_is_buried(valkey, fields) -> None:
    send(valkey, batch([event()], **fields), batch([event()]))
    assert worker(valkey).step() == 1
    assert BuriedEvent.objects.get().whole


def test_an_event_id_that_is_stored_already_buries_only_its_event(valkey) -> None:
    one = event()
    send(valkey, batch([one]), batch([one, event()]), batch([event()]))
    assert worker(valkey).step() == 3
    letter = BuriedEvent.objects.get()
    assert letter.sqlstate == "23505"
    assert letter.reason.startswith("A decision with this id is stored already")


def test_with_postgresql_away_nothing_is_acknowledged_and_all_is_stored_when_it_is_back(
    valkey, monkeypatch
) -> None:
    send(valkey, batch([event()]))
    stop, waits, copy = threading.Event(), [], ingest_worker.copy_events

    def away(*arguments) -> None:
        raise OperationalError("the server is away")

    def wait(seconds: float) -> None:
        waits.append(seconds)
        assert ingest_worker.waiting(valkey) == 1
        if len(waits) == 3:
            monkeypatch.setattr(ingest_worker, "copy_events", copy)
            threading.Timer(0.3, stop.set).start()

    monkeypatch.setattr(ingest_worker, "copy_events", away)
    worker(valkey).run(stop, wait)
    assert waits[:3] == sorted(waits[:3])
    assert Decision.objects.count() == 1
    assert ingest_worker.waiting(valkey) == 0


def test_a_valkey_that_forgot_the_group_gets_it_again(valkey) -> None:
    one = worker(valkey)
    valkey.flushdb()
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    threading.Timer(0.1, send, (valkey, batch([event()]))).start()
    one.run(stop)
    assert Decision.objects.count() == 1


def test_the_status_says_how_far_ingest_is(valkey) -> None:
    send(valkey, batch([event(at=time.time() - 5)]))
    worker(valkey).step()
    status = msgspec.msgpack.decode(valkey.get(store.INGEST_STATUS_KEY), type=store.IngestStatus)
    assert status.rows == 1
    assert status.pending == 0
    assert 4 < status.lag_s < 20


def test_a_worker_that_owes_nothing_leaves_the_group(valkey) -> None:
    send(valkey, batch([event()]))
    one = worker(valkey)
    one.step()
    one.leave()
    assert valkey.xinfo_consumers(store.EVENTS_STREAM, store.EVENTS_GROUP) == []
