"""Texts are hashed under the fleet's key: alike in all its processes, and not to be foretold."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from decider.contracts import config, defaults
from decider.contracts.requests import CheckRequest
from decider.engine import text_hash
from decider.engine.engine import Engine
from decider.engine.text_hash import TextHash

KEY, OTHER = TextHash(b"k" * 32), TextHash(b"j" * 32)
NOW = 1_790_000_000.0


def python(*arguments: str, seed: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONHASHSEED": seed},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="compares with CPython's own")
def test_it_is_siphash_1_3() -> None:
    """CPython hashes bytes with SipHash-1-3, under a key of zeros when the seed is 0."""
    texts = ["a" * n for n in range(1, 70)] + ["ä€😀", "/v2/orders/123", "\x01" * 300]
    code = "import ast, sys; print([hash(t.encode()) for t in ast.literal_eval(sys.argv[1])])"
    wanted = python("-c", code, ascii(texts), seed="0")
    ours = TextHash(b"any")
    ours.key = np.zeros(2, np.uint64)
    assert str(ours.many(texts).tolist()) == wanted.strip()


@pytest.mark.parts
def test_processes_with_one_key_have_the_same_tables_and_decisions() -> None:
    script = "tests.decider.text_hash_layout"
    found = {python("-m", script, "k" * 32, seed=seed) for seed in ("1", "2", "random")}
    assert len(found) == 1
    assert python("-m", script, "j" * 32, seed="1").split()[0] != found.pop().split()[0]


@given(st.lists(st.text(), max_size=20))
def test_a_text_hashes_alike_alone_and_among_others(texts: list[str]) -> None:
    assert KEY.many(texts).tolist() == [KEY.one(text) for text in texts]


@given(st.text(), st.text())
def test_different_texts_have_different_hashes(one: str, other: str) -> None:
    assert (KEY.one(one) == KEY.one(other)) == (one == other)


def test_no_text_is_zero_and_another_key_gives_other_hashes() -> None:
    texts = [f"app_{k}" for k in range(1_000)]
    assert KEY.one("") == OTHER.one("") == 0
    assert not (KEY.many(texts) == OTHER.many(texts)).any()
    assert (KEY.many(texts) == TextHash(b"k" * 32).many(texts)).all()


def test_texts_that_meet_under_one_key_meet_under_another_by_chance_only() -> None:
    """An attacker looks, under a key of his own, for app ids that share a row of a table."""
    rows, count = 1 << 10, 200_000
    source = random.Random(1)
    texts = [f"app_{source.getrandbits(60):x}" for _ in range(count)]
    mine, theirs = OTHER.many(texts) & (rows - 1), KEY.many(texts) & (rows - 1)
    chosen = theirs[mine == mine[0]]
    assert len(chosen) > 100
    expected = len(chosen) / rows
    assert np.bincount(chosen, minlength=rows).max() <= expected + 6 * max(1.0, expected**0.5)


@pytest.mark.parametrize(
    "odd", ["a\0b", "\0", "é€", "\ud800", "\ud800\0", "x" * (text_hash.SLACK + 70_000)]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_engine_finds_an_app_whatever_its_texts_hold(odd: str, batch: int) -> None:
    engine = Engine("d01", "local", b"k" * 32, capacity=64)
    # every decision is kept, and so are its texts
    keep = config.Sampling(budget_per_s=1e9, admit=1.0, refuse=1.0)
    engine.apply(structs.replace(defaults.config(), sampling=keep), None)
    asked = [CheckRequest(odd, "GET", "/v2/orders/1", odd, odd)] + [
        CheckRequest(f"app_{k}", "GET", "/v2/orders/1") for k in range(batch - 1)
    ]
    engine.decide(asked, NOW)
    assert [engine.slot_of(q.app) for q in asked] == list(range(batch))
    assert engine.slot_of("a") == -1
    assert [event.app for event in engine.take_events()] == [q.app for q in asked]


def test_a_request_alone_is_hashed_as_it_is_in_a_batch() -> None:
    engine = Engine("d01", "local", b"k" * 32, capacity=64)
    engine.apply(defaults.config(), None)
    q = CheckRequest("app_1", "GET", "/v2/orders/1", "secret", "10.0.0.1")
    rows = []
    for asked in ([q], [q, q]):
        engine.decide(asked, NOW)
        rows.append(engine.batch.request[0].tobytes())
    assert rows[0] == rows[1]
    assert engine.batch.request[1].tobytes() == rows[0]
    wanted = KEY.many(["app_1", "secret", "10.0.0.1", "/v2/orders/1"])
    assert list(engine.batch.request[0].tolist()[:4]) == wanted.tolist()
