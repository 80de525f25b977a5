"""Many random messages of each kind that deciders read: none ends one, and none moves an answer."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec
import pytest

from tests.decider.test_hostile_store import (
    DEEP,
    EXTREMES,
    FIRST,
    LATER,
    PUT_BACK,
    VALID,
    play,
)

# Messages of each kind. `make test-long` sends a million.
COUNT = int(os.environ.get("SLUICE_RANDOM_MESSAGES", "20000"))
# Messages between two comparisons.
PART = 20_000


def message(kind: str, rng: random.Random) -> bytes:
    """Something that is no valid message of this kind, however near to one."""
    while True:
        data = _WAYS[rng.randrange(len(_WAYS))](VALID[kind], rng)
        if data not in VALID.values():
            return data


def _rubbish(good: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(300))


def _cut(good: bytes, rng: random.Random) -> bytes:
    return good[: rng.randrange(len(good))]


def _longer(good: bytes, rng: random.Random) -> bytes:
    return good + rng.randbytes(rng.randrange(1, 40))


def _flipped(good: bytes, rng: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(rng.randrange(1, 9)):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


def _spliced(good: bytes, rng: random.Random) -> bytes:
    other = rng.choice(list(VALID.values()))
    return good[: rng.randrange(len(good))] + other[rng.randrange(len(other)) :]


def _extreme(good: bytes, rng: random.Random) -> bytes:
    """A list of about as many fields, each of any type and size."""
    values = (*EXTREMES, "app_1", b"\xff" * rng.randrange(40), rng.random(), {}, [[]])
    return msgspec.msgpack.encode([rng.choice(values) for _ in range(rng.randrange(14))])


def _deep(good: bytes, rng: random.Random) -> bytes:
    return DEEP[rng.randrange(4_000) :]


def _put_back(good: bytes, rng: random.Random) -> bytes:
    """What was good once, or is another's; for a duty that reads another kind it is rubbish."""
    return rng.choice([data for _, data in PUT_BACK if data not in VALID.values()])


_WAYS = (_put_back, _rubbish, _cut, _longer, _flipped, _spliced, _extreme, _deep)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log: pytest would keep a line of each message in memory."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", VALID)
def test_random_messages_change_no_answer(kind: str) -> None:
    rng = random.Random(f"{kind} 1")
    (calm,) = play([*FIRST, *LATER])
    for start in range(0, COUNT, PART):
        bad = ((kind, message(kind, rng)) for _ in range(min(PART, COUNT - start)))
        (hostile,) = play(_mixed(bad))
        assert hostile == calm, f"after {start} messages"


def _mixed(bad: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """The bad messages, with the valid ones before and between them, in their order."""
    later = iter(LATER)
    yield from FIRST
    for k, one in enumerate(bad):
        yield one
        if k % (PART // 10) == 0:
            yield from islice(later, 1)
    yield from later
