"""Look-ups by support over millions of stored decisions: by id, an app's last day, and facets over
all apps, on pages and in the API, with the real views and database.

Rows are stored by ingest's own code (`ingest.copy_events`: binary COPY, and the counts kept ready),
a week of them, in time order, and compacted as they would be by now. Requests go through Django's
test client with all middleware, signed in as support. There is no peer to compare with.
`SLUICE_BENCH_ROWS` sets how many rows, for a quick try.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench import kill_switch, row
from bench.events import Outcome, Place, stored_event
from bench.processes import ROOT
from console.local import database
from decider.contracts import features, signals
from decider.contracts.event import Event

ROWS = int(os.environ.get("SLUICE_BENCH_ROWS", "5000000"))
# Days of rows, rows of one transaction (as a busy ingest writes) and apps: a week at a mid-sized
# installation.
DAYS, COMMIT, APPS = 7, 20_000, 3_000
# Targets in milliseconds: support waits on the phone for the first two.
ID_MS, APP_MS, FACETS_MS = 50.0, 150.0, 500.0
# What fifty deciders send at the default sampling budget.
INGEST_PER_S = 20_000.0
SERVICES = ("orders-read", "search-query", "exports", "ledger-write", "catalog", "accounts")
PATHS = ("/v2/orders/{id}", "/v2/search", "/v2/refunds", "/v2/items/{id}", "/v2/stock")
KINDS = (  # action, stage, reason, model arm, inclusion probability, share of the stored rows
    (0, 2, 20, 0, 0.02, 0.40),
    (0, 3, 30, 1, 0.02, 0.14),
    (1, 3, 31, 1, 0.5, 0.16),
    (1, 2, 21, 0, 0.5, 0.10),
    (2, 4, 41, 1, 0.5, 0.05),
    (3, 4, 40, 1, 0.5, 0.08),
    (4, 0, 2, 0, 1.0, 0.04),
    (1, 5, 51, 0, 0.5, 0.03),
)


def measure() -> list[dict[str, object]]:
    """Return the rows: the 95th percentile of each kind of request, in milliseconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        environment = os.environ | kill_switch._servers(stack, folder, os.sched_getaffinity(0))
        command = [sys.executable, "-m", "bench.lookup"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    rows: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return rows


# Filters to draw from: none, and facets alone and together, included and excluded.
NARROWED = (
    "",
    "&action=defer&action=block",
    "&not_action=admit",
    "&stage=rank",
    "&service=exports",
    "&not_service=orders-read&tier=premium",
    "&reason=service-overloaded",
    "&arm=live&action=shed",
    "&endpoint=GET+%2Fv2%2Fsearch",
    "&reason=block-listed&service=exports",
)


def main() -> list[dict[str, object]]:
    """Fill a new installation, measure requests to it, and return the rows."""
    database.be(database.Process.COMMAND)
    _install()
    began = time.monotonic()
    now = time.time()
    apps, ids, stored_s = _fill(now)
    built = time.monotonic() - began
    browser, rng = _browser(), random.Random(5)
    told = (
        f"{ROWS:,} stored decisions of {DAYS} days, {APPS:,} apps, built in {built:.0f} s by"
        " ingest's own code, warm cache, "
    )
    told += "Django's test client with all middleware, PostgreSQL as shipped, all on this machine"
    chosen, busy = rng.sample(ids, min(len(ids), 300)), rng.sample(apps, min(len(apps), 120))
    return [
        *_by_id(browser, chosen, told),
        *_by_app(browser, busy, told),
        *_facets(browser, rng, told),
        _stored(ROWS / stored_s, told),
    ]


def _by_id(browser: object, ids: list[str], told: str) -> Iterator[dict[str, object]]:
    """Measure the page and the API for single decisions."""
    for name, path in (
        ("lookup: by id, p95", "/lookup?q=dec_"),
        ("API: a decision by id, p95", "/api/v1/decisions/dec_"),
    ):
        taken = _p95(browser, [path + one for one in ids])
        yield _row(name, taken, ID_MS, f"{len(ids)} ids; {told}")


def _by_app(browser: object, apps: list[str], told: str) -> Iterator[dict[str, object]]:
    """Measure the pages and API calls that show an app's last day."""
    for name, path, but in (
        ("lookup: an app's last 24 h, p95", "/lookup?q={}&as=app&range=24h&f=1", ""),
        ("app page with its last 24 h, p95", "/apps/{}", ", no decider to ask for buckets"),
        ("API: an app's last 24 h, p95", "/api/v1/apps/{}", ""),
    ):
        taken = _p95(browser, [path.format(app) for app in apps])
        yield _row(name, taken, APP_MS, f"{len(apps)} apps, by their traffic{but}; {told}")


def _facets(browser: object, rng: random.Random, told: str) -> Iterator[dict[str, object]]:
    """Measure facets, histogram and rows over every app, under filters drawn at random."""
    for spans, words in ((("1h", "6h", "24h"), "up to a day"), (("7d", "all"), "a week")):
        addresses = [
            f"/lookup?range={rng.choice(spans)}&f=1{rng.choice(NARROWED)}" for _ in range(80)
        ]
        conditions = f"{len(addresses)} requests over all apps, {len(NARROWED)} filters; {told}"
        yield _row(f"lookup: facets, {words}, p95", _p95(browser, addresses), FACETS_MS, conditions)
        counts = [
            address.replace("/lookup", "/api/v1/decisions/counts", 1).replace("&f=1", "")
            for address in addresses
        ]
        yield _row(f"API: facets, {words}, p95", _p95(browser, counts), FACETS_MS, conditions)


def _p95(browser: object, addresses: list[str]) -> float:
    """Return the 95th percentile in milliseconds, after three requests to warm up."""
    for address in addresses[:3]:
        _get(browser, address)
    took = sorted(_get(browser, address) for address in addresses)
    return took[-(-len(took) * 95 // 100) - 1]


def _get(browser: object, address: str) -> float:
    began = time.perf_counter()
    answer = browser.get(address)  # type: ignore[attr-defined]
    took = (time.perf_counter() - began) * 1000
    if answer.status_code != 200 or not any(
        sign in answer.content for sign in (b"rowlink", b'"kept":', b'"weight":')
    ):
        raise RuntimeError(
            f"{address} answered {answer.status_code} and shows neither a decision nor a count"
        )
    return took


def _row(
    name: str,
    figure: float,
    target: float,
    conditions: str,
    unit: str = "ms",
    *,
    least: bool = False,
) -> dict[str, object]:
    """Return the row of a figure that must be at most its target, or with `least` at least that."""
    met = figure >= target if least else figure <= target
    return row(name, round(figure, 1), unit, target, met, conditions)


def _install() -> None:
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from rest_framework.throttling import SimpleRateThrottle

    from control.audit.actors import SYSTEM
    from control.config import changes
    from control.deciders import buckets, keys

    # No decider runs here, so pages need not wait for one's answer.
    buckets.HOPE_S = 0.0
    SimpleRateThrottle.THROTTLE_RATES = dict.fromkeys(
        SimpleRateThrottle.THROTTLE_RATES, "1000000/min"
    )

    call_command("migrate", verbosity=0)
    keys.ensure(settings.SLUICE_KEYS)
    changes.first(by=SYSTEM, reason="A measurement")
    kill_switch.make_person("support")


def _browser() -> object:
    from django.contrib.auth import get_user_model
    from django.test import Client

    browser = Client()
    browser.force_login(
        get_user_model().objects.get(), backend="django.contrib.auth.backends.ModelBackend"
    )
    return browser


def _stored(rate: float, told: str) -> dict[str, object]:
    name = "ingest, counts kept ready included"
    return _row(
        name, rate, INGEST_PER_S, f"{COMMIT:,} rows a transaction; {told}", "rows/s", least=True
    )


def _fill(now: float) -> tuple[list[str], list[str], float]:
    """Store the rows. Return app ids and decision ids of some rows, and the seconds that storing
    took. Busy apps are returned more often.
    """
    from django.db import connection, transaction

    from decisions.counts import append, rollup
    from decisions.store import copy_format, rows

    _make_partitions(now)
    texts, counts, drawing = copy_format.Texts(), append.Counts(), _Drawing()
    apps: list[str] = []
    ids: list[str] = []
    stored_s, step = 0.0, DAYS * 86_400 / ROWS
    for start in range(0, ROWS, COMMIT):
        events = drawing.draw(min(COMMIT, ROWS - start), now - step * (ROWS - start), step)
        began = time.perf_counter()
        with transaction.atomic():
            rows.copy_events(events, texts, counts)
        counts.settle()
        stored_s += time.perf_counter() - began
        # Only the last day's apps are asked about their last 24 hours.
        if start / ROWS >= 0.88:
            apps += [e.app for e in events[:: COMMIT // 50]]
        ids += [e.id.hex() for e in events[:: COMMIT // 5]]
    rollup.compact(now)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return apps, ids, stored_s


def _make_partitions(now: float) -> None:
    """Create the partition of each day that gets rows; ingest would make them one by one."""
    from datetime import UTC, datetime

    from decisions.store import partitions

    days = {datetime.fromtimestamp(now - 86_400 * k, UTC).date() for k in range(DAYS + 1)}
    partitions.create(partitions.DECISIONS, days)


class _Drawing:
    """Draws events: apps by a long-tailed share, kinds by the shares in KINDS."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(3)
        weights = self._rng.lognormal(0, 1.2, APPS)
        self._apps = weights / weights.sum()
        self._kinds = np.array([k[5] for k in KINDS])
        self._digests = [secrets.token_hex(16) for _ in range(APPS)]

    def draw(self, count: int, at: float, step: float) -> list[Event]:
        """Return `count` events in time order, `step` seconds apart, from `at` (unix seconds)."""
        rng = self._rng
        app = rng.choice(APPS, count, p=self._apps)
        kind = rng.choice(len(KINDS), count, p=self._kinds)
        service, path = rng.integers(0, 6, count), rng.integers(0, 5, count)
        noise = rng.bytes(8 * count)
        vectors = rng.gamma(1.0, 10.0, (64, features.N_FEATURES)).astype("<f4")
        plain, signal = [v.tobytes() for v in vectors], np.zeros(signals.N_SIGNALS).tobytes()
        return [
            stored_event(
                _event_id(at + k * step, k, noise[8 * k : 8 * k + 8]),
                at + k * step,
                int(app[k]),
                self._digests[app[k]],
                Place(SERVICES[service[k]], PATHS[path[k]]),
                Outcome(*KINDS[kind[k]][:5]),
                (plain[k & 63], signal),
                risk=0.4 if KINDS[kind[k]][3] else None,
            )
            for k in range(count)
        ]


def _event_id(at: float, k: int, tail: bytes) -> bytes:
    """Return a UUIDv7 of the moment `at` (unix seconds), the number `k` and 8 random bytes."""
    version = bytes((0x70 | k >> 8 & 15, k & 255, 0x80 | tail[0] & 63))
    return int(at * 1000).to_bytes(6, "big") + version + tail[1:]


if __name__ == "__main__":
    print(json.dumps(main()))
