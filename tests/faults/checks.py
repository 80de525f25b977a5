"""Breaks a part of an installation during traffic, and checks what must hold then and after."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from console.local.programs import DECIDERS
from decider.contracts import artifact, store
from decider.contracts import config as configs
from decider.contracts.files import write_atomically
from decider.contracts.vocabulary import MlState, Stage
from tests.faults import broken_models, operator, small_disk
from tests.faults.client import THREADS, Fate, Request, share
from tests.faults.installation import Account, Installation
from tests.faults.rows import UNKNOWN_TOKEN, Fault, Row
from tests.gateway.running import until

# Seconds within which a decision is stored. Chosen: several times what it takes.
STORED_WITHIN_S = 5.0
# Seconds that a fault goes on at least once the console has said what it must. Chosen: some dozens
# of requests are decided meanwhile.
LEAST_S = 1.0


class Before(NamedTuple):
    """What there was before a fault."""

    log_end: int
    account: Account


@contextmanager
def broken(it: Installation, row: Row) -> Iterator[None]:
    """Break the part, and mend it whatever happens in the body."""
    wires = it.wires.touching(row.part)
    match row.fault:
        case Fault.KILLED:
            it.kill(row.part)
            yield
        case Fault.HALTED:
            halted = it.halt(row.part)
            assert halted
            try:
                yield
            finally:
                it.go_on(halted)
        case Fault.SILENT | Fault.CUT:
            assert wires
            (it.wires.freeze if row.fault is Fault.SILENT else it.wires.cut)(*wires)
            try:
                yield
            finally:
                it.wires.mend(*wires)
        case Fault.AHEAD | Fault.BEHIND:
            steps = getattr(it.node(row.part), "clock_steps", 0)
            it.step_clock(row.part, 3600.0 if row.fault is Fault.AHEAD else -3600.0)
            try:
                yield
            finally:
                it.step_clock(row.part, 0.0)
            until(lambda: getattr(it.node(row.part), "clock_steps", 0) >= steps + 2, "both steps")
        case Fault.MISSING | Fault.NAN:
            with changed(it, operator.use_model(put_model(it, row.fault))):
                yield
        case Fault.FORGED | Fault.MALFORMED:
            with published(it, bad_document(it, row.fault)):
                yield
        case Fault.FULL:
            with small_disk.full(it.var):
                yield


@contextmanager
def changed(it: Installation, text: str) -> Iterator[int]:
    """Make a change, and take it back afterwards. Yield its version."""
    before = it.document().version
    version = int(it.do(text))
    try:
        yield version
    finally:
        it.do(operator.go_back(before))


def put_model(it: Installation, fault: Fault) -> str:
    """Return the digest of a model that cannot be used: there is none, or it gives no numbers."""
    if fault is Fault.MISSING:
        return "0" * 64
    data = broken_models.without_numbers()
    digest = artifact.digest_of(data)
    write_atomically(it.var / "models" / digest, data)
    return digest


def bad_document(it: Installation, fault: Fault) -> bytes:
    """Return a document that no decider may follow, newer than the one in force."""
    newer = msgspec.structs.replace(it.document(), version=it.document().version + 1)
    if fault is Fault.FORGED:
        return configs.sign(newer, Ed25519PrivateKey.generate())
    key = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex((it.var / "keys" / "config.key").read_text())
    )
    payload = msgspec.msgpack.encode({**msgspec.to_builtins(newer), "unheard_of": 1})
    signed = configs.Signed(payload, key.sign(payload), configs.key_id(key.public_key()))
    return msgspec.msgpack.encode(signed)


@contextmanager
def published(it: Installation, data: bytes) -> Iterator[None]:
    """Put a bad document into the store as by hand, and the worker, which would put the good one
    back, to sleep; afterwards it does.
    """
    good = it.document()
    halted = it.halt("worker")
    try:
        it.store.set(store.CONFIG_KEY, data)
        it.store.publish(store.CONFIG_CHANNEL, data)
        yield
        for name in DECIDERS:
            status = it.node(name)
            assert status is not None and status.config_version == good.version
            assert "refused" in status.last_error
    finally:
        it.go_on(halted)
    until(lambda: it.store.get(store.CONFIG_KEY) != data, "the good document", 30)
    assert it.document() == good


def check_meanwhile(row: Row, requests: list[Request]) -> None:
    """Assert that decisions go on while the fault lasts."""
    # a thread of the client sends nothing while it waits for a response
    assert len(requests) >= THREADS, "the client stood still"
    assert share(requests, row.fate) >= row.share
    if row.fate is not Fate.FAILED:
        assert share(requests, Fate.FAILED) == 0.0


def check_recovery(it: Installation) -> None:
    """Assert that all parts do their work again."""

    def decides() -> bool:
        last = it.client.sent(time.monotonic() - 1.5)
        return len(last) > 20 and share(last) >= 0.95

    def stores() -> bool:
        last = it.client.sent(time.monotonic() - STORED_WITHIN_S)
        return not set(it.stored()).isdisjoint({one.decision for one in last if one.decision})

    at = time.time()
    until(decides, "decisions as before", 30)
    until(lambda: it.api_status() == UNKNOWN_TOKEN, "the console", 30)
    until(lambda: it.silent(at) == [], "reports of all parts", 30)
    check_configs(it)
    until(stores, "new decisions in the database", 30)
    scheduled = it.scheduled()
    until(lambda: it.scheduled() > scheduled, "the scheduler", 30)
    until(lambda: it.waiting_tasks() <= 1, "the worker", 60)


def check_configs(it: Installation) -> None:
    """Assert that deciders and gateway follow the newest document."""
    version = it.document().version
    for part in ("gateway", *DECIDERS):
        until(lambda part=part: it.version_of(part) == version, f"the newest config at {part}", 30)


def check_counts(
    it: Installation, row: Row, requests: list[Request], at: float, before: Before
) -> None:
    """Assert that every request and every decision since the begin is accounted for."""
    found = {fate: [one for one in requests if one.fate is fate] for fate in Fate}
    assert found[Fate.UNMARKED] == []
    check_log(it, row, found, before.log_end)
    check_stored(it, row, found[Fate.DECIDED], at, before.account)


def check_log(it: Installation, row: Row, found: dict[Fate, list[Request]], log_from: int) -> None:
    """Assert that the gateway logged each request: decided, or unanswered."""
    # what Envoy had not written yet ends with it, and what finds no room is not written
    if row.fault is Fault.FULL or (row.part, row.fault) == ("envoy", Fault.KILLED):
        return
    answered = len(found[Fate.DECIDED]) + len(found[Fate.UNANSWERED])
    until(lambda: len(it.logged(log_from)) >= answered, "the gateway's log")
    lines = it.logged(log_from)
    decided = [line["decision"] for line in lines if line.get("decision")]
    unanswered = [line for line in lines if line.get("unasked") == "true"]
    # a request whose client gave up is logged, too
    assert len(lines) <= answered + len(found[Fate.FAILED])
    assert len(set(decided)) == len(decided)
    assert {one.decision.hex() for one in found[Fate.DECIDED]} <= {
        text.removeprefix("dec_") for text in decided
    }
    assert len(unanswered) >= len(found[Fate.UNANSWERED])
    if not found[Fate.FAILED]:
        assert len(decided) + len(unanswered) == len(lines) == answered


def check_stored(
    it: Installation, row: Row, decided: list[Request], at: float, before: Account
) -> None:
    """Assert that each decision was stored once, or withheld and counted where the disk was full;
    of a decider that was killed, all but those of its last batch.
    """
    sent = {one.decision: one.at for one in decided}

    def missing() -> set[bytes]:
        stored = it.stored()
        assert len(stored) == len(set(stored)), "a decision was stored twice"
        # a decider sends every 0.2 s, and waits for the store before it sends on
        lost_with_it = row.fault is Fault.KILLED and row.part in DECIDERS
        return {
            one
            for one in sent.keys() - set(stored)
            if not (lost_with_it and at - 0.6 < sent[one] < at + 0.1)
        }

    def withheld() -> int:
        return it.account().withheld - before.withheld

    until(lambda: len(missing()) <= withheld(), "all decisions in the database", 60)
    until(lambda: it.account().adds_up, "an account of all that was sampled", 30)
    assert row.fault is Fault.FULL or withheld() == 0
    after = it.account()
    assert (after.dropped, after.buried, after.discarded, after.lost) == (0, 0, 0, 0)


def check_fallback(it: Installation, requests: list[Request]) -> None:
    """Assert that the fallback limiter decided where the model would have been asked."""
    states = it.states({one.decision for one in requests})
    assert (Stage.FALLBACK, MlState.LIVE) not in states
    assert any(stage == Stage.FALLBACK for stage, _ in states)
    assert not any(stage in {Stage.RANK, Stage.RERANK} for stage, _ in states)


def play(it: Installation, row: Row) -> None:
    """Break a part during traffic, and assert all that must hold."""
    before, began = Before(it.log_end(), it.account()), time.monotonic()
    it.client.resume()
    try:
        time.sleep(1.0)
        with broken(it, row):
            at = time.monotonic()
            if row.console is not None:
                assert it.api_status() == row.console
            if row.home:
                until(lambda: row.home in it.home(), f"“{row.home}” on the home page", 20)
            said = time.monotonic()
            time.sleep(max(LEAST_S, at + row.lasts_s - said))
            ended = time.monotonic()
        check_recovery(it)
    finally:
        it.client.pause()
        # Envoy writes its log every half second
        time.sleep(0.7)
    # requests are judged by when they were sent, those included that ended later
    check_meanwhile(row, it.client.sent(at + row.from_s, ended))
    check_counts(it, row, it.client.sent(began), at, before)
    if row.part == "model":
        check_fallback(it, it.client.sent(said, ended))
