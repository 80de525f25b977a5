"""Whole decisions over HTTP: the decider process as shipped runs on one core, wrk on another, and
peers take turns with the decider.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import redis

from bench import apps, load, missing, peers, processes
from console.local.servers import Valkey, free_port
from control.deciders import keys
from decider.contracts import artifact, config, event, store
from decider.contracts.sealed import profiles
from decider.contracts.vocabulary import Arm
from decider.http.pace import GATEWAY_S

# Tracked apps, and connections of wrk: enough to keep a core busy, and so few that none waits.
APPS, CONNECTIONS, FEW = 100_000, 64, 4
# Seconds of one run of wrk. Short, so that changes of the machine's other load meet all servers
# alike.
SECONDS = 4
# Dollars: a usual price of a cloud's core, and the budget for one request.
PRICE_PER_CORE_HOUR, BUDGET = 0.04, 0.00002
# Apps introduced at once; the pause between groups keeps profiles within their fetch rate.
SPREAD = 64
# Seconds. The first start compiles the decider's kernels.
START_S = 180.0
FIFTH, ALL, ASGI, FASTAPI, NGINX, FIXED = "fifth", "all", "asgi", "fastapi", "nginx", "fixed"


class Server(NamedTuple):
    """A server that wrk can load."""

    port: int
    pid: int
    before: Callable[[], None] = lambda: None
    """Called before each run."""


@contextmanager
def alone(server: Server, servers: dict[str, Server]) -> Iterator[None]:
    """Halt all other servers while the body runs: their timers would interrupt the measured one on
    the core that they share.
    """
    others = {each.pid for each in servers.values()} - {server.pid}
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


Runs = dict[str, list[load.WrkResult]]


def measure(rounds: int = 3) -> list[dict[str, object]]:
    """Return the rows: medians of `rounds` interleaved rounds, after one that is not counted."""
    if why := load.missing():
        return [missing("http decision", why, 80_000, "requests/s")]
    core, other = processes.cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        data = apps.model_data()
        decider = Decider(stack, folder, data, core, other)
        servers = {
            FIFTH: decider.server(rank_all=False),
            ALL: decider.server(rank_all=True),
        } | _peers(stack, folder, data, core)
        runs: Runs = {name: [] for name in servers}
        few: Runs = {FIFTH: [], FIXED: []}
        shares = {}
        for turn in range(rounds + 1):
            for name, server in servers.items():
                server.before()
                began = time.time()
                _load(name, servers, other, SECONDS if turn else 2, runs, few)
                if turn and name in (FIFTH, ALL):
                    shares[name] = decider.ranked_share(began)
    runs, few = ({name: found[1:] for name, found in each.items()} for each in (runs, few))
    return _rows(runs, few, shares, rounds)


def _load(
    name: str, servers: dict[str, Server], core: int, seconds: int, runs: Runs, few: Runs
) -> None:
    """Load one server alone by wrk on `core` for `seconds`, and again with few connections if its
    name is in `few`.
    """
    server = servers[name]
    with alone(server, servers):
        runs[name].append(load.run(server.port, server.pid, core, CONNECTIONS, seconds, APPS))
        if name in few:
            few[name].append(load.run(server.port, server.pid, core, FEW, seconds, APPS))


def _secret_file(folder: Path) -> Path:
    path = folder / "gateways.secret"
    path.touch(mode=0o600)
    path.write_text(load.SECRET)
    return path


def _decider_command(port: int, valkey: str, folder: Path, waits_s: float) -> list[str]:
    options = {
        "--node": "d01",
        "--listen": f"127.0.0.1:{port}",
        "--valkey": valkey,
        "--data": str(folder / "node"),
        "--models": str(folder / "models"),
        "--keys": str(folder / "keys"),
        "--gateway-waits": str(waits_s),
        "--secret": str(_secret_file(folder)),
    }
    return [sys.executable, "-m", "decider", *(part for each in options.items() for part in each)]


def _start_valkey(stack: ExitStack, folder: Path, core: int) -> str:
    """Start a Valkey on a core and return its address."""
    valkey = Valkey(folder / "valkey", free_port(), "bench", durable=False)
    valkey.make()
    stack.enter_context(processes.running(valkey.command(), core, valkey.port, 20.0))
    return valkey.url()


class Decider:
    """A Valkey and `python -m decider` that tracks all apps and knows their profiles."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        model: bytes,
        core: int,
        other: int,
        *,
        count: int = APPS,
        waits_s: float = GATEWAY_S,
    ) -> None:
        """Track `count` apps, for gateways that wait for `waits_s` seconds."""
        self._count = count
        keys.ensure(folder / "keys")
        self._key = keys.load_signing_key(folder / "keys")
        self._digest, self._version = artifact.digest_of(model), 0
        address = _start_valkey(stack, folder, other)
        self._store = redis.Redis.from_url(address)
        self._fill_store(model, keys.load_token_key(folder / "keys"))
        self.publish(rank_all=False)
        self.port = free_port()
        command = _decider_command(self.port, address, folder, waits_s)
        self.pid = stack.enter_context(processes.running(command, core, self.port, START_S)).pid
        _introduce(self.port, count)
        self._wait_for_model()

    def _fill_store(self, model: bytes, token_key: bytes) -> None:
        self._store.set(store.MODEL_PREFIX + self._digest, model)
        key = profiles.derive_key(token_key)
        # In parts: one command with all profiles would be tens of megabytes.
        for first in range(0, self._count, 5000):
            found = (apps.profile(k) for k in range(first, min(self._count, first + 5000)))
            self._store.mset({store.PROFILE_PREFIX + p.app: profiles.seal(p, key) for p in found})

    def publish(self, rank_all: bool) -> None:
        """Push the next config, as the console does."""
        self._version += 1
        document = msgspec.structs.replace(
            apps.config(self._digest, rank_all), version=self._version, issued_at=time.time()
        )
        data = config.sign(document, self._key)
        self._store.set(store.CONFIG_KEY, data)
        self._store.publish(store.CONFIG_CHANNEL, data)

    def server(self, rank_all: bool) -> Server:
        """Return this decider, ranking a fifth of the apps or all of them."""

        def before() -> None:
            self.publish(rank_all)
            time.sleep(0.5)

        return Server(self.port, self.pid, before)

    def _wait_for_model(self) -> None:
        end = time.monotonic() + START_S
        while True:
            beat = self._store.get(store.NODE_PREFIX + "d01")
            # redis-py's types allow text; this client decodes nothing.
            status = (
                msgspec.msgpack.decode(beat, type=store.NodeStatus)
                if isinstance(beat, bytes)
                else None
            )
            if status is not None and status.model == self._digest and status.apps >= self._count:
                return
            if time.monotonic() > end:
                raise RuntimeError(
                    f"after {START_S:.0f} s the decider has not loaded its model and all apps:"
                    f" {status}"
                )
            time.sleep(0.2)

    def ranked_share(self, since: float) -> float:
        """Return the share of decisions since then (unix seconds) that the model was asked about.

        It comes from the stored sample, weighed by the inverse of the inclusion probability.
        """
        time.sleep(0.3)
        ranked = total = 0.0
        for _, fields in self._store.xrange(store.EVENTS_STREAM, min=int(since * 1000)) or ():
            data = fields[b"b"] if fields else None
            assert isinstance(data, bytes)  # redis-py's types allow text
            for found in event.decode_batch(data).events:
                total += 1 / found.inclusion_probability
                ranked += (found.arm != Arm.NONE) / found.inclusion_probability
        return ranked / total if total else float("nan")


def _introduce(port: int, count: int) -> None:
    """Send one request of each app, no faster than the decider fetches profiles."""
    head = "GET /v1/check/v2/orders/1 HTTP/1.1\r\nHost: bench\r\n"
    head += f"x-sluice-secret: {load.SECRET}\r\nx-sluice-app: "
    with socket.create_connection(("127.0.0.1", port)) as line:
        for first in range(0, count, SPREAD):
            group = range(first, min(count, first + SPREAD))
            text = "".join(f"{head}{apps.profile(k).app}\r\n\r\n" for k in group).encode()
            # again where the machine halted the decider for so long that it did not decide
            while _decided(line, text, len(group)) < len(group):
                pass
            time.sleep(0.003)


def _decided(line: socket.socket, text: bytes, count: int) -> int:
    """Send `count` checks and return how many were decided."""
    line.sendall(text)
    said = b""
    while said.count(b"HTTP/1.1 ") < count:
        said += line.recv(1 << 18)
    return said.count(b"sluice-decision: ")


def _peers(stack: ExitStack, folder: Path, data: bytes, core: int) -> dict[str, Server]:
    """Start every installed peer, on the core of the decider."""
    text = folder / "risk.txt"
    text.write_text(artifact.decode(data).risk_model)
    commands: dict[str, Callable[[int], list[str]]] = {
        ASGI: lambda port: peers.command("asgi_plain.py", str(port), str(text)),
        FASTAPI: lambda port: peers.command("fastapi_sklearn.py", str(port), str(text)),
        FIXED: lambda port: peers.command("fixed_answer.py", str(port)),
    }
    if shutil.which("nginx") is not None:
        commands[NGINX] = lambda port: _nginx(folder, port)
    servers = {}
    for name, command in commands.items():
        port = free_port()
        process = stack.enter_context(processes.running(command(port), core, port, START_S))
        servers[name] = Server(port, _worker(process.pid) if name == NGINX else process.pid)
    return servers


def _nginx(folder: Path, port: int) -> list[str]:
    template = load.SCRIPT.with_name("nginx.conf").read_text()
    path = folder / "nginx.conf"
    path.write_text(template.format(folder=folder, port=port))
    folder.chmod(0o755)  # its worker runs as another user
    return ["nginx", "-c", str(path), "-e", str(folder / "error.log")]


def _worker(pid: int) -> int:
    """Return the pid of nginx's worker process, or `pid` without one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


# Names of the peers as the table shows them.
FIXED_WORDS = "fixed answer, uvloop protocol"
ASGI_WORDS = "ASGI on uvicorn, Booster.predict, numpy row"
FASTAPI_WORDS = "FastAPI, LGBMClassifier, pandas row"
NGINX_WORDS = "nginx limit_req, no model"
# Row's name after "http decision: ", own server, peer, the peer's words, target.
COMPARISONS: tuple[tuple[str, str, str, str, object], ...] = (
    ("a fifth ranked", FIFTH, FIXED, FIXED_WORDS, 80_000),
    ("a fifth ranked, to ASGI", FIFTH, ASGI, ASGI_WORDS, "5x"),
    ("a fifth ranked, to FastAPI", FIFTH, FASTAPI, FASTAPI_WORDS, "50x"),
    ("all ranked", ALL, FIXED, FIXED_WORDS, 80_000),
    ("all ranked, to ASGI", ALL, ASGI, ASGI_WORDS, "5x"),
    ("all ranked, to FastAPI", ALL, FASTAPI, FASTAPI_WORDS, "50x"),
    ("beside nginx", FIFTH, NGINX, NGINX_WORDS, None),
)


def _rows(runs: Runs, few: Runs, shares: dict[str, float], rounds: int) -> list[dict[str, object]]:
    rates = {name: statistics.median(found.rate for found in each) for name, each in runs.items()}
    where = _conditions(runs, shares, rounds)
    rows = [
        _rate(f"http decision: {name}", rates, own, peer, words, target, where[own])
        # nginx is the only peer that may be absent.
        if peer in rates
        else missing(f"http decision: {name}", "nginx is not installed")
        for name, own, peer, words, target in COMPARISONS
    ]
    return [*rows, *_tails(runs, few, where[FIFTH]), _cost(runs, where[FIFTH])]


def _conditions(runs: Runs, shares: dict[str, float], rounds: int) -> dict[str, str]:
    """Return the conditions of the runs with a fifth ranked and with all ranked."""
    refused = sum(f.refused for f in runs[FIFTH]) / sum(f.requests for f in runs[FIFTH])
    where = (
        f"decider process, {apps.MODEL_WORDS}, {APPS:,} tracked apps with profiles, server on one"
        f" core, wrk and Valkey on another, both ahead of other work where allowed, {CONNECTIONS}"
        f" connections; median of {rounds} interleaved runs of {SECONDS} s; "
    )
    return {
        FIFTH: (
            f"{where}{shares[FIFTH]:.0%} ranked by the model, {refused:.1%} refused,"
            f" {_cpu(runs[FIFTH])}"
        ),
        ALL: f"{where}{shares[ALL]:.0%} ranked by the model, {_cpu(runs[ALL])}",
    }


def _rate(
    name: str, rates: dict[str, float], own: str, peer: str, words: str, target: object, where: str
) -> dict[str, object]:
    """Return the row of a rate and a peer's rate. A target like "5x" is for their ratio."""
    ratio = rates[own] / rates[peer]
    met = None
    if target is not None:
        met = (
            ratio >= float(target[:-1])
            if isinstance(target, str)
            else rates[own] >= float(str(target))
        )
    return {
        "name": name,
        "figure": round(rates[own]),
        "unit": "requests/s",
        "peer": words,
        "peer_figure": round(rates[peer]),
        "ratio": round(ratio, 2),
        "target": target,
        "met": met,
        "conditions": where,
    }


def _tails(runs: Runs, few: Runs, where: str) -> list[dict[str, object]]:
    p99, fixed = (
        statistics.median(found.p99_ms for found in runs[name]) for name in (FIFTH, FIXED)
    )
    p50_few, p99_few = _middle(few[FIFTH])
    p50_floor, p99_floor = _middle(few[FIXED])
    many = {
        "name": "http decision: p99, 64 connections",
        "figure": round(p99, 2),
        "unit": "ms",
        "peer": "fixed answer, uvloop protocol",
        "peer_figure": round(fixed, 2),
        "ratio": round(p99 / fixed, 2),
        "target": "under 3 ms",
        "met": p99 < 3.0,
        "conditions": where,
    }
    where_few = where.replace(f"{CONNECTIONS} connections", f"{FEW} connections")
    floor = f"the fixed answer's p99 is {p99_floor / p50_floor:.1f}x its p50 ({p50_floor:.3f} ms)"
    return [many, _few_row(p50_few, p99_few, f"{floor} here; {where_few}")]


def _few_row(p50: float, p99: float, where: str) -> dict[str, object]:
    """Return the row for few connections. The p99 is compared with the server's own median: nothing
    queues, so the server itself makes answers slower.
    """
    return {
        "name": "http decision: p99, 4 connections",
        "figure": round(p99, 3),
        "unit": "ms",
        "peer": "its own p50",
        "peer_figure": round(p50, 3),
        "ratio": round(p99 / p50, 2),
        "target": "at most 3x",
        "met": p99 <= 3.0 * p50,
        "conditions": where,
    }


def _middle(found: list[load.WrkResult]) -> tuple[float, float]:
    """Return medians of (p50, p99), milliseconds."""
    return statistics.median(f.p50_ms for f in found), statistics.median(f.p99_ms for f in found)


def _cpu(found: list[load.WrkResult]) -> str:
    """Return as text the server's CPU time for each request, and requests per second of it."""
    used, asked = sum(f.cpu_s for f in found), sum(f.requests for f in found)
    return (
        f"{used / asked * 1e6:.1f} us of the server's CPU time each, so {asked / used:,.0f} per"
        " second of it"
    )


def _cost(runs: Runs, where: str) -> dict[str, object]:
    seconds = statistics.median(found.cpu_s / found.requests for found in runs[FIFTH])
    dollars = seconds * PRICE_PER_CORE_HOUR / 3600
    return {
        "name": "http decision: cost of a request",
        "figure": float(f"{dollars:.3g}"),
        "unit": "$",
        "peer": "the budget",
        "peer_figure": BUDGET,
        "ratio": float(f"{dollars / BUDGET:.3g}"),
        "target": BUDGET,
        "met": dollars <= BUDGET,
        "conditions": (
            f"{seconds * 1e6:.1f} us of the decider's CPU time x ${PRICE_PER_CORE_HOUR} per"
            f" core-hour; {where}"
        ),
    }
