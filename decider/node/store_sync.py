"""The decider's exchange with Valkey, all of it on the event loop: config push and poll, acks,
events, outcomes, profiles, known apps, leases.

Decisions go on whatever happens here. Each duty runs on its own, waits while the store is away, and
reports that in the heartbeat.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from decider.contracts import config as configs
from decider.contracts import store
from decider.contracts.config import MALFORMED
from decider.contracts.event import Event, EventBatch, encode_batch, too_long
from decider.contracts.ids import IdSource
from decider.contracts.sealed import profiles, told
from decider.contracts.sealed.codes import SealError
from decider.contracts.sealed.profiles import ProfileError
from decider.contracts.store import NodeStatus, Profile, TimelyStatus
from decider.contracts.vocabulary import MlState
from decider.engine.buffers import BAD_SCORES
from decider.engine.engine import Engine
from decider.engine.shared.peers import MOST_PEERS, REPORT_S
from decider.node import commands
from decider.node.config_keeper import Keeper
from decider.node.duties import Faults, keep_doing
from decider.node.identity_keeper import IdentityKeeper
from decider.node.known_keeper import KnownKeeper
from decider.node.lease_ledger import LeaseLedger
from decider.node.leasing import Leasing
from decider.node.outcome_intake import OutcomeIntake
from decider.node.routing_watch import RoutingWatch
from decider.scoring.score_watch import ScoreWatch

# Pauses of the duties, seconds, all chosen. Push: before subscribing again when a connection broke.
# Poll: a lost push delays a kill switch by this much. Flush: the live tail shows decisions this
# fresh. Status: well within NODE_TTL_S, so that lost heartbeats do no harm. Fetch: wants gather for
# this time, so that many apps share a round trip. Look: a store that lost the ledger of leases is
# noticed this soon.
PUSH_S, POLL_S, FLUSH_S, STATUS_S, FETCH_S, LOOK_S = 1.0, 2.0, 0.2, 1.0, 0.02, 1.0
# Seconds without a heartbeat after which a decider's reports are no longer asked for. Chosen: far
# above what machines' clocks differ by, as each decider dates its heartbeats by its own.
LISTED_S = 300.0
# Events in one stream entry at most. Chosen small, because encoding them holds up decisions.
BATCH_EVENTS = 500
# Weight of a new entry in the mean size of those sent lately. Chosen: over the last minute or so.
ENTRY_WEIGHT = 0.01
# Messages about known apps in one round trip. Chosen: some hundred kilobytes, which are read in a
# fraction of a millisecond.
KNOWN_MESSAGES = 8
# Seconds between two tries while the store is away. Chosen: soon enough after its return, and a
# store that starts bears two tries a second from each decider.
RETRY_S = 0.5
# Seconds for which the heartbeat names a bad message. Chosen: several heartbeats and looks at a
# page; the store's answer to the next poll says nothing about it.
BAD_SHOWN_S = 60.0

log = logging.getLogger("sluice.store_sync")


class StoreSync:
    """The exchange between one engine and the store: a set of duties that run until cancelled."""

    def __init__(
        self,
        url: str,
        engine: Engine,
        started_at: float,
        data: Path,
        *,
        unsealed_outcomes: bool = False,
    ) -> None:
        """Set up the exchange; it begins with `run`. `data`: this node's directory, with the file
        of its leases (leases.db). `unsealed_outcomes`: take outcomes without a seal, too.
        """
        self.store: Any = Redis.from_url(
            url, socket_timeout=2.0, socket_connect_timeout=1.0, health_check_interval=10
        )
        self.engine, self.started_at = engine, started_at
        self.routing = RoutingWatch(engine)
        self.timely: Callable[[], TimelyStatus] = TimelyStatus
        self.keeper: Keeper | None = None
        self.known: KnownKeeper | None = None
        self.identity: IdentityKeeper | None = None
        self.events_sent = 0
        self._store_error = ""
        self._bad_message, self._bad_until = "", 0.0
        # For commands that wait: reads block up to 5 s, which the short timeout above would cut.
        self._patient: Any = Redis.from_url(url, socket_timeout=10.0, socket_connect_timeout=1.0)
        self._ids = IdSource()
        # this run's name: ingest counts what each run has sent, stored and lost
        self._run = self._ids.one()
        self._unsent: EventBatch | None = None
        self._entry_bytes = 0.0
        """Mean size of the entries sent lately, bytes."""
        self._outcomes_from: Any = "$"
        self._wanted = asyncio.Event()
        self._ledger = LeaseLedger(data / "leases.db", time.time())
        self.leasing = Leasing(self.store, engine, self._ledger, self._note_bad)
        self._peers: list[str] | None = None
        self._profile_key = profiles.derive_key(engine.token_key)
        # keys of what the console is told
        self._status_key = told.HEARTBEAT.derive_key(engine.token_key)
        self._ack_key = told.ACK.derive_key(engine.token_key)
        self._answer_key = commands.ANSWER.derive_key(engine.token_key)
        self.outcomes = OutcomeIntake(engine.token_key, unsealed=unsealed_outcomes)
        self.rejected = 0
        """Profiles and outcomes that were ignored since the start."""
        self.faults = Faults()
        self._scores = ScoreWatch()

    @property
    def events_sampled(self) -> int:
        """Events since the start: sent, dropped and still here."""
        here = len(self.engine.events) + (len(self._unsent.events) if self._unsent else 0)
        return self.events_sent + self.engine.events_dropped + here

    @property
    def last_error(self) -> str:
        """What is wrong with the store, else the last bad message of BAD_SHOWN_S, else ""."""
        shown = self._bad_message if time.monotonic() < self._bad_until else ""
        return self._store_error or shown

    def _note_bad(self, message: str) -> None:
        self._bad_message, self._bad_until = message, time.monotonic() + BAD_SHOWN_S

    def look_at_wants(self) -> None:
        """Wake the fetching duty when decisions want a profile or a lease. Call it after
        decisions.
        """
        if self.engine.wanted_profiles or self.engine.leases.wanted:
            self._wanted.set()

    async def fetch_model(self, digest: str) -> bytes | None:
        """Return the bytes of an artifact from the store, None when the store does not have it.
        Raise OSError when the store is out of reach.
        """
        try:
            data: bytes | None = await self.store.get(store.MODEL_PREFIX + digest)
        except RedisError as error:
            raise OSError(f"the store is out of reach: {error}") from error
        return data

    async def run(self, keeper: Keeper, known: KnownKeeper) -> None:
        """Run all duties until cancelled."""
        self.keeper, self.known = keeper, known
        self.engine.sharing.peers.join(self.started_at)
        duties: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self._push, PUSH_S),
            (self._poll, POLL_S),
            (self._look_at_known, POLL_S),
            (self._ack, 0.0),
            (self._flush, FLUSH_S),
            (self._learn, 0.0),
            (self._fetch, FETCH_S),
            (self._obey, PUSH_S),
            (self._status, STATUS_S),
            (self.leasing.look, LOOK_S),
            (self._exchange, REPORT_S),
        ]
        async with asyncio.TaskGroup() as group:
            for duty, pause in duties:
                group.create_task(keep_doing(self._with_store(duty), pause, self.faults))

    def _with_store(self, duty: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Return a duty that waits while the store is away, and tells of it in the heartbeat."""

        @functools.wraps(duty)
        async def step() -> None:
            try:
                await duty()
            except (RedisError, OSError) as error:
                self._store_error = f"store: {error}"
                await asyncio.sleep(RETRY_S)
            except MALFORMED as error:
                self._note_bad(f"unreadable message from the store: {error}")
            except Exception as error:
                self._note_bad(f"{duty.__name__.strip('_')}: {error!r}")
                raise

        return step

    async def _push(self) -> None:
        """Listen for pushed documents and profiles, and poll once right after subscribing so that
        no document is missed.
        """
        assert self.keeper is not None
        async with self._patient.pubsub() as channel:
            await channel.subscribe(store.CONFIG_CHANNEL, store.PROFILES_CHANNEL)
            await self._poll()
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=5.0)
                if message is None:
                    await channel.ping()
                elif message["type"] == "message":
                    if message["channel"] == store.CONFIG_CHANNEL.encode():
                        self.keeper.offer(message["data"], "push")
                    else:
                        self._know(self._believed([message["data"]]))

    async def _obey(self) -> None:
        """Listen for signed commands about one app. This is apart from `_push`, so that no number
        of commands holds up a config.
        """
        assert self.keeper is not None
        desk = commands.Desk(self.engine, self.keeper.keys, self.started_at)
        async with self._patient.pubsub() as channel:
            await channel.subscribe(store.COMMANDS_CHANNEL)
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=5.0)
                if message is None:
                    await channel.ping()
                elif message["type"] == "message":
                    await self._answer(desk, message["data"])

    async def _answer(self, desk: commands.Desk, data: bytes) -> None:
        try:
            answer = desk.obey(data, time.time())
        except commands.CommandError as error:
            self._note_bad(f"command refused: {error}")
            return
        async with self.store.pipeline(transaction=False) as pipe:
            data = told.seal(answer, self._answer_key)
            pipe.rpush(store.ANSWERS_PREFIX + answer.nonce, data)
            pipe.expire(store.ANSWERS_PREFIX + answer.nonce, store.ANSWERS_TTL_S)
            await pipe.execute()

    async def _poll(self) -> None:
        assert self.keeper is not None
        data = await self.store.get(store.CONFIG_KEY)
        self._store_error = ""
        if data is not None:
            self.keeper.offer(data, "poll")
        if self.keeper.needs_model():
            self.keeper.load_soon()

    async def _look_at_known(self) -> None:
        """Bring the table of known apps up to the store's."""
        assert self.known is not None
        after = f"({self.known.version}-0" if self.known.version else "-"
        found: list[Any] = [None] * KNOWN_MESSAGES
        while len(found) == KNOWN_MESSAGES:
            found = await self.store.xrange(store.KNOWN_STREAM, min=after, count=KNOWN_MESSAGES)
            for name, fields in found:
                # go on after this entry, even when it is refused below
                after = f"({name.decode('ascii')}"
                await self.known.offer(fields.get(b"b", b""), self._part)

    async def _part(self, digest: str) -> bytes | None:
        data: bytes | None = await self.store.get(store.KNOWN_PART_PREFIX + digest)
        return data

    async def _ack(self) -> None:
        assert self.keeper is not None
        ack = await self.keeper.acks.get()
        key, data = f"{store.ACKS_PREFIX}{ack.version}", told.seal(ack, self._ack_key)
        while True:
            try:
                async with self.store.pipeline(transaction=False) as pipe:
                    pipe.hset(key, ack.node, data)
                    pipe.expire(key, store.ACKS_TTL_S)
                    await pipe.execute()
                return
            except RedisError as error:
                self._store_error = f"store: {error}"
                await asyncio.sleep(RETRY_S)

    async def _flush(self) -> None:
        """Send the events that the sample kept. A batch that could not be sent is sent again under
        the same id.
        """
        # The same id, because a failed send may have arrived; ingest stores each id once.
        while self._unsent is not None or self.engine.events:
            if self._unsent is None:
                self._unsent = self._next_batch()
            data = encode_batch(self._unsent)
            # a sender's own entries stand for all: those of a fleet are about alike
            self._entry_bytes += ENTRY_WEIGHT * (len(data) - self._entry_bytes)
            most = min(store.EVENTS_MAXLEN, int(store.EVENTS_BYTES / max(self._entry_bytes, 1.0)))
            await self.store.xadd(store.EVENTS_STREAM, {"b": data}, maxlen=most, approximate=True)
            self.events_sent += len(self._unsent.events)
            self._unsent = None

    def _next_batch(self) -> EventBatch:
        """Take the next events from the engine. One with a text too long to be stored is dropped
        here, and counted.
        """
        engine = self.engine
        taken = engine.take_events(BATCH_EVENTS)
        events: list[Event] = [event for event in taken if not too_long(event)]
        if unfit := len(taken) - len(events):
            engine.events_dropped += unfit
            self._note_bad(f"{unfit} events have a text too long to be stored")
        return EventBatch(
            self._ids.one(),
            engine.node,
            time.time(),
            engine.events_dropped,
            events,
            self._run,
            self.events_sent,
        )

    async def _learn(self) -> None:
        """Learn from the outcomes of the whole region: at first from those that come from now on,
        and after an outage of the store from the last one read.
        """
        if self._outcomes_from == "$":
            newest = await self._patient.xrevrange(store.OUTCOMES_STREAM, count=1)
            self._outcomes_from = newest[0][0] if newest else "0"
        found = await self._patient.xread(
            {store.OUTCOMES_STREAM: self._outcomes_from}, count=100, block=5000
        )
        for _, entries in found:
            for entry_id, fields in entries:
                # Before decoding: an unreadable entry must not come back for ever.
                self._outcomes_from = entry_id
                try:
                    outcomes, bad = self.outcomes.take(entry_id, fields, time.time())
                except SealError as error:
                    self._reject(1, f"outcomes are not believed: {error}")
                    continue
                if bad:
                    self._reject(bad, f"{bad} outcomes are unreadable or out of range")
                self.engine.learn(outcomes)
                self.routing.look(outcomes, time.monotonic())

    async def _fetch(self) -> None:
        """Wait until decisions want something, and fetch it: profiles of apps seen for the first
        time, and leases for apps that have nearly used what this node holds of their quota.
        """
        await self._wanted.wait()
        asked_at, answered = time.time(), False
        try:
            await self._profiles()
            answered = not self.engine.leases.wanted or await self.leasing.lease()
        finally:
            self.engine.leases.heard(asked_at, answered=answered)
        if not (self.engine.wanted_profiles or self.engine.leases.wanted):
            self._wanted.clear()

    async def _profiles(self) -> None:
        if not self.engine.wanted_profiles:
            return
        apps = list(self.engine.wanted_profiles)[:500]
        found = await self.store.mget([store.PROFILE_PREFIX + app for app in apps])
        for app in apps:
            self.engine.wanted_profiles.pop(app, None)
        # one that lies at another app's key was not asked for
        self._know(
            profile
            for app, data in zip(apps, found, strict=True)
            for profile in self._believed([data] if data is not None else [])
            if profile.app == app
        )

    def _know(self, believed: Iterable[Profile]) -> None:
        """Apply profiles; count those that are older than what is held of their apps."""
        if older := self.engine.know(list(believed)):
            self._reject(older, f"{older} profiles are older than those held: were they put back?")

    def _believed(self, found: Sequence[bytes]) -> list[Profile]:
        """Return the profiles that the console made; count the others."""
        believed = []
        for data in found:
            try:
                believed.append(profiles.unseal(data, self._profile_key))
            except ProfileError as error:
                self._reject(1, str(error))
        return believed

    def _reject(self, count: int, why: str) -> None:
        self.rejected += count
        self._note_bad(why)

    async def _status(self) -> None:
        data, node = told.seal(self.status(), self._status_key), self.engine.node
        async with self.store.pipeline(transaction=False) as pipe:
            pipe.set(store.NODE_PREFIX + node, data, ex=store.NODE_TTL_S)
            pipe.zadd(store.NODES_KEY, {node: time.time()})
            pipe.zrangebyscore(store.NODES_KEY, time.time() - LISTED_S, "+inf", 0, MOST_PEERS)
            *_, found = await pipe.execute()
        self._peers = [name for one in found if (name := one.decode("utf-8", "replace")) != node]

    async def _exchange(self) -> None:
        """Tell the other deciders of this one's traffic, and hear of theirs."""
        engine = self.engine
        # until the first heartbeat, this decider does not know whom to ask
        if engine.config is None or self._peers is None:
            return
        keys = [store.REPORT_PREFIX + name for name in self._peers]
        async with self.store.pipeline(transaction=False) as pipe:
            data = engine.sharing.speak(engine.clock.at(None))
            pipe.set(store.REPORT_PREFIX + engine.node, data, ex=store.REPORT_TTL_S)
            if keys:
                pipe.mget(keys)
            _, *heard = await pipe.execute()
        engine.sharing.hear(heard[0] if heard else [], engine.clock.at(None))

    def status(self) -> NodeStatus:
        """Return this node's state for the heartbeat."""
        engine, now = self.engine, time.time()
        keeper_error = (
            "" if self.keeper is None else self.keeper.model_error or self.keeper.last_error
        )
        return NodeStatus(
            node=engine.node,
            region=engine.region_name,
            at=now,
            started_at=self.started_at,
            config_version=engine.config.version if engine.config else 0,
            model=engine.model.digest if engine.model else "",
            ml_state=int(self.ml_state(now)),
            decisions=int(engine.sample.counts.sum()),
            by_action=engine.sample.counts.tolist(),
            events_sent=self.events_sent,
            events_dropped=engine.events_dropped,
            apps=engine.apps,
            latency_p99_us=engine.batch_times.p99_us(),
            services=engine.services(now) if engine.config else [],
            last_error=store.cut(
                keeper_error or self.last_error or (self.known.last_error if self.known else "")
            ),
            config_format=configs.FORMAT,
            clock_steps=engine.clock.steps,
            known_apps=self.known.apps if self.known else 0,
            known_version=self.known.version if self.known else 0,
            known_rejected=self.known.rejected if self.known else 0,
            leases_wait=store.cut(self.leasing.waits_for),
            leases_refused=self.leasing.refused,
            routing=self.routing.status(time.monotonic()),
            identity=self.identity.status() if self.identity else store.IdentityStatus(),
            timely=self.timely(),
            messages_rejected=self.rejected,
            outcomes=self.outcomes.status(),
            **self._fleet_status(),
        )

    @property
    def bad_scores(self) -> int:
        """Scores of the model since the start that were no numbers between 0 and 1."""
        return int(self.engine.batch.serial[BAD_SCORES])

    def ml_state(self, now: float) -> MlState:
        """Return how ML fares, as the heartbeat tells it. `now`: unix seconds."""
        engine = self.engine
        model = engine.model.digest if engine.model else ""
        return self._scores.ml_state(engine.ml_state(now), self.bad_scores, model, time.monotonic())

    def _fleet_status(self) -> dict[str, Any]:
        """Return what the heartbeat says of the other deciders."""
        peers, now = self.engine.sharing.peers, self.engine.clock.at(None)
        return {
            "peers": len(peers.alive(now)),
            "alone": peers.silent(now),
            "reports_rejected": peers.rejected,
        }

    async def close(self) -> None:
        """Send what is left and give leases back, if the store answers, then close the connections.

        Sending and giving back get one second each: a store that is away must not hold up the end
        of the process.
        """
        for duty in (self._flush, self.leasing.give_back):
            try:
                await asyncio.wait_for(duty(), 1.0)
            except (RedisError, OSError, TimeoutError) as error:
                self._store_error = f"store: {error}"
        self._tell_unsent()
        self._ledger.close()
        await self.store.aclose()
        await self._patient.aclose()

    def _tell_unsent(self) -> None:
        """Say how many sampled events end with this process."""
        left = self.events_sampled - self.events_sent - self.engine.events_dropped
        if left:
            log.error(
                "%d sampled events could not be sent before the end and are lost; %d were dropped"
                " and %d sent since the start",
                left,
                self.engine.events_dropped,
                self.events_sent,
            )
