"""An event that the database cannot hold costs only itself, and a person replays or discards it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

import psycopg.errors
import pytest
from django.db import OperationalError, connection, transaction

from control.audit.actors import Actor
from control.errors import Refused
from control.models import AuditEntry
from decider.contracts.event import encode_event
from decisions.counts import append
from decisions.models import BuriedEvent, DeciderRun, Decision, IngestedBatch
from decisions.models import ingest as ingest_models
from decisions.store import buried, copy_format, faults, rows, unpack
from decisions.store import worker as ingest_worker
from tests.decisions.factory import batch, event, id_at
from tests.decisions.test_ingest import send, worker

pytestmark = pytest.mark.django_db(transaction=True)
DELE = Actor("Dele Okafor", "dele@example.org", "SRE")
RUN = id_at(1.7e9)
"""The run of a decider."""
NOISE = secrets.token_hex(20_000)
"""A text that no compression makes short enough for an index."""


@pytest.mark.parametrize("name", ["app", "request_id", "endpoint", "service", "method", "tenant"])
def test_a_text_too_long_for_the_database_costs_its_event_and_none_of_ten_batches(
    valkey, name
) -> None:
    bad = event(**{name: NOISE})
    send(valkey, *(batch([event()]) for _ in range(5)), batch([event(), bad, event()]))
    send(valkey, *(batch([event()]) for _ in range(5)))
    one = worker(valkey)
    assert one.step() == 12
    assert ingest_worker.waiting(valkey) == 0
    assert name in BuriedEvent.objects.get().reason


def test_what_postgresql_itself_refuses_is_found_by_halving() -> None:
    bad = [event(app=NOISE), event(endpoint=NOISE)]
    good = [event() for _ in range(9)]
    mixed = [*good[:3], bad[0], *good[3:8], bad[1], good[8]]
    counts = append.Counts()
    with transaction.atomic():
        failed = rows.copy_sparing(mixed, copy_format.Texts(), counts)
    assert [e for e, _ in failed] == bad
    assert {faults.sqlstate(error) for _, error in failed} == {"54000"}
    assert Decision.objects.count() == 9
    # what was counted is what was stored
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(kept) FROM decisions_facet WHERE span = 0")
        assert cursor.fetchone() == (9,)


def test_keys_of_a_piece_that_was_rolled_back_are_not_remembered() -> None:
    counts, fresh = append.Counts(), event(endpoint="/v2/new", token_digest="ab" * 16)
    with transaction.atomic():
        rows.copy_sparing([fresh, fresh], copy_format.Texts(), counts)
    counts.settle()
    after = event(endpoint="/v2/new", token_digest="ab" * 16)
    with transaction.atomic():
        rows.copy_events([after], copy_format.Texts(), counts)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(kept) FROM decisions_facet JOIN decisions_facetkey k ON k.id = key"
            " WHERE endpoint = '/v2/new'"
        )
        assert cursor.fetchone() == (2,)
        cursor.execute("SELECT count(*) FROM decisions_tokenday")
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize(
    "cause",
    [
        psycopg.errors.DiskFull,
        psycopg.errors.AdminShutdown,
        psycopg.errors.QueryCanceled,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.InternalError_,
    ],
)
def test_a_fault_of_the_server_buries_nothing_and_is_tried_again(
    valkey, monkeypatch, cause
) -> None:
    send(valkey, batch([event()]), batch([event()]))
    stop, waits, copy = threading.Event(), [], ingest_worker.copy_events

    def at_fault(*_: object) -> None:
        with connection.wrap_database_errors:
            raise cause("not today")

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            monkeypatch.setattr(ingest_worker, "copy_events", copy)
            threading.Timer(0.3, stop.set).start()

    monkeypatch.setattr(ingest_worker, "copy_events", at_fault)
    worker(valkey).run(stop, wait)
    assert Decision.objects.count() == 2
    assert not BuriedEvent.objects.exists()
    assert ingest_worker.waiting(valkey) == 0


def test_a_batch_that_comes_again_is_buried_once(valkey) -> None:
    twice = batch([event(), event(tier=9)])
    send(valkey, twice, b"rubbish")
    first = worker(valkey)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first.client, "xack", die)
        with pytest.raises(Killed):
            first.step()
    assert worker(valkey, "w2").step() == 0
    assert BuriedEvent.objects.filter(whole=False).count() == 1
    assert BuriedEvent.objects.filter(whole=True).count() == 1
    assert ingest_worker.waiting(valkey) == 0


def test_a_field_is_named_in_the_reason() -> None:
    with pytest.raises(unpack.UnreadableError, match="tier"):
        unpack.read_event(encode_event(event(tier=9)))


def test_a_flood_of_bad_events_is_counted_and_takes_bounded_room(valkey, monkeypatch) -> None:
    monkeypatch.setattr(buried, "MOST_KEPT", 3)
    bad = [event(tier=9) for _ in range(5)]
    send(valkey, batch([event(), *bad], run=RUN), b"rubbish")
    worker(valkey).step()
    assert BuriedEvent.objects.count() == 3
    run = DeciderRun.objects.get()
    # the third is the batch that nobody can read
    assert (run.sent, run.stored, run.buried, run.discarded) == (6, 1, 2, 3)


def test_of_a_giant_only_the_beginning_is_kept(valkey, monkeypatch) -> None:
    monkeypatch.setattr(ingest_models, "MOST_RAW", 100)
    monkeypatch.setattr(buried, "MOST_RAW", 100)
    send(valkey, b"x" * 1_000)
    worker(valkey).step()
    row = BuriedEvent.objects.get()
    assert (len(row.raw), row.size, row.is_cut) == (100, 1_000, True)
    with pytest.raises(Refused, match="Only 100 of its 1,000 bytes were kept"):
        buried.replay([row.pk], by=DELE, reason="OPS-1")


# ---- people ----


@pytest.fixture
def bury(valkey) -> Callable[..., list[int]]:
    """Has these events sent beside a good one and returns the numbers of what was buried."""

    def make(*bad, first: int = 0) -> list[int]:
        send(valkey, batch([event(), *bad], run=RUN, first=first))
        worker(valkey).step()
        return list(BuriedEvent.objects.order_by("pk").values_list("pk", flat=True))

    return make


def readable(number: int, one) -> None:
    """Stands for an update with which the event can be stored."""
    raw = encode_event(one)
    BuriedEvent.objects.filter(pk=number).update(raw=raw, size=len(raw))


def test_a_replayed_event_is_stored_and_audited_with_its_reason(bury) -> None:
    (number,) = bury(event(tier=9))
    mended = event()
    readable(number, mended)
    done = buried.replay([number], by=DELE, reason="OPS-1: the new version reads it")
    assert done == buried.ReplayDone(1, 0)
    assert Decision.objects.filter(id=mended.id.hex()).exists()
    assert not BuriedEvent.objects.exists()
    run = DeciderRun.objects.get()
    assert (run.sent, run.stored, run.buried, run.discarded) == (2, 2, 0, 0)
    entry = AuditEntry.objects.get(action="buried.replay")
    assert entry.reason == "OPS-1: the new version reads it"
    assert entry.before["events"] == [number]
    assert entry.before["nodes"] == ["d01"]


def test_a_replay_stores_what_can_be_stored_and_keeps_the_rest(bury) -> None:
    numbers = bury(event(tier=9), event(tier=9))
    readable(numbers[0], event())
    assert buried.replay(numbers, by=DELE, reason="OPS-1") == buried.ReplayDone(1, 1)
    assert [row.pk for row in BuriedEvent.objects.all()] == numbers[1:]


def test_a_replay_that_stores_nothing_is_refused_and_leaves_all_as_it_was(bury) -> None:
    numbers = bury(event(tier=9))
    with pytest.raises(Refused, match=r"None of them can be stored yet\. .*tier"):
        buried.replay(numbers, by=DELE, reason="OPS-1")
    assert BuriedEvent.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_a_replay_of_what_is_stored_already_is_refused(bury) -> None:
    one = event()
    (number,) = bury(one, one)
    with pytest.raises(Refused, match="stored already"):
        buried.replay([number], by=DELE, reason="OPS-1")


def test_a_replayed_batch_leaves_what_still_cannot_be_stored(valkey) -> None:
    whole = batch([event(), event(tier=9)], run=RUN)
    BuriedEvent.objects.create(
        whole=True,
        entry="1-0",
        node="d01",
        raw=b"",
        size=0,
        sqlstate="",
        reason="These bytes are no batch",
    )
    row = BuriedEvent.objects.get()
    raw = ingest_worker.events.encode_batch(whole)
    BuriedEvent.objects.update(raw=raw, size=len(raw))
    assert buried.replay([row.pk], by=DELE, reason="OPS-1") == buried.ReplayDone(1, 1)
    left = BuriedEvent.objects.get()
    assert not left.whole
    assert "tier" in left.reason


def test_discarded_events_are_gone_counted_and_audited(bury) -> None:
    numbers = bury(event(tier=9), event(stage=9))
    assert buried.discard(numbers, by=DELE, reason="OPS-2: rubbish of a test") == 2
    assert not BuriedEvent.objects.exists()
    run = DeciderRun.objects.get()
    assert (run.sent, run.stored, run.buried, run.discarded) == (3, 1, 0, 2)
    assert AuditEntry.objects.get().action == "buried.discard"


@pytest.mark.parametrize("verb", [buried.replay, buried.discard])
def test_what_somebody_else_dealt_with_a_blank_reason_and_too_many_are_refused(bury, verb) -> None:
    (number,) = bury(event(tier=9))
    for numbers, reason, why in (
        ([number, number + 1], "OPS-1", "in the meantime"),
        ([number], "  ", "reason"),
        ([], "OPS-1", "at least one"),
        (range(1, 300), "OPS-1", "At most 200"),
    ):
        with pytest.raises(Refused, match=why):
            verb(numbers, by=DELE, reason=reason)
    assert BuriedEvent.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_what_nobody_dealt_with_is_discarded_with_its_day(bury) -> None:
    bury(event(tier=9))
    assert buried.drop(30) == 0
    with connection.cursor() as cursor:
        cursor.execute("UPDATE decisions_buriedevent SET buried_at = now() - interval '31 days'")
    assert buried.drop(30) == 1
    assert DeciderRun.objects.get().discarded == 1
    assert IngestedBatch.objects.count() == 1


def test_an_error_without_a_code_of_the_server_is_not_the_datas() -> None:
    assert not faults.is_of_data(OperationalError("the connection is lost"))
