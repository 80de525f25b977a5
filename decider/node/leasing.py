"""The exchange of leases with the store, and the rebuilding of the store's ledger of leases.

The store keeps a ledger of what each node has leased today (docs/adr/0038). A ledger has an id,
which goes when the data goes. Nobody leases from a ledger that it has not entered its own leases
into, and a new ledger opens only when all nodes that may hold leases are in it. So a store that was
emptied or restored leases nothing anew; until the ledger is rebuilt, nodes live on what they hold.
Nor is the store believed beyond the config document: no node takes more than the pool of a quota.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError

from decider.contracts import store
from decider.engine.engine import Engine
from decider.engine.quota import POOL_SHARE
from decider.node.lease_ledger import OWN, LeaseLedger, LedgerError, day_of, last_day

# Leases in one call. Chosen: one answer stays small, and the store is busy for about a millisecond.
MOST_LEASES = 200
# Apps entered, copied or given back in one call. Chosen: as above; these come seldom.
MOST_ENTRIES = 500
# Copied leases in one write. Chosen: some megabytes; 500,000 leases are written in 3 s, and in
# writes of 500 it would be 18 s.
MOST_COPIED = 20_000
# Seconds for which a new ledger stays closed at least. Chosen: three looks of each node, so that
# nodes which have not met yet are in it before anything is leased from it.
GRACE_S = 3.0
# Seconds without a new heartbeat after which a node's leases are copied. A node without a heartbeat
# in the store cannot lease, so the copy is whole.
SILENT_S = float(store.NODE_TTL_S)
# Most requests of one app that a copied entry may say: the most that a document may grant.
MOST_REQUESTS = 10**12
# Most nodes that are told apart: the most that a document may name.
MOST_NODES = 4_096
# What an answer raises that has another form than its command gives.
UNREADABLE = (TypeError, ValueError, AttributeError, LookupError, OverflowError)
# What scripts answer for a count that is wrong.
WRONG = -2

_LEASE, _GIVE_BACK, _JOIN, _ENTER = (
    (Path(__file__).parent / "resources" / f"{name}.lua").read_text()
    for name in ("lease", "give_back", "join", "enter")
)


class Leasing:
    """The leases of one engine: asked for, taken, given back, and accounted for."""

    def __init__(
        self, valkey: Any, engine: Engine, ledger: LeaseLedger, note: Callable[[str], None]
    ) -> None:
        """Set up; nothing is leased before the first `look`. `note` is told of bad answers."""
        self.ledger = ledger
        self.waits_for = ""
        """What new leases wait for while the ledger is rebuilt; "" when they do not."""
        self.refused = 0
        """Answers to lease calls that were cut or refused: more than the document allows, or no
        number of requests.
        """
        self._store, self._engine, self._note = valkey, engine, note
        self._open = False
        self._wrong = ""
        self._calls = self._answered = 0
        # One at a time: what a node has entered into a new ledger must include each lease that it
        # took from the one before.
        self._turn = asyncio.Lock()

    def _keys(self, node: str, ledger_id: str) -> tuple[str, str, str]:
        """Return the keys of the ledger's head, of the day's leases, and of those of `node`."""
        day = f"{store.LEASES_PREFIX}{ledger_id}:{self.ledger.day}"
        return store.LEDGER_KEY, day, f"{day}:{node}"

    # ---- leases
    # ---------------------------------------------------------------------

    async def lease(self) -> bool:
        """Ask for the leases that are wanted. Return whether the store answered."""
        asked = list(self._engine.leases.wanted.items())[:MOST_LEASES]
        self._engine.leases.wanted.clear()
        async with self._turn:
            if not self._open:
                return False
            try:
                return await self._lease([(app, *want) for app, want in asked])
            except LedgerError as error:
                self._note(str(error))
                return False

    async def _lease(self, asked: list[tuple[str, float, int]]) -> bool:
        ledger, leases = self.ledger, self._engine.leases
        await self._turn_day()
        held = await asyncio.to_thread(ledger.held, [app for app, _, _ in asked])
        most: dict[str, int] = {}
        arguments: list[str | int] = []
        for app, quota, size in asked:
            pool, has = int(quota * POOL_SHARE), held.get(app, 0)
            if (room := min(size, pool - has)) > 0:
                most[app] = room
                arguments += [app, room, pool, has]
            else:  # whatever the store would say: this node has leased all of the pool itself
                leases.leased_out(app, quota)
        if not most:
            return True
        answer = await self._call(arguments)
        if answer == -1:
            self._open = False
            return False
        taken = self._checked(answer, most)
        # before any is used: a node that is killed must know what it has leased
        await asyncio.to_thread(ledger.add, {app: n for app, n in taken.items() if n})
        if day_of(time.time()) != ledger.day:
            return True  # the leases are of a day that has ended, and its quota with it
        for app, quota, _ in asked:
            if taken.get(app):
                leases.grant(app, float(taken[app]))
            elif app in taken:
                leases.leased_out(app, quota)
        return True

    async def _call(self, arguments: list[str | int]) -> object:
        self._calls += 1
        node, ledger = self._engine.node, self.ledger
        head = (ledger.id, ledger.day, node, self._calls)
        keys = (*self._keys(node, ledger.id), store.NODE_PREFIX + node)
        try:
            answer = await self._store.eval(_LEASE, len(keys), *keys, *head, *arguments)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            answer = WRONG
        if answer == WRONG:
            self._distrust("a part of it is gone or no list of leases")
            return -1
        if answer != -1:
            self._answered = self._calls
        return answer

    def _checked(self, answer: object, most: dict[str, int]) -> dict[str, int]:
        """Return the requests to take of each app, as far as its answer makes sense. `most`: the
        most that may be taken; no answer of the store raises it.
        """
        if not isinstance(answer, list) or len(answer) != len(most):
            self.refused += len(most)
            self._note(f"the store answered {_short(answer)} to {len(most)} leases")
            return {}
        taken: dict[str, int] = {}
        for (app, room), requests in zip(most.items(), answer, strict=True):
            if type(requests) is int and 0 <= requests <= room:
                taken[app] = requests
                continue
            if requests == WRONG:
                self._distrust(f"its count for {app} is wrong")
            self.refused += 1
            self._note(f"the store granted {_short(requests)} of {app}, at most {room} are due")
            if type(requests) is int and requests > room:
                taken[app] = room
        return taken

    def _distrust(self, why: str) -> None:
        """Have the store's ledger rebuilt."""
        self._note(f"the ledger of leases is rebuilt: {why}")
        self._wrong, self._open = self.ledger.id, False

    async def give_back(self) -> None:
        """Give the unused parts of leases back to the store. Call it once no more requests are
        decided.
        """
        async with self._turn:
            await self._turn_day()
            unused = list(self._engine.leases.give_back(time.time()).items())
            keys = self._keys(self._engine.node, self.ledger.id)
            for at in range(0, len(unused), MOST_ENTRIES):
                part = unused[at : at + MOST_ENTRIES]
                # This node's file first: if it said more than the store, the store would look as if
                # it had lost leases.
                await asyncio.to_thread(self.ledger.add, {app: -n for app, n in part})
                await self._store.eval(_GIVE_BACK, 3, *keys, self.ledger.id, *_flat(part))

    # ---- the ledger
    # ---------------------------------------------------------------------

    async def look(self) -> None:
        """Look whether the store's ledger is still the one that this node is in, and do this node's
        part in rebuilding it. Copy what nodes that have gone silent had leased.
        """
        try:
            async with self._turn:
                await self._see()
                await self._join()
            if self._open:
                await self._copy_silent()
        except (LedgerError, *UNREADABLE) as error:
            self._open, self.waits_for = False, f"a ledger that can be read ({error})"

    async def _turn_day(self) -> None:
        now = time.time()
        if day_of(now) != self.ledger.day:
            await asyncio.to_thread(self.ledger.turn, now)

    async def _see(self) -> None:
        """Note which other nodes are alive, or may have leased today."""
        await self._turn_day()
        now = time.time()
        found = await self._store.zrangebyscore(
            *(store.NODES_KEY, now - 86_400.0, now + 86_400.0), 0, MOST_NODES, withscores=True
        )
        beats = {
            name.decode("utf-8", "replace"): float(at)
            for name, at in found
            if last_day(float(at)) >= self.ledger.day
        }
        beats.pop(self._engine.node, None)
        if len(self.ledger.peers.keys() | beats.keys()) > MOST_NODES:
            raise LedgerError(f"more than {MOST_NODES} deciders were seen today")
        await asyncio.to_thread(self.ledger.see, beats, time.monotonic())

    async def _join(self) -> None:
        ledger = self.ledger
        found, is_open, missing = await self._ask_to_join([])
        if found != ledger.id or not is_open:
            entered = await self._enter(found, missing) if ledger.id or is_open else []
            found, is_open, missing = await self._ask_to_join(entered)
        self._open = is_open and found == ledger.id
        self.waits_for = "" if self._open else _waiting(missing)

    async def _ask_to_join(self, vouched: list[str]) -> tuple[str, bool, list[str]]:
        """Return the id of the store's ledger, whether it is open, and who is missing in it.
        `vouched`: nodes whose leases this node has entered into it.
        """
        ledger = self.ledger
        head = (secrets.token_hex(8), self._wrong, ledger.id, ledger.day, self._engine.node)
        known = (repr(ledger.known_since), self._answered, GRACE_S, len(vouched), *vouched)
        wanted = [(n, f"{last_day(p.last)} {p.first!r}") for n, p in ledger.peers.items()]
        found, is_open, *missing = await self._store.eval(
            _JOIN, 1, store.LEDGER_KEY, *head, *known, *_flat(wanted)
        )
        names = [str(name, "utf-8", "replace") for name in missing]
        self._wrong = ""
        return str(found, "ascii"), is_open == 1, names

    async def _enter(self, found: str, missing: list[str]) -> list[str]:
        """Enter what this node has leased today into the ledger `found`, and what those of the
        `missing` had leased of whom it has a copy. Return these.
        """
        ledger = self.ledger
        if not ledger.id:
            # A node without a memory: what it leased before it lost that is in a ledger that is
            # open, as nobody is missing there.
            await self._copy(found, self._engine.node, OWN)
            await asyncio.to_thread(ledger.enter, found, 0.0)
        elif found != ledger.id:
            await self._enter_rows(found, self._engine.node, OWN)
            await asyncio.to_thread(ledger.enter, found, ledger.known_since)
            self._answered = 0
        copied = [name for name in missing if name in ledger.peers and ledger.peers[name].copied]
        for name in copied:
            await self._enter_rows(found, name, name)
        return copied

    async def _enter_rows(self, found: str, node: str, filed_as: str) -> None:
        ledger, keys = self.ledger, self._keys(node, found)
        rows = await asyncio.to_thread(ledger.rows, filed_as, "", MOST_ENTRIES)
        while rows:
            done = await self._store.eval(_ENTER, 3, *keys, found, ledger.day, *_flat(rows))
            if done == WRONG:
                self._wrong = found
            if done != 1:
                raise LedgerError("the ledger changed while leases were entered into it")
            rows = await asyncio.to_thread(ledger.rows, filed_as, rows[-1][0], MOST_ENTRIES)

    async def _copy_silent(self) -> None:
        """Copy what nodes that have gone silent had leased, as long as the store still has it."""
        ledger = self.ledger
        found, day = ledger.id, ledger.day
        for node in ledger.silent(time.monotonic(), SILENT_S):
            await asyncio.to_thread(ledger.drop_copy, node)
            await self._copy(found, node, node)
            async with self._turn:
                # else it came back meanwhile, the store lost its data, or the day ended
                whole = await self._is_gone(node) and (ledger.id, ledger.day) == (found, day)
                end = ledger.finish_copy if whole else ledger.drop_copy
                await asyncio.to_thread(end, node)

    async def _is_gone(self, node: str) -> bool:
        """Return whether a node has not come back, and the ledger is still the one it was in."""
        async with self._store.pipeline(transaction=True) as pipe:
            pipe.hget(store.LEDGER_KEY, "id")
            pipe.exists(store.NODE_PREFIX + node)
            pipe.zscore(store.NODES_KEY, node)
            found, alive, beat = await pipe.execute()
        same = beat in (None, self.ledger.peers[node].beat)
        return bool(found == self.ledger.id.encode() and not alive and same)

    async def _copy(self, found: str, node: str, file_as: str) -> None:
        """Copy what `node` has leased from the ledger `found` into this node's file."""
        key, rows, cursor = self._keys(node, found)[-1], dict[str, int](), None
        while cursor != 0:
            cursor, items = await self._store.hscan(key, cursor or 0, count=MOST_ENTRIES)
            try:
                rows.update({app.decode(): int(requests) for app, requests in items.items()})
            except ValueError as error:
                self._wrong = found
                raise LedgerError(f"leases of {node} cannot be read: {error}") from error
            if any(not 0 <= requests <= MOST_REQUESTS for requests in rows.values()):
                self._wrong = found
                raise LedgerError(f"leases of {node} are out of range")
            if len(rows) >= MOST_COPIED or cursor == 0:
                # in the order of the file, of which then fewer pages are written
                await asyncio.to_thread(self.ledger.put, file_as, sorted(rows.items()))
                rows.clear()


def _flat(pairs: list[tuple[str, Any]]) -> list[Any]:
    return [value for pair in pairs for value in pair]


def _short(value: object) -> str:
    # chosen: enough to recognise it; the heartbeat carries it
    return repr(value)[:40]


def _waiting(missing: list[str]) -> str:
    """Return what a ledger that is rebuilt waits for."""
    if not missing:
        return "every decider’s report"
    # chosen: three names fit a line
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return ", ".join(sorted(missing)[:3]) + more
