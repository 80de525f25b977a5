"""One decider process: engine, HTTP server and exchange with the store on one uvloop event loop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from decider.contracts import config as configs
from decider.contracts import defaults
from decider.contracts.event import MOST_NAME, REPLAY_NODE
from decider.contracts.files import write_atomically
from decider.contracts.requests import CheckRequest, Outcome
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action
from decider.doors.addresses import Address, read_address
from decider.doors.secret_keeper import SecretFileError, SecretKeeper
from decider.engine import kernels
from decider.engine.buffers import NO_SOURCE
from decider.engine.engine import Engine
from decider.engine.known_apps import table as known_apps
from decider.engine.quota import POOL_SHARE
from decider.http import source
from decider.http.pace import GATEWAY_S
from decider.http.server import HttpServer
from decider.identity.errors import IdentityFileError
from decider.node.config_keeper import Keeper
from decider.node.duties import keep_doing
from decider.node.identity_keeper import IdentityKeeper
from decider.node.known_keeper import KnownKeeper
from decider.node.lease_ledger import LedgerError
from decider.node.store_sync import StoreSync
from decider.node.timely_watch import TimelyWatch
from decider.refusal.client import Teller
from decider.scoring import model
from decider.store_users.own_user import StoreUserError, check_user
from decider.store_users.roles import Role

# Seconds between two rounds of the engine's housekeeping: prices and fair shares follow load this
# fast. Chosen: well below the 5 s over which use is smoothed.
TICK_S = 0.2
# Seconds between two looks at the file of an operator. A look costs microseconds, and a kill switch
# is urgent.
FILE_S = 0.25
# Seconds between two looks for a first config. Chosen: it delays a start by no more than this, and
# the other duties run meanwhile.
FIRST_CONFIG_S = 0.2
# zeta(1.5), the sum of k^-1.5 over all k from 1. Divided by it, the parts of all starts in
# `own_share` sum up to 1.
ZETA = 2.612375348685488


class StartError(Exception):
    """The decider cannot start; the text says what to set."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line of `python -m decider`; exit with 2 when it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m decider", description="One Sluice decider.")
    parser.add_argument("--node", required=True, help="name of this node, unique in all regions")
    parser.add_argument("--region", default="local")
    parser.add_argument(
        "--valkey",
        default=os.environ.get("VALKEY_URL"),
        help="URL of Valkey; VALKEY_URL when left out",
    )
    parser.add_argument("--data", type=Path, required=True, help="this node's directory")
    parser.add_argument("--models", type=Path, required=True, help="directory of model artifacts")
    parser.add_argument(
        "--keys", type=Path, required=True, help="directory with config.pub and token.key"
    )
    parser.add_argument(
        "--capacity", type=int, default=250_000, help="apps tracked at once; about 800 bytes each"
    )
    parser.add_argument(
        "--trusted-hops",
        type=int,
        choices=range(source.MOST_HOPS + 1),
        metavar="N",
        help="read the client's address from x-forwarded-for, with N trusted proxies in front of"
        " the gateway; when left out, from x-sluice-source, which the gateway must set",
    )
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="read the app from the credential, as the settings in FILE say; when left out, from"
        " x-sluice-app, which the gateway must set",
    )
    parser.add_argument(
        "--gateway-waits",
        type=_gateway_waits,
        default=GATEWAY_S,
        metavar="SECONDS",
        help="how long the gateway waits for a decision (default: %(default)s). Checks for which"
        " there is no time are decided without the model, and those that waited longer not at all",
    )
    _add_trust(parser)
    _add_doors(parser)
    options = parser.parse_args(arguments)
    options.listen = options.listen or [Address(options.data / "decider.sock")]
    if not options.valkey:
        parser.error("set VALKEY_URL, or name Valkey with --valkey")
    for name in (options.node, options.region):
        # stored with each decision, in an index that takes no more
        if not (1 <= len(name) <= MOST_NAME and name.isascii() and name.isprintable()):
            parser.error(
                f"--node and --region are 1 to {MOST_NAME} visible ASCII characters, not {name!r}"
            )
    if options.node == REPLAY_NODE:
        parser.error(f"--node {REPLAY_NODE} is kept for replays, whose decisions are not counted")
    return options


def _add_trust(parser: argparse.ArgumentParser) -> None:
    """Add what is believed without a proof."""
    parser.add_argument(
        "--trust-attempts",
        action="store_true",
        help="believe x-sluice-attempt: only where the gateway sets it and drops the client's own",
    )
    parser.add_argument(
        "--unsealed-outcomes",
        action="store_true",
        help="take outcomes without a seal, too: only until all feedback programs have their"
        " --outcomes-key; whoever may write to Valkey can then make them up",
    )


def _add_doors(parser: argparse.ArgumentParser) -> None:
    """Add where to listen, and what those who ask there must know."""
    parser.add_argument(
        "--listen",
        action="append",
        type=_address,
        metavar="ADDRESS",
        help="unix:PATH, a socket that only this user may open, or HOST:PORT, which needs --secret;"
        " may come several times (default: unix:DATA/decider.sock)",
    )
    parser.add_argument(
        "--secret",
        type=Path,
        metavar="FILE",
        help="what gateways that ask at a TCP address send in x-sluice-secret: a line for each"
        " secret that is good, read again when it changes",
    )
    parser.add_argument(
        "--metrics-token",
        type=Path,
        metavar="FILE",
        help="tokens, a line each, that open /metrics alone, as Authorization: Bearer",
    )


def _address(text: str) -> Address:
    try:
        return read_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _gateway_waits(text: str) -> float:
    # 5 ms: less leaves no time to decide; a minute: no gateway keeps a client longer
    if not 0.005 <= (seconds := float(text)) <= 60.0:
        raise argparse.ArgumentTypeError("must be 0.005 to 60 seconds")
    return seconds


def read_keys(directory: Path) -> tuple[dict[str, Ed25519PublicKey], bytes]:
    """Return the config keys by id, and the token key. Every line of config.pub is a key, so that
    keys can be rotated. Raise StartError when the files cannot be read.
    """
    try:
        keys = configs.read_public_keys(directory / "config.pub")
        token_key = bytes.fromhex((directory / "token.key").read_text().strip())
    except (OSError, ValueError) as error:
        raise StartError(
            f"keys in {directory} cannot be read ({error}); --keys must hold config.pub and"
            " token.key"
        ) from error
    if not keys or not token_key:
        raise StartError(f"config.pub or token.key in {directory} is empty")
    return keys, token_key


def own_share(data: Path, nodes: int) -> float:
    """Return the share (0..1) of each quota that this node owns without a lease, from now until the
    day (UTC) ends. Count this start in the file `starts`.

    The part that is not leased is split evenly among the nodes. A node that starts again on the
    same day has forgotten what it spent, so each start of a day gets a part of its own: the k-th
    start gets k^-1.5 / zeta(1.5) of it. However often the node starts, the parts sum up to no more
    than the whole, and a late start still has enough until its first lease arrives.
    """
    day = time.strftime("%Y%m%d", time.gmtime())
    marker = data / "starts"
    found = marker.read_text().split() if marker.is_file() else []
    lives = 1 + (int(found[1]) if len(found) == 2 and found[0] == day and found[1].isdigit() else 0)
    # Written before the share is used: a crash must not give the same part twice.
    write_atomically(marker, f"{day} {lives}".encode())
    return float((1.0 - POOL_SHARE) / nodes * lives**-1.5 / ZETA)


def warm_up(engine: Engine) -> None:
    """Run every compiled path once on a throw-away engine, so that neither a request nor a model
    swap waits for a compiler.
    """
    model.warm_up()
    scratch = Engine("warm", engine.region_name, engine.token_key, capacity=4096, quota_share=0.5)
    scratch.apply(defaults.config(), None)
    now = time.time()
    scratch.know([Profile("warm")], now)
    scratch.hold_known(known_apps.empty())
    scratch.known.change(known_apps.merge(known_apps.empty()), np.zeros(1, np.uint64))
    # Three rounds a second apart, so that windows move. Each has enough requests to empty the
    # bucket, so that refusals are compiled too.
    for step in range(3):
        scratch.decide(
            [CheckRequest("warm", "GET", f"/v2/orders/{k}") for k in range(600)], now + step
        )
        scratch.learn([Outcome("warm", "orders-read", now, 200, 10.0)], now + step)
        scratch.tick(now + step)
    table, none = scratch.arena.table, np.zeros(1, np.int64)
    kernels.project(table, none, none, 0, now)
    kernels.narrow(table, none, none, 0)
    kernels.promise(table, none, 0, now)


def _secrets_of(options: argparse.Namespace) -> SecretKeeper | None:
    """Return the keeper of the secrets. Raise StartError for a TCP address without one."""
    if options.secret is None:
        if exposed := [address for address in options.listen if address.path is None]:
            raise StartError(
                f"whoever reaches {exposed[0]} could ask there. Listen on unix:PATH, or name with"
                " --secret the file of the secret that your gateways send (docs/deciders.md)"
            )
        return None
    try:
        return SecretKeeper(options.secret, options.metrics_token)
    except SecretFileError as error:
        raise StartError(f"--secret or --metrics-token: {error}") from error


def _identity_of(path: Path | None) -> IdentityKeeper | None:
    try:
        return IdentityKeeper(path) if path else None
    except IdentityFileError as error:
        raise StartError(f"--identity {error}") from error


class Decider:
    """The parts of one process, started and stopped in order."""

    def __init__(self, options: argparse.Namespace) -> None:
        keys, token_key = read_keys(options.keys)
        hops: int | None = options.trusted_hops
        self.options = options
        self.engine = Engine(
            options.node,
            options.region,
            token_key,
            options.capacity,
            quota_share=0.0,
            trust_attempts=options.trust_attempts,
        )
        self.teller = self.engine.teller = Teller(token_key)
        self.store_sync = StoreSync(
            options.valkey,
            self.engine,
            time.time(),
            options.data,
            unsealed_outcomes=options.unsealed_outcomes,
        )
        self.keeper = Keeper(
            self.engine, keys, options.data, options.models, self.store_sync.fetch_model
        )
        self.known = KnownKeeper(self.engine, keys, options.data)
        self.identity = _identity_of(options.identity)
        self.secrets = _secrets_of(options)
        self.store_sync.identity = self.identity
        self.http = HttpServer(
            self.engine,
            self.health,
            self.metrics,
            on_decided=self.store_sync.look_at_wants,
            source=source.NAMED if hops is None else source.forwarded(hops),
            identity=self.identity.credentials if self.identity else None,
            gateway_s=options.gateway_waits,
            guard=self.secrets.guard if self.secrets else None,
        )
        self.store_sync.timely = TimelyWatch(self.http.stats).status
        self._day = ""

    def health(self) -> dict[str, object]:
        """Return the contents of /healthz."""
        now = time.time()
        return {
            "node": self.engine.node,
            "config_version": self.keeper.version,
            "model": self.engine.model.digest if self.engine.model else "",
            "ml_state": self.store_sync.ml_state(now).name.lower(),
            "error": self.keeper.model_error or self.keeper.last_error,
        }

    def metrics(self) -> bytes:
        """Return metrics as Prometheus text, format 0.0.4."""
        status = self.store_sync.status()
        lines = ["# TYPE sluice_decisions_total counter"]
        lines += [
            f'sluice_decisions_total{{action="{Action(k).word}"}} {count}'
            for k, count in enumerate(status.by_action)
        ]
        figures = {
            "sluice_config_version": ("gauge", status.config_version),
            "sluice_ml_state": ("gauge", status.ml_state),
            "sluice_events_sampled_total": ("counter", self.store_sync.events_sampled),
            "sluice_events_sent_total": ("counter", status.events_sent),
            "sluice_events_dropped_total": ("counter", status.events_dropped),
            "sluice_apps": ("gauge", status.apps),
            "sluice_known_apps": ("gauge", status.known_apps),
            "sluice_known_apps_rejected_total": ("counter", status.known_rejected),
            "sluice_leases_waiting": ("gauge", int(bool(status.leases_wait))),
            "sluice_leases_refused_total": ("counter", status.leases_refused),
            "sluice_peers": ("gauge", status.peers),
            "sluice_decides_alone": ("gauge", int(status.alone)),
            "sluice_reports_rejected_total": ("counter", status.reports_rejected),
            "sluice_messages_rejected_total": ("counter", status.messages_rejected),
            "sluice_outcomes_refused_total": ("counter", status.outcomes.refused),
            "sluice_outcomes_unsealed_total": ("counter", status.outcomes.unsealed),
            "sluice_duty_faults_total": ("counter", self.store_sync.faults.count),
            "sluice_decision_p99_seconds": ("gauge", status.latency_p99_us / 1e6),
            "sluice_clock_steps_total": ("counter", self.engine.clock.steps),
            "sluice_bad_scores_total": ("counter", self.store_sync.bad_scores),
            "sluice_unknown_sources_total": ("counter", self.engine.batch.serial[NO_SOURCE]),
            "sluice_unknown_paths_total": ("counter", status.routing.unknown_paths),
            "sluice_unknown_services_total": ("counter", status.routing.unknown_services),
            "sluice_misrouted_total": ("counter", status.routing.misrouted),
            "sluice_http_refused_total": ("counter", self.http.stats.refused),
            "sluice_late_total": ("counter", self.http.stats.late),
            "sluice_undecided_total": ("counter", self.http.stats.undecided),
            "sluice_strangers_total": ("counter", self.http.stats.strangers),
            "sluice_http_timeouts_total": ("counter", self.http.stats.timeouts),
            "sluice_refusals_explained_total": ("counter", self.teller.explained),
            "sluice_refusals_told_as_earlier_total": ("counter", self.teller.as_earlier),
            "sluice_refusals_over_budget_total": ("counter", self.teller.over_budget),
        }
        for name, (kind, value) in figures.items():
            lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        lines += self.identity.metrics() if self.identity else []
        return ("\n".join(lines) + "\n").encode()

    async def _tick(self) -> None:
        # In parts with turns between them, so that a large table does not hold up requests.
        for _ in self.engine.tick_in_parts():
            await asyncio.sleep(0)
        self._own_share()

    def _own_share(self) -> None:
        day = time.strftime("%Y%m%d", time.gmtime())
        if day != self._day and self.engine.config is not None:
            self.engine.quota_share = own_share(self.options.data, self.engine.config.nodes)
            self._day = day

    async def _watch_file(self) -> None:
        self.keeper.look_at_file()
        if self.secrets is not None:
            self.secrets.look()

    def _duty(self, step: Callable[[], Awaitable[None]], pause_s: float) -> asyncio.Task[None]:
        return asyncio.create_task(keep_doing(step, pause_s, self.store_sync.faults))

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raise StartError when the address cannot be bound."""
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        self.keeper.start_from_disk()
        self.known.start_from_disk()
        duties = [
            asyncio.create_task(self.store_sync.run(self.keeper, self.known)),
            self._duty(self._watch_file, FILE_S),
        ]
        if self.identity is not None:
            duties.append(self._duty(self.identity.watch, 0.0))
        warm_up(self.engine)
        # The port stays closed before the first config: a gateway then asks another decider, or its
        # own limit holds when there is none.
        while (
            not self.keeper.version
            and not stop.is_set()
            and not any(duty.done() for duty in duties)
        ):
            await asyncio.sleep(FIRST_CONFIG_S)
        if self.keeper.version and not stop.is_set():
            duties.append(self._duty(self._tick, TICK_S))
            await self._serve(stop, duties)
        broken = [duty for duty in duties if duty.done()]
        await self.keeper.flushed()
        await _end_all()
        await self.store_sync.close()
        for duty in broken:
            duty.result()

    async def _serve(self, stop: asyncio.Event, duties: list[asyncio.Task[None]]) -> None:
        self._own_share()
        where = " and ".join(map(str, self.options.listen))
        try:
            await self.http.start(*self.options.listen)
        except OSError as error:
            raise StartError(f"cannot listen on {where}: {error}") from error
        # All objects that exist now stay alive, so the collector need not look at them again.
        # Requests leave hardly any cycles, so the collector may run seldom: each run is a pause for
        # all requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        print(  # noqa: T201
            f"decider {self.engine.node} listens on {where}, config {self.keeper.version}",
            flush=True,
        )
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, *duties], return_when=asyncio.FIRST_COMPLETED)
        await self.http.stop()


# How often every task is cancelled before the process ends without it, and the seconds between two
# times. Chosen: 5 s in all, more than each timeout of the store's clients except the 10 s of the
# patient one.
ASKED_TO_END, APART_S = 25, 0.2


async def _end_all() -> None:
    """Cancel all tasks but this one until they end, at most ASKED_TO_END times.

    Once is not enough: when a cancellation meets a timeout in the store's client, the client takes
    it for the timeout, and the task goes on.
    """
    for _ in range(ASKED_TO_END):
        if not (running := asyncio.all_tasks() - {asyncio.current_task()}):
            return
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=APART_S)


def main(arguments: list[str] | None = None) -> int:
    """Run a decider. Return the exit code: 2 when it cannot start."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        check_user(options.valkey, Role.DECIDER)
        uvloop.run(Decider(options).run())
    except (StartError, StoreUserError, LedgerError) as error:
        print(f"decider: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0
