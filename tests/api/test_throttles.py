"""The API's throttles hold over all workers, and what is written at their keys is never run."""

from __future__ import annotations

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from django.contrib.auth.models import User
from django.core.cache import caches

from console.api import throttles
from console.api.throttles import PersonThrottle
from decider.contracts.store import THROTTLE_PREFIX

SCHEMA = "/api/v1/schema?format=json"


class Touch:
    """A pickle of this makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


class Three(PersonThrottle):
    """Three calls a minute of one caller, at a time that the test sets."""

    rate = "3/min"
    now = 6_000.0
    ident = "one"

    def timer(self) -> float:
        return self.now

    def get_cache_key(self, request, view) -> str:
        return f"throttle_test_{self.ident}"


def call(at: float, ident: str = "one") -> float | None:
    """Calls as a worker does, with a throttle of its own. Returns the wait, None when it passed."""
    throttle = Three()
    throttle.now, throttle.ident = at, ident
    return None if throttle.allow_request(None, None) else throttle.wait()


def test_a_pickle_at_a_throttles_key_is_never_run(
    caller, valkey: redis.Redis, tmp_path: Path
) -> None:
    client, made = caller(), tmp_path / "made by a pickle"
    who, window = f"throttle_user_{User.objects.get().pk}", int(time.time() // 60)
    # where calls are counted, and where Django's cache would count them
    keys = [f"{THROTTLE_PREFIX}{who}:{window + k}" for k in (-1, 0, 1)]
    for key in (*keys, f"sluice:cache:1:{who}"):
        valkey.set(key, pickle.dumps(Touch(made)))
    assert client.get(SCHEMA).status_code == 200
    assert not made.exists()


def test_nothing_goes_through_djangos_cache() -> None:
    caches["default"].set("anything", 1)
    assert caches["default"].get("anything") is None


def test_a_fourth_call_of_a_minute_waits_and_then_passes(valkey: redis.Redis) -> None:
    assert [call(6_000.0 + k) for k in range(3)] == [None] * 3
    wait = call(6_010.0)
    assert wait is not None
    # no sooner than that
    assert call(6_010.0 + wait - 1.0) is not None
    assert call(6_010.0 + wait + 0.01) is None


def test_calls_of_the_minute_before_count_along(valkey: redis.Redis) -> None:
    assert [call(6_050.0) for _ in range(3)] == [None] * 3
    assert call(6_061.0) is not None
    assert call(6_100.0) is None


def test_refused_calls_count_for_nothing(valkey: redis.Redis) -> None:
    for _ in range(20):
        call(6_000.0)
    assert valkey.get(THROTTLE_PREFIX + "throttle_test_one:100") == b"3"


def test_callers_are_counted_apart_and_forgotten(valkey: redis.Redis) -> None:
    for _ in range(4):
        call(6_000.0)
    assert call(6_000.0, "two") is None
    assert all(0 < valkey.ttl(key) <= 120 for key in valkey.scan_iter(THROTTLE_PREFIX + "*"))


def test_calls_at_the_same_time_in_several_workers_are_all_counted(valkey: redis.Redis) -> None:
    with ThreadPoolExecutor(8) as workers:
        passed = list(workers.map(lambda _: call(6_000.0) is None, range(64)))
    assert sum(passed) <= 3


@pytest.mark.parametrize("junk", [b"nan", b"-5", b"9" * 40, b"\x80\x04.", b"1e9"])
def test_junk_at_the_key_of_the_window_before_counts_for_nothing(
    valkey: redis.Redis, junk: bytes
) -> None:
    valkey.set(THROTTLE_PREFIX + "throttle_test_one:99", junk)
    assert call(6_000.0) is None


@pytest.mark.parametrize("junk", [b"nan", b"x" * 100])
def test_junk_in_place_of_a_counter_lets_calls_pass_and_goes_away(
    valkey: redis.Redis, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = THROTTLE_PREFIX + "throttle_test_one:100"
    valkey.set(key, junk)
    assert call(6_000.0) is None
    assert "uncounted" in caplog.text
    assert 0 < valkey.ttl(key) <= 120


def test_a_rate_of_nothing_lets_nobody_pass(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Three, "rate", "0/min")
    assert call(6_000.0) is not None


def test_the_wait_is_when_one_more_call_fits() -> None:
    # 10 before and 2 now of 5: one fits once only 2 of the 10 count
    assert throttles._free_after(10, 2, 5) == pytest.approx(0.8)
    # 5 now of 5: in the next window, once only 4 of the 5 count
    assert throttles._free_after(0, 5, 5) == pytest.approx(1.2)
