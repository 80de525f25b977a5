"""The engine: packs requests, runs the kernels, asks the model in between, unpacks decisions.

It knows no network and no file. One thread uses it; a config or model is swapped between two calls.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import starmap

import numpy as np

from decider import policy
from decider.contracts.config import (
    ALL_ML,
    OBSERVE_ONLY,
    Config,
    Sampling,
    UnknownApps,
    engaged_until,
)
from decider.contracts.event import Event
from decider.contracts.features import SCHEMA
from decider.contracts.ids import random_tails, token_digest
from decider.contracts.requests import CheckRequest, Decision, Outcome
from decider.contracts.store import Profile, ServiceStatus
from decider.contracts.vocabulary import Arm, MlState
from decider.engine import (
    address_table,
    kernels,
    lists,
    text_hash,
)
from decider.engine import buffers as layout
from decider.engine.batch_times import BatchTimes
from decider.engine.clock import Clock
from decider.engine.known_apps.review import KnownTable
from decider.engine.known_apps.table import KnownApps
from decider.engine.leases import Leases
from decider.engine.memory import app_state, profile_rows, source_table, usual
from decider.engine.routing import Route, Router, Strays
from decider.engine.shared.peers import Peers
from decider.engine.shared.sharing import Sharing
from decider.engine.shared.state import Region
from decider.engine.shared.tenants import MAX_TENANTS, Tenants
from decider.engine.text_hash import TextHash
from decider.refusal.client import Basis, Teller
from decider.scoring.model import Model, Workspace

# Requests decided in one call; more are cut into parts. Chosen: four of the edge's batches, so that
# replays gain from it while the buffers stay small.
MAX_BATCH = 1024
# Sampled decisions that wait to be sent: fifty seconds of the sampling budget. When the store is
# gone for longer, the oldest are dropped and counted.
EVENT_BUFFER = 20_000
# Seconds for which a late model is not asked. Chosen: long enough that it costs few slow batches,
# short enough that a hiccup does not switch ML off for long.
LATE_PAUSE_S = 1.0
# Apps for each row of the table of addresses. Chosen: it costs about eighteen bytes an app. Where
# more addresses send within ten minutes, those seen longest ago are forgotten.
APPS_PER_SOURCE = 4
# Slow batches after which a model counts as late. Chosen: a single one is more often the operating
# system's fault than the model's.
SLOW_IN_A_ROW = 3
# Endpoints of outcomes whose hashes are kept. Chosen: many times those of a platform.
MOST_ENDPOINT_KEYS = 16_384
# Room for the texts of a batch at first: 256 requests of the usual size. It grows to the largest
# batch that came, which the edge bounds.
TEXT_BYTES = 65_536

_PACK = struct.Struct(layout.REQUEST_FORMAT)
_pack_into = _PACK.pack_into
_UNPACK = struct.Struct(layout.ANSWER_FORMAT)
_OUTCOME = struct.Struct(layout.OUTCOME_FORMAT)


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.data).cast("B")


class Engine:
    """The decider of requests, with all it knows of apps, tenants and services.

    Times in arguments and results are unix seconds of the wall clock, unless a method says engine
    time; inside, everything counts in engine time (`clock`). Simulations and replays pass `now`.
    """

    def __init__(
        self,
        node: str,
        region: str,
        token_key: bytes,
        capacity: int = 1_000_000,
        quota_share: float = 1.0,
        keep_all: bool = False,
        trust_attempts: bool = False,
    ) -> None:
        """Make an engine that tracks up to `capacity` apps. It decides once `apply` was called.

        `quota_share`: share of each daily quota that this node owns without a lease. `keep_all`
        keeps every non-admit and ignores the sampling budget (for replays of a log).
        `trust_attempts`: whether to believe a request's `attempt`. Set it only where a gateway sets
        `attempt`; otherwise a client could choose what its requests count as.
        """
        self.node, self.region_name, self.quota_share = node, region, quota_share
        self.token_key, self.keep_all = token_key, keep_all
        self.trust_attempts = trust_attempts
        self.text_hash, self.strays = TextHash(token_key), Strays()
        self.clock = Clock()
        self.config: Config | None = None
        self.model: Model | None = None
        self.teller: Teller | None = None
        """It tells refused clients why; None where there are no clients."""
        self.state = app_state.allocate(capacity)
        self.sources = source_table.allocate(max(1024, capacity // APPS_PER_SOURCE))
        self.usual = usual.allocate(MAX_TENANTS)
        self.leases = Leases(self.state, self.slot_of)
        self.events: deque[Event] = deque()
        self.events_dropped = 0
        # a dict as an ordered set: the app asked for first is fetched first
        self.wanted_profiles: dict[str, None] = {}
        self.last_decision_at = 0.0
        self.batch_times = BatchTimes()
        self._hurried = False
        self.tenants = Tenants()
        self._endpoint_keys: dict[str, int] = {}
        self._slow_in_a_row = 0
        self._late_until = self._ml_off_until = self._observe_until = 0.0
        self._allocate_buffers()
        self.sharing = Sharing(self.arena, Peers(node, token_key))

    def _allocate_buffers(self) -> None:
        """Allocate all that the kernels work in, once, so that a decision allocates none of it."""
        self.batch, self._ahead = layout.allocate(MAX_BATCH), layout.allocate(MAX_BATCH)
        self.features, self.signals = self.batch.features, self.batch.signals
        self.scores = self.batch.scores
        self.sample = layout.Sample(np.zeros(4), np.ones(5), np.zeros(5, np.int64))
        self._tails_left = 0
        self._outcomes = np.zeros(MAX_BATCH, layout.OUTCOME)
        self._requests_view = _bytes_of(self.batch.request)
        self._answers_view = _bytes_of(self.batch.answer)
        self._unknown = np.zeros(app_state.N_PROFILE, np.float32)
        self._low, self._high = np.zeros(MAX_BATCH, np.int64), np.zeros(MAX_BATCH, np.int64)
        self._workspace = Workspace.of(MAX_BATCH)
        self.arena = address_table.Arena()
        self.arena.hold(state=self.state, batch=self.batch, ahead=self._ahead, sample=self.sample)
        self.arena.hold(unknown=self._unknown, trial=app_state.allocate(1), sources=self.sources)
        self.arena.hold(usual=self.usual)
        self.known = KnownTable(self.arena, self.state)
        self._table = self.arena.table
        self._make_room(TEXT_BYTES)

    # ---- configuration
    # ---------------------------------------------------------------------

    def apply(self, config: Config, model: Model | None) -> None:
        """Swap in a config document and the model to use with it.

        While the document's model is still being loaded, `model` is the one before. Each event
        records which model was live.
        """
        # all that may fail comes first, so that a bad document leaves the one before in force
        rules, router = policy.rules_of(config), Router(config, self.text_hash, self.strays)
        networks = lists.Networks(config, self.text_hash)
        found = lists.compile_subjects(config, self.text_hash, networks)
        self._apply_sampling(config.sampling)
        self.sharing.apply(config, rules, router.index)
        self._unknown[:] = (config.unknown_tier, 0, 0, Profile("").cohort_prior, 0, 0, 0, 0)
        self._apply_unknown(config.unknown_apps)
        self._weights = {t.tenant: t.weight for t in config.tenants}
        self._network_of = networks.finder()
        self.router, self.rules = router, rules
        self.arena.hold(subjects=found, rules=rules, several=router.several)
        self._ml_off_until = engaged_until(config, ALL_ML)
        self._observe_until = engaged_until(config, OBSERVE_ONLY)
        self.config, self.model = config, model

    def _apply_unknown(self, apps: UnknownApps) -> None:
        """Write how unknown apps are treated where kernels read it. Their bucket starts full."""
        world = self.batch.world
        if world[layout.W_ALL_BURST] == 0.0:
            world[layout.W_ALL_TOKENS] = apps.burst
        world[layout.W_TREAT] = _TREATMENTS.index(apps.treatment)
        world[layout.W_ALL_RATE], world[layout.W_ALL_BURST] = apps.rate, apps.burst

    def _apply_sampling(self, rates: Sampling) -> None:
        """Write the sampling rates where the kernels read them, in the order of the K_ columns."""
        if self.keep_all:
            # a budget that no replay reaches; admits stay sampled, or those of a log would fill the
            # memory
            self.sample.rate[:] = (1e12, rates.admit, 1.0, 1.0, 1.0)
        else:
            kept = (rates.admit, rates.refuse, rates.block, rates.enterprise_refuse)
            self.sample.rate[:] = (rates.budget_per_s, *kept)

    def ml_state(self, now: float) -> MlState:
        """Return whether ML speaks now, and if not, why not."""
        if now < self._ml_off_until:
            return MlState.SWITCHED_OFF
        if self.model is None:
            return MlState.NO_MODEL
        return MlState.LATE if self.clock.at(now) < self._late_until else MlState.LIVE

    # ---- what is known
    # ---------------------------------------------------------------------

    def know(self, given: Sequence[Profile], now: float | None = None) -> int:
        """Apply profiles of apps, which are tracked from now on. Return how many are older than
        what is held of their apps; these change nothing.
        """
        now = self.clock.at(now)
        if not given:
            return 0
        keys, slots = self.text_hash.many([p.app for p in given]), np.zeros(len(given), np.int64)
        kernels.track(self._table, keys, slots, len(keys), now)
        profiles, slots = profile_rows.hold(self.state, slots, given)
        if not profiles:
            return len(given)
        hashes = self.text_hash.many([p.tenant for p in profiles]).tolist()
        self.state.tenant[slots] = [
            self.tenants.place(p, self.shared, self.rules.tiers, self._weights) for p in profiles
        ]
        self.state.tenant_key[slots] = hashes
        self.tenants.name(hashes, [p.tenant for p in profiles], self.state)
        return len(given) - len(profiles)

    def hold_known(self, known: KnownApps) -> None:
        """Hold this table of known apps from now on."""
        self.known.hold(known)

    def slot_of(self, app: str) -> int:
        """Return the slot in which an app is tracked, -1 if it is not. Looking changes nothing."""
        return int(
            app_state.find(self.state, np.uint64(self.text_hash.one(app) & 0xFFFFFFFFFFFFFFFF))
        )

    def tenant_in(self, slot: int) -> str:
        """Return the tenant id of the app in a slot, empty while its profile is not known."""
        return self.tenants.name_of(int(self.state.tenant_key[slot]))

    def learn(self, outcomes: Sequence[Outcome], now: float | None = None) -> None:
        """Count the outcomes of requests.

        Outcomes of services that the document does not know are ignored.
        """
        now = self.clock.at(now)
        index, buffer = self.router.index, _bytes_of(self._outcomes)
        known = [o for o in outcomes if o.service in index]
        for start in range(0, len(known), MAX_BATCH):
            part = known[start : start + MAX_BATCH]
            for k, outcome in enumerate(part):
                _OUTCOME.pack_into(
                    buffer,
                    k * _OUTCOME.size,
                    self._endpoint_key(outcome.endpoint),
                    index[outcome.service],
                    outcome.status,
                    outcome.latency_ms,
                    outcome.bytes_out,
                )
            self._outcomes["app"][: len(part)] = self.text_hash.many([o.app for o in part])
            kernels.learn(self._table, self._outcomes, len(part), now)

    def _endpoint_key(self, endpoint: str) -> int:
        """Return the hash of an outcome's endpoint, 0 for none."""
        key = self._endpoint_keys.get(endpoint)
        if key is None:
            # clients choose their paths, so what is kept is bounded; forgetting costs only time
            if len(self._endpoint_keys) >= MOST_ENDPOINT_KEYS:
                self._endpoint_keys.clear()
            key = self._endpoint_keys[endpoint] = self.text_hash.one(endpoint)
        return key

    def tick(self, now: float | None = None) -> None:
        """Do one step of the controllers (price, fair share). Call it about five times a second."""
        for _ in self.tick_in_parts(now):
            pass

    def tick_in_parts(self, now: float | None = None) -> Iterator[None]:
        """Do what `tick` does in parts of about 1 ms, between which requests may be decided."""
        yield from self.sharing.tick_in_parts(self.clock.at(now))

    # ---- deciding
    # ---------------------------------------------------------------------

    def decide(self, requests: Sequence[CheckRequest], now: float | None = None) -> list[Decision]:
        """Decide requests and return the decisions in the same order. Call `apply` first:
        without a config nothing can be decided.
        """
        if len(requests) > MAX_BATCH:
            done: list[Decision] = []
            for start in range(0, len(requests), MAX_BATCH):
                done += self.decide(requests[start : start + MAX_BATCH], now)
            return done
        started = time.perf_counter()
        now = self.clock.read(now)
        wall = self.last_decision_at = now + self.clock.skew
        routes, length = self._pack(requests)
        notable = self.decide_packed(len(requests), now, length)
        if notable == kernels.NUL_IN_TEXT:
            self._hash_each(requests)
            notable = self.decide_packed(len(requests), now)
        elapsed_us = (time.perf_counter() - started) * 1e6
        self.batch_times.note(elapsed_us, len(requests))
        return self._unpack(requests, routes, notable, wall, elapsed_us)

    def decide_late(
        self, requests: Sequence[CheckRequest], now: float | None = None
    ) -> tuple[list[Decision], bool]:
        """Decide as `decide` does, but without the model, as there is no time to ask it.

        Return also whether ML would have spoken otherwise.
        """
        self._hurried = True
        try:
            return self.decide(requests, now), self.batch.world[layout.W_ML] == _DECIDER_LATE
        finally:
            self._hurried = False

    def decide_packed(self, count: int, now: float, length: int = 0) -> int:
        """Decide the first `count` rows of `batch.request` at `now`, engine time.

        The answers stand in `batch.answer`.

        Return how many rows, listed first in `batch.rows`, are kept in the sample or want
        something fetched; NUL_IN_TEXT when the `length` bytes of texts that were still to be hashed
        must be hashed one by one.
        """
        if self._tails_left < count:
            self._draw_tails()
        self._tails_left -= count
        wall = now + self.clock.skew
        self.batch.world[layout.W_SKEW] = self.clock.skew
        ml = (
            _LIVE
            if self.model is not None and wall >= self._ml_off_until and now >= self._late_until
            else int(self.ml_state(wall))
        )
        if self._hurried and ml == _LIVE:
            ml = _DECIDER_LATE
        lease_wait = self.leases.wait(wall) if self.quota_share < 1.0 else 0.0
        observe_only = wall < self._observe_until
        found: int = kernels.begin(
            self._table, count, length, now, ml, observe_only, self.quota_share, lease_wait
        )
        if found >= 0 or found == kernels.NUL_IN_TEXT:
            return found
        self._score(self.batch, -1 - found, now)
        found = kernels.conclude(self._table, count, now)
        if found >= 0:
            return found
        self._forecast(-1 - found, now)
        return int(kernels.finish(self._table, count, now))

    def _draw_tails(self) -> None:
        """Draw random numbers for the ids to come.

        They are so few that the call which draws them takes hardly longer than other calls.
        """
        tails = self.batch.tails
        tails[:] = random_tails(len(tails))
        self.batch.serial[layout.TAILS_LEFT] = self._tails_left = len(tails)

    def _pack(self, requests: Sequence[CheckRequest]) -> tuple[list[Route], int]:
        """Pack requests. Return their routes and how many bytes of texts `begin` must hash first.

        The texts of several requests are hashed here. For a lone request, an extra call into
        compiled code would cost more than everything else about its texts.
        """
        view, pack, trust = self._requests_view, _pack_into, self.trust_attempts
        network, network_of = 0, self._network_of
        if len(requests) == 1:
            q = requests[0]
            found = self.router.route(q.method, q.path, q.service)
            if network_of is not None:
                network = network_of(q.source)
            attempt = q.attempt if trust else 0
            pack(view, 0, q.payload_bytes / 1024.0, attempt, network, found.packed)
            return [found], self._lay_out(requests, f"{q.app}\0{q.token}\0{q.source}\0{q.path}\0")
        routes, texts, route, size, at = [], [], self.router.route, _PACK.size, 0
        for q in requests:
            found = route(q.method, q.path, q.service)
            routes.append(found)
            texts.append(f"{q.app}\0{q.token}\0{q.source}\0{q.path}\0")
            if network_of is not None:
                network = network_of(q.source)
            attempt = q.attempt if trust else 0
            pack(view, at, q.payload_bytes / 1024.0, attempt, network, found.packed)
            at += size
        length = self._lay_out(requests, "".join(texts))
        if not kernels.hash_texts(self._table, len(requests), length):
            self._hash_each(requests)
        return routes, 0

    def _lay_out(self, requests: Sequence[CheckRequest], texts: str) -> int:
        """Put texts where compiled code hashes them. Return their length in bytes."""
        try:
            data = texts.encode()
        except UnicodeEncodeError:  # a lone surrogate, which is hashed like any other text
            data = text_hash.encode(_texts(requests))
        length = len(data)
        if length > self._room:
            self._make_room(length)
        self._texts_view[:length] = data
        return length

    def _hash_each(self, requests: Sequence[CheckRequest]) -> None:
        """Hash the texts of packed requests of which one holds a NUL."""
        hashes = self.text_hash.many(_texts(requests)).reshape(-1, len(layout.HASHED))
        for column, name in enumerate(layout.HASHED):
            self.batch.request[name][: len(requests)] = hashes[:, column]

    def _make_room(self, length: int) -> None:
        """Make room for `length` bytes of texts."""
        buffer = np.zeros(length + text_hash.SLACK, np.uint8)
        self.arena.hold(texts=text_hash.Texts(buffer, self.text_hash.key))
        self._texts_view, self._room = _bytes_of(buffer), length

    def _score(self, batch: layout.Batch, count: int, now: float) -> None:
        """Score the rows listed first in `batch.rows`.

        A model that is slow SLOW_IN_A_ROW times counts as late for LATE_PAUSE_S.
        """
        assert self.model is not None and self.config is not None
        started = time.perf_counter()
        self.model.score_into(batch.features, batch.rows, count, batch.scores, self._workspace)
        slow = (time.perf_counter() - started) * 1e3 > self.config.ml_time_limit_ms
        self._slow_in_a_row = self._slow_in_a_row + 1 if slow else 0
        if self._slow_in_a_row >= SLOW_IN_A_ROW:
            self._late_until = now + LATE_PAUSE_S

    def _forecast(self, count: int, now: float) -> None:
        """Find the shortest wait after which refused rows would be admitted.

        They are the `count` rows listed first in `batch.rows`.
        """
        low, high, ahead = self._low, self._high, self._ahead
        low[:count], high[:count] = 0, len(layout.WAITS) - 1
        assert self.model is not None
        # three halvings of the eight waits
        for _ in range(3):
            kernels.project(self._table, low, high, count, now)
            self.model.score_into(ahead.features, _FIRST, count, ahead.scores, self._workspace)
            kernels.narrow(self._table, low, high, count)
        kernels.promise(self._table, high, count, now)

    def _unpack(
        self,
        requests: Sequence[CheckRequest],
        routes: list[Route],
        notable: int,
        wall: float,
        elapsed_us: float,
    ) -> list[Decision]:
        count = len(requests)
        if count == 1 and not notable:
            return [Decision(*_UNPACK.unpack_from(self._answers_view))]
        decisions = list(
            starmap(Decision, _UNPACK.iter_unpack(self._answers_view[: count * _UNPACK.size]))
        )
        if not notable:
            return decisions
        found = self.batch.rows[:notable]
        answers = self.batch.answer[found]
        # lists: reading a field of a numpy row costs more than all else in this loop
        columns = (
            found.tolist(),
            answers["answered"].tolist(),
            answers["wants"].tolist(),
            answers["kept"].tolist(),
        )
        for i, answered, wants, kept in zip(*columns, strict=True):
            if answered == policy.BATCH:
                decisions[i].batch_hint = routes[i].batch
            if answered != policy.ADMIT and self.teller is not None:
                self.teller.tell(decisions[i], requests[i].app, wall, self._told_by(i))
            if wants:
                self._want(requests[i].app, wants, i)
            if kept:
                self._keep(requests[i], routes[i], decisions[i].id, i, wall, elapsed_us)
        return decisions

    def _told_by(self, i: int) -> Basis:
        """Return the config version, model, features and tier that row `i` was decided by."""
        assert self.config is not None
        row = self.features[i : i + 1] if self.batch.answer[i]["ranked"] else None
        return Basis(self.config.version, self.model, row, int(self.signals[i, policy.S_TIER]))

    def _want(self, app: str, wants: int, i: int) -> None:
        if wants & layout.WANTS_PROFILE:
            if len(self.wanted_profiles) < EVENT_BUFFER:
                self.wanted_profiles[app] = None
            else:  # its next request asks again
                marks, slot = self.state.profile[:, app_state.P_KNOWN], self.batch.answer[i]["slot"]
                marks[slot] = 0.0 if marks[slot] < app_state.KNOWN else app_state.LISTED
        if wants & layout.WANTS_LEASE:
            self.leases.want(
                app,
                float(self.signals[i, kernels.S_QUOTA_LIMIT]),
                int(self.batch.answer[i]["lease"]),
            )

    def _keep(
        self,
        q: CheckRequest,
        route: Route,
        decision_id: bytes,
        i: int,
        wall: float,
        elapsed_us: float,
    ) -> None:
        if len(self.events) >= EVENT_BUFFER:
            self.events.popleft()
            self.events_dropped += 1
        assert self.config is not None
        answer, sig = self.batch.answer[i], self.signals[i]
        ranked = bool(answer["ranked"])
        raw_risk, raw_value, risk, value = self.scores[i].tolist()
        slot = int(answer["slot"])
        self.events.append(
            Event(
                id=decision_id,
                at=wall,
                request_id=q.request_id,
                region=self.region_name,
                node=self.node,
                app=q.app,
                tenant=self.tenant_in(slot),
                tier=int(self.state.profile[slot, app_state.P_TIER]),
                token_digest=token_digest(self.token_key, q.token) if q.token else "",
                method=route.method,
                endpoint=route.endpoint,
                service=self.router.names[self._decisive_service(route, i)],
                action=int(answer["action"]),
                observed=wall < self._observe_until,
                stage=int(answer["stage"]),
                reason=int(answer["reason"]),
                retry_after=float(answer["retry_after"]),
                risk=risk if ranked else None,
                value=value if ranked else None,
                raw_risk=raw_risk if ranked else None,
                raw_value=raw_value if ranked else None,
                model=self.model.digest if self.model else "",
                arm=int(Arm.LIVE if ranked else Arm.NONE),
                ml_state=int(sig[policy.S_ML]),
                config_version=self.config.version,
                feature_schema=SCHEMA,
                features=self.features[i].tobytes(),
                signals=sig.tobytes(),
                inclusion_probability=float(answer["probability"]),
                latency_us=elapsed_us,
                payload_bytes=q.payload_bytes,
            )
        )

    def _decisive_service(self, route: Route, i: int) -> int:
        """Return the row of the service that decided: the route's, unless it loads several."""
        if not route.several:
            return route.service
        return int(self.shared.pair[self.batch.answer[i]["pair"]]["service"])

    def take_events(self, most: int = EVENT_BUFFER) -> list[Event]:
        """Return at most `most` sampled decisions since the last call, oldest first."""
        return [self.events.popleft() for _ in range(min(most, len(self.events)))]

    # ---- how it stands
    # ---------------------------------------------------------------------

    def services(self, now: float) -> list[ServiceStatus]:
        """Return the services as this node sees them."""
        return self.sharing.describe(self.clock.at(now))

    @property
    def shared(self) -> Region:
        """The services and tenants, as compiled code sees them."""
        return self.sharing.region

    @property
    def apps(self) -> int:
        """Tracked apps."""
        return int(self.state.meta[app_state.M_USED])


def _texts(requests: Sequence[CheckRequest]) -> list[str]:
    """Return the texts of requests that are hashed, in the order of `buffers.HASHED`."""
    return [text for q in requests for text in (q.app, q.token, q.source, q.path)]


# made once, as each decision needs them
_LIVE, _DECIDER_LATE = int(MlState.LIVE), int(MlState.DECIDER_LATE)
# in the order of `buffers.TREAT_PLAN` and those after it
_TREATMENTS = ("plan", "share", "refuse")
_FIRST = np.arange(MAX_BATCH, dtype=np.int64)
