"""Real access logs, replayed through the engine with the bucket alone and with the model on top.

The logs are not part of the product: `real_logs.play` takes the folder that holds them and leaves
out what is not there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from decider.contracts import defaults
from decider.contracts.config import Config, ListEntry
from decider.engine.engine import Engine
from decider.scoring.model import Model
from learning.evaluation.arms import UNHURRIED_MS
from learning.logs import access_log, playback
from learning.logs.access_log import LogEntry, ReadReport

SHOP = "zanbil_shop_access_2019-01-22_first10018.log.gz"
SCANNERS = {
    "acunetix": "scanner_acunetix_apache_2016.log.gz",
    "netsparker": "scanner_netsparker_apache_2016.log.gz",
    "w3af": "scanner_w3af_apache_2016.log.gz",
}
SITE = "rootly_apache_access_2025-01-29.log.gz"
# Names under which well-known crawlers tell who they are. Anybody may use such a name, so this
# counts who claims it.
CRAWLER = re.compile(rb"Googlebot|bingbot|AhrefsBot|Applebot|YandexBot|DotBot", re.IGNORECASE)
# A client with at least this share of a scan's requests takes part in it; others in the log do not.
FEWEST_OF_SCAN = 0.01
# A client with at least this many password tries is an attacker; fewer tries are single probes.
FEWEST_TRIES = 10
# Fixed, so that pseudonyms are the same on each run.
KEY = b"the evaluation's pseudonyms-----"
# Unix seconds at which all logs end. Fixed, as the hour of the week is a feature.
END = 1_780_000_000.0
# More clients than any of the logs has.
CAPACITY = 16_384


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan for the clients of a log. Each address has a bucket of its own, as nobody signs in."""

    name: str
    rate: float
    """Requests a second."""
    burst: float

    @classmethod
    def per_minute(cls, requests: int) -> Plan:
        """Return a plan of `requests` a minute, all of which may come at once."""
        return cls(f"{requests}/min", requests / 60, float(requests))


def shipped_plan() -> Plan:
    """Return the free plan that an installation starts with."""
    free = defaults.config().tiers[0]
    return Plan(f"shipped ({free.rate:g}/s, burst {free.burst:g})", free.rate, free.burst)


@dataclass(frozen=True, slots=True)
class LogResult:
    """The counts of one replay."""

    log: str
    plan: str
    model: bool
    attacks: int
    """Requests of attackers."""
    attacks_refused: int
    others: int
    """Clients that are not attackers."""
    others_hit: int
    """Clients that are not attackers and of which at least one request was refused."""
    others_refused: int
    """Refused requests of these clients."""
    crawlers: int
    """Requests of clients with a well-known crawler's name."""
    crawlers_refused: int


@dataclass(frozen=True, slots=True)
class Recording:
    """Logs that are replayed together, and who attacks in them."""

    name: str
    paths: tuple[Path, ...]
    attackers: frozenset[str]
    """Pseudonyms."""
    crawlers: frozenset[str]
    requests: Counter[str]
    """Requests of each client."""
    allowed: frozenset[str] = frozenset()
    """Clients that the owner would put on the allow list."""


def recordings(folder: Path) -> list[Recording]:
    """Return the recordings whose files are in `folder`: each scanner on the shop's own traffic,
    and the password attack on a site.
    """
    found = []
    if (folder / SHOP).is_file():
        found = [
            _scan(name, folder / SHOP, folder / file)
            for name, file in SCANNERS.items()
            if (folder / file).is_file()
        ]
    if (folder / SITE).is_file():
        found.append(_password_attack(folder / SITE))
    return found


def play_all(folder: Path, model: Model) -> list[LogResult]:
    """Replay every recording in `folder` under every plan, without and with the model."""
    plans = [shipped_plan(), *(Plan.per_minute(requests) for requests in (30, 60, 120))]
    return [
        play(recording, plan, decider)
        for recording in recordings(folder)
        for plan in plans
        for decider in (None, model)
    ]


def play(recording: Recording, plan: Plan, model: Model | None) -> LogResult:
    """Replay one recording under one plan and return the counts. If `model` is None, the bucket
    decides alone.
    """
    engine = Engine(
        node=playback.NODE, region="local", token_key=KEY, capacity=CAPACITY, keep_all=True
    )
    engine.apply(_config(plan, recording.allowed), model)
    replay = playback.OfflineReplay(engine, lambda _: None, lambda _: [])
    refused = replay.run(recording.paths, KEY, end=END).refused
    others = recording.requests.keys() - recording.attackers
    hit = {client: refused[client].count for client in others if client in refused}
    return LogResult(
        log=recording.name,
        plan=plan.name,
        model=model is not None,
        attacks=sum(recording.requests[client] for client in recording.attackers),
        attacks_refused=sum(refused[c].count for c in recording.attackers if c in refused),
        others=len(others),
        others_hit=len(hit),
        others_refused=sum(hit.values()),
        crawlers=sum(recording.requests[client] for client in recording.crawlers),
        crawlers_refused=sum(hit.get(client, 0) for client in recording.crawlers),
    )


def _config(plan: Plan, allowed: frozenset[str]) -> Config:
    start = defaults.config()
    free = structs.replace(start.tiers[0], rate=plan.rate, burst=plan.burst)
    return structs.replace(
        start,
        tiers=[free, *start.tiers[1:]],
        lists=[ListEntry(verdict="allow", kind="app", subject=one) for one in sorted(allowed)],
        ml_time_limit_ms=UNHURRIED_MS,
    )


def _scan(name: str, shop: Path, scanner: Path) -> Recording:
    scan = Counter(entry.app for entry in _entries(scanner))
    return Recording(
        f"{name} on the shop",
        (shop, scanner),
        frozenset(c for c, count in scan.items() if count >= FEWEST_OF_SCAN * scan.total()),
        _crawlers(shop),
        scan + Counter(entry.app for entry in _entries(shop)),
    )


def _password_attack(site: Path) -> Recording:
    tries: Counter[str] = Counter()
    posts: Counter[str] = Counter()
    unauthorised: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for entry in _entries(site):
        requests[entry.app] += 1
        if entry.method == "POST":
            posts[entry.app] += 1
            unauthorised[entry.app] += entry.status == 401
            tries[entry.app] += entry.path.endswith("/xmlrpc.php")
    # the site calls itself through its CDN, mostly with POSTs that it answers with 401
    itself = {client for client, count in posts.items() if unauthorised[client] > count / 2}
    attackers = {client for client, count in tries.items() if count >= FEWEST_TRIES} - itself
    return Recording(
        "password attack on a site",
        (site,),
        frozenset(attackers),
        _crawlers(site) - attackers,
        requests,
        frozenset(itself),
    )


def _entries(path: Path) -> Iterator[LogEntry]:
    return access_log.read_entries(path, KEY, ReadReport())


def _crawlers(path: Path) -> frozenset[str]:
    """Return the clients that used a well-known crawler's name."""
    found = set()
    for line in access_log.read_lines(path, ReadReport()):
        if CRAWLER.search(line):
            try:
                found.add(access_log.parse_line(line, KEY).app)
            except access_log.LineError:
                continue  # the replay counts the lines that cannot be read
    return frozenset(found)
