"""What a decider's heartbeat says is wrong between it and the store."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from decider.contracts import store
from decider.contracts.event import EventBatch, decode_batch, encode_batch
from decider.contracts.normalise import names
from decider.http import check
from decider.node import process, store_sync
from decider.node.store_sync import StoreSync
from tests.decisions.factory import event


@pytest.fixture
def sync(monkeypatch, tmp_path) -> StoreSync:
    made = StoreSync(
        "redis://127.0.0.1:1/0",
        engine=SimpleNamespace(token_key=b"k" * 32),
        started_at=0.0,
        data=tmp_path,
    )
    made.keeper = SimpleNamespace(needs_model=lambda: False)

    async def nothing(key: str) -> None:
        return None

    monkeypatch.setattr(made.store, "get", nothing)
    return made


def test_a_bad_message_is_told_though_the_store_answers(sync, monkeypatch) -> None:
    sync._note_bad("unreadable message from the store: rubbish")
    asyncio.run(sync._poll())
    assert "rubbish" in sync.last_error
    monkeypatch.setattr(store_sync, "BAD_SHOWN_S", 0.0)
    sync._note_bad("unreadable message from the store: rubbish")
    assert sync.last_error == ""


def test_an_answer_of_the_store_ends_its_own_error(sync) -> None:
    sync._note_bad("command refused: too late")
    sync._store_error = "store: connection refused"
    assert sync.last_error == "store: connection refused"
    asyncio.run(sync._poll())
    assert sync.last_error == "command refused: too late"


class Stream:
    """Stands for the store: it keeps what is added, and how long the stream may be."""

    def __init__(self) -> None:
        self.sent: list[EventBatch] = []
        self.most: list[int] = []
        self.away = False

    async def xadd(self, name: str, fields: dict, *, maxlen: int, approximate: bool) -> None:
        self.sent.append(decode_batch(fields["b"]))
        self.most.append(maxlen)
        if self.away:
            raise ConnectionError("it arrived, and nobody says so")


class Sampler:
    """Stands for the engine, as far as it samples."""

    token_key, node, events_dropped = b"k" * 32, "d01", 0

    def __init__(self) -> None:
        self.events: list = []

    def take_events(self, most: int) -> list:
        taken, self.events = self.events[:most], self.events[most:]
        return taken


@pytest.fixture
def sending(tmp_path, monkeypatch) -> StoreSync:
    monkeypatch.setattr(store_sync, "BATCH_EVENTS", 3)
    made = StoreSync("redis://127.0.0.1:1/0", Sampler(), started_at=0.0, data=tmp_path)
    made.store = Stream()
    return made


def test_batches_number_the_events_of_a_run(sending) -> None:
    sending.engine.events = [event() for _ in range(7)]
    assert sending.events_sampled == 7
    asyncio.run(sending._flush())
    sent = sending.store.sent
    assert [(one.first, len(one.events)) for one in sent] == [(0, 3), (3, 3), (6, 1)]
    assert {len(one.run) for one in sent} == {16}
    assert len({one.run for one in sent}) == 1
    assert sending.events_sampled == sending.events_sent == 7


def test_a_batch_that_is_sent_again_has_the_same_numbers(sending) -> None:
    sending.engine.events = [event() for _ in range(4)]
    sending.store.away = True
    with pytest.raises(ConnectionError):
        asyncio.run(sending._flush())
    sending.store.away = False
    asyncio.run(sending._flush())
    assert [(one.first, len(one.events)) for one in sending.store.sent] == [(0, 3), (0, 3), (3, 1)]
    assert sending.store.sent[0] == sending.store.sent[1]


@pytest.mark.parametrize(
    "name", ["request_id", "region", "app", "tenant", "method", "endpoint", "service", "model"]
)
def test_an_event_with_a_text_too_long_to_be_stored_is_dropped_where_it_is_made(
    sending, name
) -> None:
    sending.engine.events = [event(), event(**{name: "x" * 10_000}), event()]
    asyncio.run(sending._flush())
    (one,) = sending.store.sent
    assert (len(one.events), one.dropped) == (2, 1)
    assert sending.events_sampled == 3
    assert "too long" in sending.last_error


def test_the_longest_texts_that_the_doors_let_in_are_sent(sending) -> None:
    longest = {
        "request_id": "r" * check.MAX_REQUEST_ID,
        "app": "a" * 128,
        "endpoint": "/" * max(256, names.LONGEST),
        "method": "M" * 32,
    }
    sending.engine.events = [event(**longest)]
    asyncio.run(sending._flush())
    (one,) = sending.store.sent
    assert len(one.events) == 1


def test_the_stream_is_bounded_by_bytes_as_well(sending, monkeypatch) -> None:
    monkeypatch.setattr(store_sync, "ENTRY_WEIGHT", 1.0)
    sending.engine.events = [event()]
    asyncio.run(sending._flush())
    assert sending.store.most == [store.EVENTS_MAXLEN]
    monkeypatch.setattr(store, "EVENTS_BYTES", 1_000_000)
    sending.engine.events = [event() for _ in range(3)]
    asyncio.run(sending._flush())
    size = len(encode_batch(sending.store.sent[-1]))
    assert sending.store.most[-1] == 1_000_000 // size


def test_what_could_not_be_sent_before_the_end_is_said(sending, caplog) -> None:
    sending.engine.events = [event() for _ in range(4)]
    sending._tell_unsent()
    assert "4 sampled events could not be sent before the end and are lost" in caplog.text


@pytest.mark.parametrize("name", ["", "x" * 129, "d\n01", "dé"])
def test_a_name_that_could_not_be_stored_is_refused_at_the_start(name, capsys) -> None:
    where = ["--data", "d", "--models", "m", "--keys", "k", "--valkey", "redis://x"]
    for arguments in (["--node", name], ["--node", "d01", "--region", name]):
        with pytest.raises(SystemExit):
            process.parse([*arguments, *where])
        assert "visible ASCII" in capsys.readouterr().err
