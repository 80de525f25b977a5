"""What a node remembers about leases of today's quotas, in a file of its own: what it has leased,
which other deciders it saw, and what those that have gone had leased.

The store's ledger is rebuilt from it (`leasing`). It is a SQLite file and not a table in memory, as
a node may lease for millions of apps in a day; docs/adr/0038 says what it takes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeVar

from decider.contracts.store import NODE_TTL_S

# Seconds between two times at which the file notes the last heartbeat of a node. Chosen: each time
# flushes the disk once, and a restart counts the node as alive for so much longer.
NOTE_S = 10.0
# How this node's own leases are filed: no node has this name.
OWN = ""

_TABLES = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    node TEXT NOT NULL, app TEXT NOT NULL, requests INTEGER NOT NULL, PRIMARY KEY (node, app)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peer (
    node TEXT PRIMARY KEY, first REAL NOT NULL, last REAL NOT NULL, copied INTEGER NOT NULL
) WITHOUT ROWID;
"""

_T = TypeVar("_T")


class LedgerError(OSError):
    """The ledger's file cannot be read or written."""


@dataclass
class Peer:
    """Another decider that this node has seen. Heartbeats: unix seconds by its clock."""

    first: float
    last: float
    """The latest of its heartbeats."""
    beat: float | None
    """Its last heartbeat: earlier than `last` after its clock went back; None: not seen yet since
    this node started.
    """
    moved: float
    """When `beat` changed, monotonic seconds of this node."""
    noted: float
    """`last` as the file has it."""
    copied: bool = False
    """Whether this node has a copy of all leases that the other one took until it fell silent."""


def day_of(at: float) -> str:
    """Return the UTC day (YYYYMMDD) of a unix time."""
    return time.strftime("%Y%m%d", time.gmtime(at))


class LeaseLedger:
    """The ledger of one node. Threads may call it: each call holds a lock. All may raise
    LedgerError.
    """

    def __init__(self, path: Path, now: float) -> None:
        """Open the file at `path`, or make it. One that is damaged is made anew: then the node does
        not know what it had leased before `now` (unix seconds).
        """
        self._lock = Lock()
        self.day = self.id = ""
        self.known_since = 0.0
        """Unix seconds since which this node knows its leases of the day; 0: of the whole day."""
        self.peers: dict[str, Peer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open(path)
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{path} cannot be opened: {error}") from error
        except (sqlite3.DatabaseError, ValueError):
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
            self._open(path)
        if not self.day:
            self._begin(day_of(now), now)

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False)
        try:
            # one flush to the disk per write, which a lease waits for
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
            facts = dict(self._db.execute("SELECT name, value FROM fact"))
            known_since = float(facts.get("known_since", 0.0))
            rows = self._db.execute("SELECT node, first, last, copied FROM peer").fetchall()
        except (sqlite3.Error, ValueError):
            self._db.close()
            raise
        self.day, self.id = facts.get("day", ""), facts.get("id", "")
        self.known_since = known_since
        for node, first, last, copied in rows:
            # it may have been alive for a while after the file noted it
            known, beat = (last, last) if copied else (last + NOTE_S, None)
            self.peers[node] = Peer(first, known, beat, time.monotonic(), last, bool(copied))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            with self._lock, self._db:
                return work(self._db)
        except sqlite3.Error as error:
            raise LedgerError(f"leases could not be noted on disk: {error}") from error

    def turn(self, now: float) -> None:
        """Forget the leases of another day than that of `now`, and the nodes that cannot have
        leased since.
        """
        if (day := day_of(now)) != self.day:
            # a clock that went back: what was leased on that day is forgotten
            self._begin(day, 0.0 if day > self.day else now)

    def _begin(self, day: str, known_since: float) -> None:
        peers = {name: peer for name, peer in self.peers.items() if last_day(peer.last) >= day}
        gone = [(name,) for name in self.peers.keys() - peers.keys()]

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM lease")
            db.execute("UPDATE peer SET copied = 0")
            db.executemany("DELETE FROM peer WHERE node = ?", gone)
            _note(db, day=day, known_since=repr(known_since))

        self._write(work)
        for peer in peers.values():
            peer.copied = False
        self.day, self.known_since, self.peers = day, known_since, peers

    def enter(self, ledger_id: str, known_since: float) -> None:
        """Note that this node's leases are in the store's ledger of this id, and since when this
        node knows them.
        """
        self._write(lambda db: _note(db, id=ledger_id, known_since=repr(known_since)))
        self.id, self.known_since = ledger_id, known_since

    def held(self, apps: list[str]) -> dict[str, int]:
        """Return what this node has leased today for each of these apps, where it has."""
        marks = ",".join("?" * len(apps))
        query = f"SELECT app, requests FROM lease WHERE node = ? AND app IN ({marks})"  # noqa: S608
        return self._write(lambda db: dict(db.execute(query, (OWN, *apps))))

    def add(self, changes: dict[str, int]) -> None:
        """Add to what this node has leased, by app; negative for what it gives back. It is on the
        disk when this returns.
        """
        self._write(
            lambda db: db.executemany(
                "INSERT INTO lease VALUES (?, ?, max(0, ?)) ON CONFLICT (node, app)"
                " DO UPDATE SET requests = max(0, requests + ?)",
                [(OWN, app, requests, requests) for app, requests in changes.items()],
            )
        )

    def put(self, node: str, rows: Iterable[tuple[str, int]]) -> None:
        """Note what a node has leased, app by app."""
        self._write(
            lambda db: db.executemany(
                "INSERT OR REPLACE INTO lease VALUES (?, ?, ?)",
                [(node, app, requests) for app, requests in rows],
            )
        )

    def rows(self, node: str, after: str, most: int) -> list[tuple[str, int]]:
        """Return at most `most` apps behind `after` of which a node has leased, with how much."""
        query = "SELECT app, requests FROM lease WHERE node = ? AND app > ? ORDER BY app LIMIT ?"
        return self._write(lambda db: db.execute(query, (node, after, most)).fetchall())

    def see(self, heartbeats: dict[str, float], moment: float) -> None:
        """Note the last heartbeats of other nodes (unix seconds by their clocks) as read at
        `moment` (monotonic seconds). A node that is back is no longer vouched for.
        """
        for name, at in heartbeats.items():
            peer = self.peers.setdefault(name, Peer(at, at, None, moment, noted=0.0))
            if at == peer.beat:
                continue
            if peer.copied:
                self.drop_copy(name)
            peer.beat, peer.last, peer.moved = at, max(at, peer.last), moment
        due = [n for n, p in self.peers.items() if p.last - p.noted >= NOTE_S]
        if due:
            self._note_peers(due)

    def _note_peers(self, names: list[str]) -> None:
        peers = [(name, self.peers[name]) for name in names]
        rows = [(name, peer.first, peer.last, peer.copied) for name, peer in peers]
        self._write(lambda db: db.executemany("INSERT OR REPLACE INTO peer VALUES (?,?,?,?)", rows))
        for _, peer in peers:
            peer.noted = peer.last

    def silent(self, moment: float, for_s: float) -> list[str]:
        """Return the nodes that have been silent for `for_s` seconds at `moment` (monotonic) and of
        whose leases there is no copy.
        """
        return [n for n, p in self.peers.items() if not p.copied and moment - p.moved >= for_s]

    def drop_copy(self, node: str) -> None:
        """Forget what another node had leased: it may lease again, or is copied anew."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM lease WHERE node = ?", (node,))
            db.execute("UPDATE peer SET copied = 0 WHERE node = ?", (node,))

        self._write(work)
        self.peers[node].copied = False

    def finish_copy(self, node: str) -> None:
        """Note that the copy of a node's leases is whole: it will not lease before it is seen."""
        self.peers[node].copied = True
        self._note_peers([node])


def last_day(beat: float) -> str:
    """Return the last day (YYYYMMDD) of which a node may lease after its last heartbeat."""
    # it may lease as long as its heartbeat is in the store
    return day_of(beat + NODE_TTL_S)


def _note(db: sqlite3.Connection, **facts: str) -> None:
    db.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", list(facts.items()))
