"""What a decider's heartbeat says is wrong between it and the store."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from decider.node import store_sync
from decider.node.store_sync import StoreSync


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
