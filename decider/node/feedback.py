"""The feedback program: it reads the gateway's JSON access log (Envoy's, nginx's or Caddy's, as the
examples write it) and sends outcomes to Valkey, where the deciders learn what became of requests.

`python -m decider.node.feedback --log FILE --valkey URL`. Nothing is lost while Valkey is away: the
log itself is the buffer, and the place reached is kept in a file beside it. What is unread beyond
MAX_BEHIND bytes is given up and counted, and what was read or given up is freed, so the log takes
bounded room on the disk whatever Valkey does. After a restart the last batch may be sent twice. The
features it feeds are rates over a minute, so that does no harm.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import redis

from decider.contracts.files import free_beginning, write_atomically
from decider.contracts.requests import MOST_LATENCY_MS, Outcome
from decider.contracts.sealed.outcomes import BODY, KEY_FILE, SEAL, KeyFileError, Sealer, read_key
from decider.contracts.store import (
    GATEWAYS_KEY,
    GATEWAYS_TTL_S,
    OUTCOMES_MAXLEN,
    OUTCOMES_STREAM,
)
from decider.doors.addresses import UNIX
from decider.engine.routing import endpoint_of
from decider.http.pace import GATEWAY_S
from decider.node.gateway_log import LogLine, read_line
from decider.node.gateway_watch import EnvoyStatistics, GatewayWatch
from decider.store_users.own_user import StoreUserError, check_user
from decider.store_users.roles import Role

# Seconds between two sends. Chosen: deciders smooth what they learn from outcomes over seconds, and
# five round trips a second cost nothing.
EVERY_S = 0.2
# Seconds between two reports on the gateway. Chosen: what goes unanswered is shown within 5 s.
TELL_S = 1.0
# Characters of a gateway's name, and seconds that one may wait: a minute, as deciders have it.
MOST_NAME, MOST_WAIT_S = 128, 60.0
# Outcomes in one stream entry at most. Chosen: about 125 KB, so that reading an entry does not hold
# up a decider's event loop for long.
BATCH = 1000
# Bytes of one read, and so the most that waits in memory while Valkey is away.
READ_BYTES = 1 << 20
# Bytes of the longest line. Chosen: many times the fields of the gateway's format, so a longer line
# is not the gateway's.
MAX_LINE = 1 << 16
# Bytes that were read since the disk got some back. A log that was read to its end is emptied then,
# of another the beginning is freed. Chosen: rare enough to cost nothing, and a size that no disk
# notices.
TRUNCATE_AT = 64 << 20
# Unread bytes of log beyond which the oldest are given up, and how many stay then. Outcomes that
# late tell nothing, and the disk is not ours to fill.
MAX_BEHIND, KEPT_BEHIND = 256 << 20, 64 << 20
# Seconds by which a line may be ahead of our clock. Chosen: clocks differ by less, so a time beyond
# it is a defect of the log.
MAX_AHEAD_S = 60.0
# Envoy's response flags of requests that were answered before any service was asked.
UNSERVED = frozenset({"UAEX", "RL", "RLSE", "NR", "NC", "DPE", "IH"})
# Statuses of requests whose client hung up before any service answered: 0 of Envoy and Caddy, 499
# of nginx.
HUNG_UP = frozenset({0, 499})

# How the address of an admin interface begins.
_ADMIN = (UNIX, "http://", "https://")

# How the details of requests begin that a filter of Envoy refused without a response flag.
REFUSED_AT_GATEWAY = ("jwt_authn_access_denied", "rbac_access_denied")

log = logging.getLogger("sluice.feedback")
_app = re.compile(r"[!-+\--~]{1,128}").fullmatch
_name = re.compile(r"[!-~]{1,128}").fullmatch
_decision = re.compile(r"dec_[0-9a-f]{32}").fullmatch


_encode = msgspec.msgpack.Encoder().encode


def _was_served(read: LogLine) -> bool:
    if read.status in HUNG_UP or read.details.startswith(REFUSED_AT_GATEWAY):
        return False
    return UNSERVED.isdisjoint(read.flags.split(","))


def outcome(line: bytes, now: float) -> Outcome | None:
    """Return the outcome that a line tells of; None when the request never reached a service, or
    when the line names no app. `now`: unix seconds.

    Raise ValueError for a line that is not the gateway's: msgspec's errors and undecodable text are
    ValueErrors, too.
    """
    return outcome_of(read_line(line), now)


def outcome_of(read: LogLine, now: float) -> Outcome | None:
    """Return the outcome of a line that was read; otherwise as `outcome`."""
    if not read.app or not read.service or not _was_served(read):
        return None
    if not (
        100 <= read.status <= 599
        and 0 <= read.duration_ms <= MOST_LATENCY_MS
        and 0 <= read.ended <= now + MAX_AHEAD_S
    ):
        raise ValueError(
            f"status {read.status}, duration {read.duration_ms} ms or end {read.ended} is out of"
            " range"
        )
    if _app(read.app) is None or _name(read.service) is None:
        raise ValueError("app or service is not 1 to 128 visible ASCII characters")
    return Outcome(
        read.app,
        read.service,
        read.ended,
        read.status,
        read.duration_ms,
        # A bad id costs only itself: the outcome counts without it.
        _if(_name, read.request_id),
        _if(_decision, read.decision),
        min(max(0, read.bytes_out), 2**53),
        endpoint_of(read.method, read.path),
        _if(_name, read.named),
    )


def _if(fits: Callable[[str], object], text: str) -> str:
    return text if fits(text) else ""


@dataclass
class Tail:
    """A log file read as it grows, through rotation and truncation, from where the last reader
    stopped.
    """

    path: Path
    skipped: int = 0
    """Lines that were too long to be the gateway's."""
    given_up: int = 0
    """Lines that were given up unread."""
    _file: BinaryIO | None = None
    _inode: int = 0
    _offset: int = 0
    """Byte after the last whole line handed out."""
    _freed: int = 0
    """Byte up to which the disk has its blocks back."""
    _in_long_line: bool = False

    def lines(self) -> list[bytes]:
        """Return the next whole lines, at most READ_BYTES of them; none when nothing is new."""
        if not self._opened():
            return []
        assert self._file is not None
        self._catch_up()
        self._file.seek(self._offset)
        read = self._file.read(READ_BYTES)
        end = read.rfind(b"\n") + 1
        # No line end: either the line is still being written, or it is too long to be one.
        if end == 0:
            if len(read) > MAX_LINE:
                self._offset += len(read)
                self._in_long_line = True
            return []
        self._offset += end
        found = read[: end - 1].split(b"\n")
        if self._in_long_line:
            self._in_long_line = False
            self.skipped += 1
            del found[0]
        return found

    def keep_place(self) -> None:
        """Store the place in the log that was reached, and empty a long log that was read to its
        end.
        """
        if self._file is None:
            return
        if self._offset - self._freed >= TRUNCATE_AT:
            self._free()
        write_atomically(self._place, f"{self._inode} {self._offset}\n".encode())

    def bound(self) -> None:
        """Give up the oldest of too many unread lines, as `lines` does. Call it while nobody takes
        lines.
        """
        if self._opened():
            self._catch_up()

    def _free(self) -> None:
        """Give the disk back what is before the place reached."""
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size == self._offset:
            self._file.truncate(0)
            self._offset = self._freed = 0
        elif free_beginning(self._file.fileno(), self._offset):
            self._freed = self._offset

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _place(self) -> Path:
        return self.path.with_name(self.path.name + ".place")

    def _opened(self) -> bool:
        """Open the file, or the new one that took its place once the old one is read. Return
        whether one is open.
        """
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return self._file is not None
        if (
            self._file is not None
            and self._inode != there.st_ino
            and self._offset >= os.fstat(self._file.fileno()).st_size
        ):
            self.close()
        if self._file is None:
            # Writable, because emptying it is our task; unbuffered, because another process writes
            # it.
            self._file = self.path.open("r+b", buffering=0)
            self._inode = os.fstat(self._file.fileno()).st_ino
            self._offset = self._freed = self._remembered()
        return True

    def _remembered(self) -> int:
        try:
            inode, offset = self._place.read_text().split()
            return int(offset) if int(inode) == self._inode else 0
        except (FileNotFoundError, ValueError):
            return 0

    def _catch_up(self) -> None:
        """Begin anew in a file that was emptied; give up the oldest of too many unread lines."""
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        if size < self._offset:  # someone emptied it
            self._offset = self._freed = 0
            self._in_long_line = False
        elif size - self._offset > MAX_BEHIND:
            self._give_up(size)

    def _give_up(self, size: int) -> None:
        """Give up all but the last KEPT_BEHIND of `size` bytes, whole lines, and count them."""
        assert self._file is not None
        self._file.seek(self._offset)
        while (left := size - KEPT_BEHIND - self._offset) > 0:
            read = self._file.read(min(READ_BYTES, left))
            end = read.rfind(b"\n") + 1
            # the beginning of a line that stays; a longer one is none, and `lines` skips its rest
            if not end and len(read) <= MAX_LINE:
                break
            self.given_up += read.count(b"\n")
            self._offset += end or len(read)
            self._in_long_line = not end
            self._file.seek(self._offset)
        log.warning("The log was too far behind: %d lines are given up so far.", self.given_up)
        if not free_beginning(self._file.fileno(), self._offset):
            # the whole file, rather than fill the disk: the lines that were kept go, too
            while read := self._file.read(READ_BYTES):
                self.given_up += read.count(b"\n")
            self._file.truncate(0)
            self._offset = self._freed = 0
        self.keep_place()


@dataclass
class Feedback:
    """The mover of outcomes from the log to the stream. `clock` returns unix seconds."""

    tail: Tail
    client: redis.Redis
    clock: Callable[[], float] = time.time
    watch: GatewayWatch = field(default_factory=lambda: GatewayWatch("gateway", GATEWAY_S))
    statistics: EnvoyStatistics | None = None
    sealer: Sealer | None = None
    """None where this program has no key: deciders then take its outcomes only when told to."""
    sent: int = 0
    skipped: int = 0
    _waiting: list[Outcome] = field(default_factory=list)
    """Read but not yet in the stream, at most one read's worth."""
    _told_at: float = float("-inf")

    def step(self) -> bool:
        """Send what the log has next. Return whether there may be more at once.

        Raise redis.RedisError when Valkey is away; the next call sends the same outcomes.
        """
        if not self._waiting:
            lines = self.tail.lines()
            self._waiting = list(self._outcomes(lines))
            if not self._waiting:
                if lines:
                    self.tail.keep_place()
                return bool(lines)
        pipeline = self.client.pipeline(transaction=True)
        for start in range(0, len(self._waiting), BATCH):
            batch = self._sealed(self._waiting[start : start + BATCH])
            pipeline.xadd(OUTCOMES_STREAM, batch, maxlen=OUTCOMES_MAXLEN, approximate=True)
        pipeline.execute()
        # The place is kept only after the send, so a crash between them repeats and never loses.
        self.sent += len(self._waiting)
        self._waiting = []
        self.tail.keep_place()
        return True

    def _sealed(self, outcomes: list[Outcome]) -> dict[Any, Any]:
        """Return an entry of the stream. Each sending has a seal of its own, because an entry that
        waited for Valkey would look like an old one that was put back.
        """
        body = _encode(outcomes)
        if self.sealer is None:
            return {BODY: body}
        return {BODY: body, SEAL: self.sealer.seal(body, self.clock())}

    def tell(self) -> None:
        """Tell once in TELL_S what the gateway says of its questions to deciders.

        Raise redis.RedisError when Valkey is away.
        """
        now = time.monotonic()
        if now - self._told_at < TELL_S:
            return
        self._told_at = now
        if self.statistics is not None:
            self.watch.note_reported(self.statistics.more(), now)
        self.watch.given_up = self.tail.given_up
        status = self.watch.status(self.clock(), now)
        pipeline = self.client.pipeline(transaction=False)
        pipeline.hset(GATEWAYS_KEY, status.gateway, _encode(status))
        pipeline.expire(GATEWAYS_KEY, GATEWAYS_TTL_S)
        pipeline.execute()

    def run(self, stop: threading.Event) -> None:
        """Send outcomes until `stop` is set; wait for Valkey as long as it takes."""
        away = 0.0
        while not stop.is_set():
            begun = time.monotonic()
            try:
                self.tell()
                while self.step() and not stop.is_set():
                    if away:
                        log.info("Valkey answers again after %.0f s.", begun - away)
                        away = 0.0
                    if time.monotonic() - begun > EVERY_S:
                        break
            except redis.RedisError as error:
                if not away:
                    away = begun
                    log.warning("Valkey is away (%s); the log is kept meanwhile.", error)
                # nothing is read meanwhile, and the gateway goes on writing
                self.tail.bound()
                stop.wait(1.0)
            stop.wait(max(0.0, EVERY_S - (time.monotonic() - begun)))

    def _outcomes(self, lines: list[bytes]) -> Iterator[Outcome]:
        now = self.clock()
        for line in lines:
            try:
                if len(line) > MAX_LINE:
                    raise ValueError(f"a line of {len(line)} bytes is longer than {MAX_LINE}")
                read = read_line(line)
                if read.asked:
                    self.watch.note(read.check_ms, read.unasked, time.monotonic())
                told = outcome_of(read, now)
            except (ValueError, OverflowError, RecursionError) as error:
                self.skipped += 1
                # The 1st, 2nd, 4th, 8th, ... only: a hostile log must not fill ours.
                if self.skipped & (self.skipped - 1) == 0:
                    log.warning(
                        "%d lines of the log were not the gateway's so far; the last: %s",
                        self.skipped,
                        error,
                    )
                continue
            if told is not None:
                yield told


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    """Add what is to be known of the gateway."""
    parser.add_argument(
        "--gateway",
        default=socket.gethostname()[:MOST_NAME],
        help="name of the gateway, unique in the installation (default: this machine's)",
    )
    parser.add_argument(
        "--gateway-waits",
        type=float,
        default=GATEWAY_S,
        metavar="SECONDS",
        help="how long the gateway waits for a decision (default: %(default)s)",
    )
    parser.add_argument(
        "--envoy-admin",
        metavar="ADDRESS",
        help="Envoy's admin interface, unix:PATH or http://HOST:PORT: its count of checks without"
        " an answer is read beside the log",
    )


def _check_gateway(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not 0.0 < options.gateway_waits <= MOST_WAIT_S:
        parser.error(f"--gateway-waits must be above 0 and at most {MOST_WAIT_S:.0f} seconds")
    if _name(options.gateway) is None:
        parser.error("--gateway must be 1 to 128 visible ASCII characters")
    if options.envoy_admin and not options.envoy_admin.startswith(_ADMIN):
        parser.error(f"--envoy-admin must begin with one of {', '.join(_ADMIN)}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m decider.node.feedback",
        description="Sends a gateway's outcomes to the deciders.",
    )
    parser.add_argument("--log", type=Path, required=True, help="the gateway's JSON access log")
    parser.add_argument(
        "--valkey",
        default=os.environ.get("VALKEY_URL"),
        help="address of Valkey (default: VALKEY_URL)",
    )
    parser.add_argument(
        "--outcomes-key",
        type=Path,
        metavar="FILE",
        help=f"key of the outcomes, `{KEY_FILE}` of the console's keys; without it deciders believe"
        " no outcome unless they run with --unsealed-outcomes",
    )
    _add_gateway(parser)
    options = parser.parse_args()
    _check_gateway(parser, options)
    if not options.valkey:
        parser.error("say where Valkey is: --valkey redis://host:6379/0, or set VALKEY_URL")
    return options


def _sealer_of(options: argparse.Namespace) -> Sealer | None:
    """Return the maker of the outcomes' seals; None without a key. Raise KeyFileError."""
    if options.outcomes_key is None:
        return None
    return Sealer(read_key(options.outcomes_key), options.gateway)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    options = _parse()
    try:
        check_user(options.valkey, Role.FEEDBACK)
        sealer = _sealer_of(options)
    except (StoreUserError, KeyFileError) as error:
        sys.exit(f"feedback: {error}")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if sealer is None:
        log.warning("outcomes are not sealed: there is no --outcomes-key")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    client = redis.Redis.from_url(options.valkey, socket_timeout=2, socket_connect_timeout=2)
    feedback = Feedback(
        Tail(options.log),
        client,
        watch=GatewayWatch(options.gateway, options.gateway_waits),
        statistics=EnvoyStatistics(options.envoy_admin) if options.envoy_admin else None,
        sealer=sealer,
    )
    log.info("reading %s", options.log)
    feedback.run(stop)
    feedback.tail.close()
    client.close()
    log.info("stopped after %d outcomes and %d lines skipped", feedback.sent, feedback.skipped)


if __name__ == "__main__":
    main()
