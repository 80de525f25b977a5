"""What a client meets at the gateway, and what is counted of it.

Envoy, two deciders, the services and the reader of the log share this machine, as `manage.py up`
runs them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import redis

from bench import apps, row
from bench.late import open_loop
from bench.late.open_loop import OpenResult
from bench.waiting_clients import stack
from decider.contracts import artifact
from decider.contracts.store import GATEWAYS_KEY, GatewayStatus
from decider.node.gateway_watch import RECENT_S

# Apps that ask, and connections.
APPS, CONNECTIONS = 1_000, 256
# Seconds of a run of the search for the capacity, and of those that count.
CAPACITY_S, SECONDS = 4.0, 20.0
# The search: the first rate, requests a second, the step between two, and the share that may be
# left undecided. Not a closed loop: what passes undecided is cheap, and would count as capacity.
FIRST_RATE, STEP, LEFT = 300.0, 1.2, 0.01
# Programs that take all the CPU they get, beside the others on two cores.
BUSY = 4
# Targets: added time in ms, share without a decision, and seconds until it is shown.
ADDED_MS, UNASKED, SHOWN_S = 15.0, 0.001, 5.0
_TEXT = "GET /v2/orders/{0} HTTP/1.1\r\nHost: bench\r\nauthorization: Bearer {1}\r\n\r\n"


class Seen(NamedTuple):
    """One run as the client saw it, and as the store tells it."""

    client: OpenResult
    told: GatewayStatus
    shown_s: float
    """Seconds after the last answer until the counts stood still."""
    before: GatewayStatus


@contextmanager
def _busy() -> Iterator[None]:
    """Run BUSY programs that never rest while the body runs."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(BUSY)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def _told(valkey: redis.Redis) -> GatewayStatus:
    found = valkey.hvals(GATEWAYS_KEY)
    assert isinstance(found, list) and len(found) == 1  # redis-py's types allow an awaitable
    assert isinstance(found[0], bytes)  # and text
    return msgspec.msgpack.decode(found[0], type=GatewayStatus)


def _run(valkey: redis.Redis, port: int, rate: float, texts: list[bytes]) -> Seen:
    """Send at a rate, and wait until the counts reach what the client counted, at most 15 s."""
    time.sleep(2.0)  # what came before is counted
    before = _told(valkey)
    client = open_loop.run(port, rate, SECONDS, texts, CONNECTIONS, 100.0, SECONDS)
    ended = time.monotonic()
    while (told := _told(valkey)).unasked - before.unasked < client.unasked:
        if time.monotonic() - ended > 3 * SHOWN_S:
            break
        time.sleep(0.05)
    return Seen(client, told, time.monotonic() - ended, before)


def _capacity(port: int, texts: list[bytes]) -> float:
    """Return the highest rate of the search at which the gateway gets its decisions, requests/s.
    Raise RuntimeError when not even the first one is decided.
    """
    rate, held = FIRST_RATE, 0.0
    while True:
        # once more at each rate: a single run may meet another program
        runs = [open_loop.run(port, rate, CAPACITY_S, texts, CONNECTIONS, 100.0) for _ in range(2)]
        left = min(r.undecided + (r.unasked + r.unanswered) / r.sent for r in runs)
        if left > LEFT:
            break
        rate, held = rate * STEP, rate
    if not held:
        raise RuntimeError(f"{left:.0%} of {rate:,.0f} requests/s were not decided")
    return held


def measure() -> list[dict[str, object]]:
    """Return the rows: half of the capacity, and the same beside busy programs. Raise RuntimeError
    when the gateway lets no check through.
    """
    data = apps.model_data()
    document = apps.config(artifact.digest_of(data))
    people = [apps.profile(k) for k in range(APPS)]
    installation = stack.Installation(people, people)
    with stack.running(document, data, installation, ()) as made:
        valkey = redis.Redis.from_url(made.valkey)
        port = urlsplit(made.url).port
        assert port is not None
        tokens = [made.signer.token(person.app) for person in people]
        texts = [_TEXT.format(k, token).encode() for k, token in enumerate(tokens)]
        capacity = _capacity(port, texts)
        time.sleep(RECENT_S)  # the told p99 is that of a minute, in which the gateway was full
        quiet = _run(valkey, port, capacity / 2, texts)
        with _busy():
            busy = _run(valkey, port, capacity / 2, texts)
        valkey.close()
    return _rows(capacity, quiet, busy)


def _rows(capacity: float, quiet: Seen, busy: Seen) -> list[dict[str, object]]:
    missed = [
        seen.told.unasked - seen.before.unasked - seen.client.unasked for seen in (quiet, busy)
    ]
    share = quiet.client.unasked / quiet.client.sent
    return [
        row(
            "late: time added at half of the capacity, p99",
            *(quiet.told.recent_p99_ms, "ms", f"{ADDED_MS:.0f} ms"),
            quiet.told.recent_p99_ms <= ADDED_MS,
            f"{capacity:,.0f} requests/s, {SECONDS:.0f} s, {_client(quiet)}",
        ),
        row(
            "late: no decision in time at half of the capacity",
            *(round(100 * share, 3), "%", f"under {UNASKED:.1%}"),
            share < UNASKED,
            f"counted {missed[0]:+,} of what the client saw; {_client(quiet)}",
        ),
        row(
            f"late: beside {BUSY} busy loops, unanswered and counted, less those that clients saw",
            *(missed[1], "requests", "0 to those not waited for"),
            # those that the client no longer waited for may be among the counted
            0 <= missed[1] <= busy.client.unanswered,
            f"shown {busy.shown_s:.1f} s after the end; {_client(busy)}; told p99"
            f" {busy.told.recent_p99_ms} ms",
        ),
        row(
            f"late: beside {BUSY} busy loops, shown after the last answer",
            *(round(busy.shown_s, 1), "s", f"{SHOWN_S:.0f} s"),
            busy.shown_s <= SHOWN_S,
            "the same run",
        ),
    ]


def _client(seen: Seen) -> str:
    client = seen.client
    return (
        f"the client saw {client.unasked:,} of {client.sent:,} without a decision"
        f" ({client.unasked / client.sent:.2%}), {client.late:.2%} late, whole request p99"
        f" {client.p99_ms:.1f} ms, {client.unanswered:,} unanswered"
    )
