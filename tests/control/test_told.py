"""The console believes of deciders only what is sealed with a key of this installation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from control import told
from control.deciders import acks, buckets, formats
from control.deciders.acks import NodeState
from control.errors import Refused
from decider.contracts import defaults, store
from decider.contracts.config import ModelRef
from decider.contracts.sealed import codes
from decider.contracts.sealed import told as sealing
from decider.contracts.sealed.told import Kind
from decider.contracts.store import Ack
from decider.node import commands
from decider.node.commands import Answer, View
from tests.control.conftest import status
from tests.told import sealed, token_key

NONCE = "ab" * 16


@pytest.fixture(autouse=True)
def nothing_logged() -> None:
    told._logged.clear()


def put(valkey: redis.Redis, node: str, data: bytes) -> None:
    valkey.set(store.NODE_PREFIX + node, data, ex=store.NODE_TTL_S)
    valkey.zadd(store.NODES_KEY, {node: time.time()})


def an_ack(**fields) -> Ack:
    now = time.time()
    made = Ack("d01", "local", 5, True, "", now, now, 0.4, now)
    return msgspec.structs.replace(made, **fields)


def an_answer(**fields) -> Answer:
    now = time.time()
    view = View(5, 1, 10.0, 50.0, 5.0, 1.0, 9.0, 10.0, 0.5, 1.0, 2.0, 0.0, 0.0, now, now)
    return msgspec.structs.replace(Answer("d01", "local", NONCE, now, view), **fields)


MADE: dict[Kind, Callable[..., msgspec.Struct]] = {
    sealing.HEARTBEAT: lambda **fields: status("d01", **fields),
    sealing.ACK: an_ack,
    commands.ANSWER: an_answer,
}


def read(kind: Kind, data: bytes) -> tuple[object, list[told.Disbelief]]:
    """What the console reads in the place of d01, and what it does not believe."""
    reader = told.Reader()
    if kind is sealing.HEARTBEAT:
        return reader.heartbeat("d01", data, time.time()), reader.doubts
    if kind is sealing.ACK:
        return reader.ack("d01", data, 5), reader.doubts
    return reader.answer(data, NONCE), reader.doubts


@pytest.mark.parametrize("kind", list(MADE), ids=lambda kind: kind.form.__name__)
def test_what_a_decider_of_the_installation_wrote_is_believed(kind: Kind) -> None:
    made = MADE[kind]()
    assert read(kind, sealed(made)) == (made, [])
    # consoles of before read the fields and ignore the seal behind them
    assert msgspec.msgpack.decode(sealed(made), type=kind.form) == made


@pytest.mark.parametrize("kind", list(MADE), ids=lambda kind: kind.form.__name__)
def test_what_is_forged_is_not_believed_and_named(kind: Kind) -> None:
    made, key = MADE[kind](), kind.derive_key(token_key())
    good = sealed(made)
    others = [other.derive_key(token_key()) for other in MADE if other is not kind]
    forged = {
        "not sealed": msgspec.msgpack.encode(made),
        "not this fleet's": sealing.seal(made, kind.derive_key(b"x" * 32)),
        "forged": sealing.seal(made, others[0]),
        "another token.key": good[:-1] + bytes([good[-1] ^ 1]),
        "cannot be": sealing.seal(MADE[kind](region="x" * 500), key),
        "cannot be read": good[:-7],
        "more than": good + b"\x00" * kind.most,
    }
    for why, data in forged.items():
        found, doubts = read(kind, data)
        assert found is None
        assert len(doubts) == 1
        assert why in doubts[0].why


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"node": "d02"}, "it is one of d02"),
        ({"at": time.time() - 3_600.0}, "ago: its machine's clock is wrong, or an old one"),
        ({"at": time.time() + 3_600.0}, "ahead: its machine's clock is wrong"),
        ({"at": float("nan")}, "cannot be"),
        ({"latency_p99_us": float("inf")}, "cannot be"),
        ({"ml_state": 99}, "cannot be"),
        ({"last_error": "x" * 5_000}, "cannot be"),
        ({"apps": -1}, "cannot be"),
    ],
)
def test_a_heartbeat_of_another_place_time_or_range_is_not_believed(fields: dict, why: str) -> None:
    found, doubts = read(sealing.HEARTBEAT, sealed(status(**({"node": "d01"} | fields))))
    assert found is None
    assert why in doubts[0].why


def test_an_old_heartbeat_that_was_put_back_makes_no_dead_decider_live(
    valkey: redis.Redis, first
) -> None:
    old = sealed(status("d01", at=time.time() - 120.0, config_version=5))
    put(valkey, "d01", old)
    (node,) = acks.reach(5, time.time() - 60, True, time.time()).nodes
    assert (node.state, node.version) == (NodeState.UNBELIEVED, None)
    assert node.doubt.startswith("its report is not believed: it is dated 2 m")


def test_an_ack_of_another_version_or_node_is_not_believed(valkey: redis.Redis) -> None:
    put(valkey, "d01", sealed(status("d01", config_version=4)))
    place = store.ACKS_PREFIX + "5"
    for other in (an_ack(version=4), an_ack(node="d02")):
        valkey.hset(place, "d01", sealed(other))
        (node,) = acks.reach(5, time.time() - 60, True, time.time()).nodes
        assert node.state is NodeState.UNBELIEVED
    valkey.hset(place, "d01", sealed(an_ack()))
    (node,) = acks.reach(5, time.time() - 60, True, time.time()).nodes
    assert (node.state, node.doubt) == (NodeState.ACKED, "")


def test_an_answer_to_another_question_is_not_believed(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(valkey, "d01", sealed(status("d01")))
    monkeypatch.setattr(buckets.secrets, "token_hex", lambda _: NONCE)
    monkeypatch.setattr(buckets, "WAIT_S", 0.2)
    answers = [sealed(an_answer(nonce="cd" * 16)), msgspec.msgpack.encode(an_answer())]
    valkey.rpush(store.ANSWERS_PREFIX + NONCE, *answers)
    found = buckets.peek("app_1")
    assert (found.tracking, found.silent) == ((), ("d01",))
    assert [doubt.why.partition(":")[0] for doubt in found.doubts] == [
        "it is one of d01 to another question",
        "it is not sealed",
    ]


def test_an_older_decider_may_have_a_change_refused_and_allows_none(valkey: redis.Redis) -> None:
    """Its heartbeat has no seal. Nobody vouches for it, so it counts only where that is safe."""
    before = defaults.config(1)
    model = ModelRef("risk", 1, "ab" * 32, "0123456789abcdef")
    tiers = [
        msgspec.structs.replace(tier, headroom_to="all", error_budget=None) for tier in before.tiers
    ]
    old = msgspec.structs.replace(before, tiers=tiers)
    new = msgspec.structs.replace(old, model=model)
    put(valkey, "d01", msgspec.msgpack.encode(status("d01", config_format=1)))
    with pytest.raises(Refused, match=r"d01 \(reads up to format 1\)"):
        formats.check_readable(old, new, time.time())
    # what is sealed wrongly says nothing at all
    forged = sealing.seal(status("d01", config_format=1), b"x" * 32)
    put(valkey, "d01", forged)
    formats.check_readable(old, new, time.time())


def test_a_replaced_token_key_is_known_as_long_as_it_is_kept(keys: Path) -> None:
    made = status("d01")
    data, before = sealed(made), (keys / "token.key").read_text()
    (keys / "token.key").write_text("cd" * 32)
    assert read(sealing.HEARTBEAT, data)[0] is None
    (keys / "token.old").write_text(before)
    assert read(sealing.HEARTBEAT, data)[0] == made


def test_without_its_key_the_console_believes_nobody_and_says_why(keys: Path) -> None:
    data = sealed(status("d01"))
    (keys / "token.key").unlink()
    found, doubts = read(sealing.HEARTBEAT, data)
    assert found is None
    assert "it cannot be checked: token.key is missing" in doubts[0].why


def test_it_is_logged_once_per_node_and_minute(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="control.told"):
        for _ in range(5):
            read(sealing.HEARTBEAT, b"rubbish")
            told.Reader().heartbeat("d02", b"rubbish", time.time())
    assert [record.getMessage() for record in caplog.records] == [
        "the report of 'd01' is not believed: it cannot be read",
        "the report of 'd02' is not believed: it cannot be read",
    ]
    for k in range(2 * told.MOST_LOGGED):
        told._log(told.Disbelief(f"d{k}", "ack", "it"), float(k))
    assert len(told._logged) == told.MOST_LOGGED


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.just([]),
    st.just("x" * 5_000),
)


@hypothesis_settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(list(MADE)),
    rubbish=st.binary(max_size=200),
    cut=st.integers(0, 300),
    place=st.integers(0, 40),
    value=VALUES,
    way=st.sampled_from(["rubbish", "cut", "extreme", "sealed extreme"]),
)
def test_whatever_lies_there_is_read_or_named(
    kind: Kind, rubbish: bytes, cut: int, place: int, value: object, way: str
) -> None:
    made, key = MADE[kind](), kind.derive_key(token_key())
    fields: list = msgspec.to_builtins(made)
    fields[place % len(fields)] = value
    body = msgspec.msgpack.encode(fields)
    data = {
        "rubbish": rubbish,
        "cut": sealed(made)[: -1 - cut],
        "extreme": body,
        "sealed extreme": msgspec.msgpack.encode([*fields, codes.seal(body, key)]),
    }[way]
    found, doubts = read(kind, data)
    assert (found is None) == bool(doubts) or not data
    if way != "sealed extreme":
        assert found is None


def test_nobody_is_read_from_nothing() -> None:
    reader = told.Reader()
    assert reader.heartbeat("d01", None, 0.0) is None
    assert reader.ack("d01", b"", 1) is None
    assert reader.doubts == []
