"""What a decider accepts as its config, from anywhere."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import artifact as artifacts
from decider.contracts import config as configs
from decider.contracts import defaults
from decider.contracts.config import Config, ModelRef
from decider.contracts.files import write_atomically
from decider.contracts.requests import CheckRequest
from decider.engine.engine import Engine
from decider.node import config_keeper
from tests.decider.model import small_model

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


async def nowhere(digest: str) -> bytes | None:
    return None


def made(folder: Path, fetch: config_keeper.FetchModel = nowhere) -> config_keeper.Keeper:
    engine = Engine("d01", "local", b"k" * 32, capacity=1024)
    keys = {configs.key_id(KEY.public_key()): KEY.public_key()}
    return config_keeper.Keeper(engine, keys, folder / "node", folder / "models", fetch)


def document(version: int, **changes: object) -> Config:
    return msgspec.structs.replace(defaults.config(version), **changes)


def offer(kept: config_keeper.Keeper, data: bytes, source: str) -> bool:
    """Offer a document, and wait until it is on disk and acked."""

    async def play() -> bool:
        in_force = kept.offer(data, source)
        await kept.flushed()
        return in_force

    return asyncio.run(play())


def look_at_file(kept: config_keeper.Keeper) -> None:
    async def play() -> None:
        kept.look_at_file()
        await kept.flushed()

    asyncio.run(play())


def test_a_newer_document_is_applied_and_acked_and_an_older_one_ignored(tmp_path: Path) -> None:
    kept = made(tmp_path)
    assert offer(kept, configs.sign(document(5), KEY), "push")
    assert not offer(kept, configs.sign(document(4), KEY), "poll")
    ack = kept.acks.get_nowait()
    assert (ack.version, ack.ok, ack.source, kept.version) == (5, True, "push", 5)
    assert kept.acks.empty()


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (document(3), "config 3 is not followed: a newer one is in force here, config 9."),
        (
            document(9, issued_at=7.0),
            "config 9 is not followed: another document of that version is in force here, config 9",
        ),
    ],
)
def test_a_store_that_holds_what_is_not_followed_is_told_why_once(
    tmp_path: Path, stored: Config, why: str
) -> None:
    """As after a restore of the console's database: its switches would be ignored in silence."""
    kept, data = made(tmp_path), configs.sign(stored, KEY)
    offer(kept, configs.sign(document(9), KEY), "push")
    kept.acks.get_nowait()
    # one answer to a poll may have been overtaken by a push
    assert not offer(kept, data, "poll")
    assert kept.acks.empty()
    for _ in range(3):
        assert not offer(kept, data, "poll")
    ack = kept.acks.get_nowait()
    assert (ack.version, ack.ok, kept.version) == (stored.version, False, 9)
    assert why in ack.error
    assert kept.acks.empty()
    # the console begins an epoch
    assert offer(kept, configs.sign(document(configs.next_epoch(9)), KEY), "push")
    assert kept.last_error == ""


def test_what_is_in_force_may_stay_in_the_store(tmp_path: Path) -> None:
    kept, data = made(tmp_path), configs.sign(document(9), KEY)
    offer(kept, data, "push")
    kept.acks.get_nowait()
    for _ in range(3):
        offer(kept, data, "poll")
    # an operator's file that was used up is no sign of a restore
    for _ in range(3):
        offer(kept, configs.sign(document(4), KEY), "file")
    assert kept.acks.empty()


def test_versions_of_a_new_epoch_are_above_all_of_the_one_before() -> None:
    assert configs.next_epoch(9) == 2**32 + 1
    assert configs.next_epoch(2**32 + 77) == 2 * 2**32 + 1
    assert [configs.version_text(v) for v in (9, 2**32 + 3, 2 * 2**32 + 1)] == ["9", "1.3", "2.1"]


def test_the_ack_says_when_the_last_decision_under_the_old_state_was_made(tmp_path: Path) -> None:
    kept = made(tmp_path)
    offer(kept, configs.sign(document(1), KEY), "push")
    kept.acks.get_nowait()
    kept.engine.decide([CheckRequest("app_1", "GET", "/")], 1_790_000_000.0)
    offer(kept, configs.sign(document(2), KEY), "push")
    assert kept.acks.get_nowait().last_old_decision_at == 1_790_000_000.0


def signed(plain: dict[str, object]) -> bytes:
    payload = msgspec.msgpack.encode(plain)
    return msgspec.msgpack.encode(
        configs.Signed(payload, KEY.sign(payload), configs.key_id(KEY.public_key()))
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (configs.sign(defaults.config(9), OTHER), "unknown key"),
        (
            signed(msgspec.to_builtins(defaults.config(9)) | {"format": 99}),
            f"written in format 99; this version of Sluice reads formats 1 to {configs.FORMAT}",
        ),
        (b"rubbish", "not a signed config document"),
        (
            msgspec.msgpack.encode(
                configs.Signed(b"x", b"y" * 64, configs.key_id(KEY.public_key()))
            ),
            "signature does not match",
        ),
    ],
    ids=["unknown key", "later format", "rubbish", "wrong signature"],
)
def test_a_bad_document_is_refused_with_its_reason_once_and_the_last_good_one_stays(
    tmp_path: Path, data: bytes, says: str
) -> None:
    kept = made(tmp_path)
    offer(kept, configs.sign(document(3), KEY), "push")
    kept.acks.get_nowait()
    assert not offer(kept, data, "push")
    assert not offer(kept, data, "poll")
    ack = kept.acks.get_nowait()
    assert (ack.ok, kept.version) == (False, 3)
    assert says in ack.error
    assert kept.acks.empty()


def test_a_document_with_one_bit_changed_is_refused(tmp_path: Path) -> None:
    kept, signed = made(tmp_path), bytearray(configs.sign(document(3), KEY))
    signed[len(signed) // 2] ^= 1
    assert not offer(kept, bytes(signed), "push")
    assert kept.version == 0


def test_the_last_good_document_is_there_at_the_next_start(tmp_path: Path) -> None:
    offer(made(tmp_path), configs.sign(document(7), KEY), "push")
    again = made(tmp_path)
    again.start_from_disk()
    assert again.version == 7


def test_a_spoilt_last_good_document_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "config.bin").write_bytes(b"\x00" * 50)
    kept = made(tmp_path)
    kept.start_from_disk()
    assert kept.version == 0
    assert "refused" in kept.last_error


def test_a_file_on_the_node_is_applied_when_it_appears(tmp_path: Path) -> None:
    kept = made(tmp_path)
    look_at_file(kept)
    write_atomically(
        tmp_path / "node" / "switch.bin",
        configs.sign(document(4, switches=[configs.Switch("all_ml")]), KEY),
    )
    look_at_file(kept)
    assert kept.version == 4
    assert kept.acks.get_nowait().source == "file"


def test_a_document_is_in_force_at_once_and_acked_when_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes its time holds up the ack, and no decision."""
    may_flush, write = threading.Event(), config_keeper.write_atomically

    def slowly(path: Path, data: bytes) -> None:
        assert may_flush.wait(30)
        write(path, data)

    monkeypatch.setattr(config_keeper, "write_atomically", slowly)

    async def play() -> None:
        kept = made(tmp_path)
        for version in (1, 2, 3):
            kept.offer(configs.sign(document(version), KEY), "push")
            await asyncio.sleep(0)  # the loop goes on while the disk is flushed
        assert (kept.version, kept.acks.qsize()) == (3, 0)
        may_flush.set()
        await kept.flushed()
        assert [kept.acks.get_nowait().version for _ in range(kept.acks.qsize())] == [1, 2, 3]
        again = made(tmp_path)
        again.start_from_disk()
        assert again.version == 3

    asyncio.run(play())


def test_a_disk_that_is_full_is_said_and_the_document_is_in_force_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config_keeper, "write_atomically", full)
    kept = made(tmp_path)
    assert offer(kept, configs.sign(document(2), KEY), "push")
    assert kept.version == 2
    assert kept.acks.get_nowait().ok
    assert "No space left" in kept.last_error


def test_a_model_is_loaded_beside_the_running_one_and_kept_on_disk(tmp_path: Path) -> None:
    model = small_model()
    data = artifacts.encode(model.artifact)

    async def fetch(digest: str) -> bytes | None:
        return data if digest == model.digest else None

    async def play() -> config_keeper.Keeper:
        kept = made(tmp_path, fetch)
        kept.offer(configs.sign(document(1, model=ModelRef("test", 1, model.digest)), KEY), "push")
        assert kept.needs_model()
        while kept.needs_model():
            await asyncio.sleep(0.01)
        return kept

    kept = asyncio.run(asyncio.wait_for(play(), 30))
    assert kept.engine.model is not None
    assert (tmp_path / "models" / model.digest).read_bytes() == data


def test_a_model_that_is_nowhere_or_spoilt_leaves_the_fallback_in_charge_and_says_so(
    tmp_path: Path,
) -> None:
    async def play(fetch: config_keeper.FetchModel) -> config_keeper.Keeper:
        kept = made(tmp_path, fetch)
        kept.offer(configs.sign(document(1, model=ModelRef("test", 1, "a" * 64)), KEY), "push")
        while not kept.model_error:
            await asyncio.sleep(0.01)
        return kept

    async def spoilt(digest: str) -> bytes | None:
        return b"not a model"

    for fetch, says in ((nowhere, "neither this node nor the store"), (spoilt, "digest")):
        kept = asyncio.run(asyncio.wait_for(play(fetch), 30))
        assert says in kept.model_error
        assert kept.engine.model is None
        assert kept.engine.ml_state(0.0).name == "NO_MODEL"
