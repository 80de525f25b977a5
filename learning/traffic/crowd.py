"""The crowd of clients: when each app sends, and how it takes an answer. Used alike in simulated
and in real time.

`due` gives the requests of the next stretch of time, `react` tells an app what came of one. Clients
that obey wait for Retry-After and hold back what comes meanwhile; others come again at once; retry
storms come again and again; abusers back off when they are refused too often and return slower.
"""

from __future__ import annotations

import heapq
from itertools import count
from random import Random

import numpy as np

from learning.traffic.behaviour import AppClient, PlannedRequest
from learning.traffic.world import ABUSIVE, AppKind, Population

# A simulated "hour", seconds: schedules are compressed so that minutes show them. It begins when
# unix time divides by it.
HOUR_S = 300.0
# Share of bursty apps whose schedule begins at the top of the hour.
TOP_OF_HOUR = 0.4
# Requests an obeying client keeps for later while it waits; the rest are given up.
HELD_MOST = 20
# Share of apps whose users load whole pages: many requests at once, then silence.
PAGE_LOADERS = 0.08
STORM_ATTEMPTS = 10
# Share of first tries that abusers may be on average; their active times are thinned to it.
ABUSE_SHARE = 0.18
# Refusals in a short time after which an abuser backs off, on average.
ABUSER_PATIENCE = 40.0


class Crowd:
    """All clients of a population.

    `rate` is the mean number of first tries a second of the whole crowd; `start` is unix seconds.
    Deterministic by population, seed and the answers it gets.
    """

    def __init__(
        self, population: Population, seed: int, start: float, rate: float = 300.0
    ) -> None:
        if rate <= 0:
            raise ValueError(f"the rate must be positive, not {rate}")
        self._rng = Random((population.seed << 20) ^ seed)
        self._np = np.random.default_rng([population.seed, seed])
        self.clients = [AppClient(app, i, self._rng) for i, app in enumerate(population.apps)]
        self.kinds = np.array([a.kind for a in population.apps])
        self.start = self.now = start
        self._abusive = np.isin(self.kinds, [int(k) for k in ABUSIVE])
        self._storms = [a.kind == AppKind.STORM for a in population.apps]
        self._abuses = [a.abusive for a in population.apps]
        self._obeys = [a.obeys for a in population.apps]
        self._coming: list[tuple[float, int, bool]] = []
        self._later: list[tuple[float, int, PlannedRequest]] = []
        self._ticket = count()
        self._schedule()
        self._set_rates(np.array([a.weight for a in population.apps]), rate)
        n = len(population.apps)
        late = np.array([a.born_late for a in population.apps])
        self._begins = np.where(late, start + self._np.uniform(20, 600, n), start)
        self._forced_until = np.zeros(n)
        self._quiet_until = np.zeros(n)
        self._pace = np.ones(n)
        self._phase = self._np.uniform(0, 1, n)
        self._hold_until = [0.0] * n
        self._held = [0] * n
        self._refused = [0.0] * n
        self._patience = self._np.exponential(ABUSER_PATIENCE, n) + 5
        pages = np.where(self._np.random(n) < PAGE_LOADERS, self._np.uniform(6, 30, n), 0.0)
        self._clumps = np.where(
            self._even, 1.0, 1.0 + self._np.exponential(1.2, n) * (self._np.random(n) < 0.6) + pages
        )

    def _schedule(self) -> None:
        """Each app's period, offset and share of active time; the steady are always active."""
        rng, kinds, n = self._np, self.kinds, len(self.kinds)
        self._period = np.full(n, HOUR_S)
        self._duty = np.ones(n)
        self._offset = rng.uniform(0, HOUR_S, n)
        bursty = kinds == AppKind.BURSTY
        at_top = bursty & (rng.random(n) < TOP_OF_HOUR)
        self._offset[at_top] = rng.uniform(-12, 0, at_top.sum())
        self._period[bursty & ~at_top] *= rng.choice([0.5, 1.0, 2.0], (bursty & ~at_top).sum())
        self._duty[bursty] = rng.uniform(0.03, 0.12, bursty.sum())
        for kind, periods, duties in (
            (AppKind.STORM, (2.0, 6.0), (0.01, 0.025)),
            (AppKind.SCRAPER, (0.8, 3.0), (0.08, 0.3)),
            (AppKind.STUFFER, (0.8, 3.0), (0.06, 0.25)),
            (AppKind.CARD_TESTER, (0.8, 3.0), (0.08, 0.3)),
        ):
            mine = kinds == kind
            self._period[mine] *= rng.uniform(*periods, mine.sum())
            self._duty[mine] = rng.uniform(*duties, mine.sum())
            self._offset[mine] = rng.uniform(0, 1, mine.sum()) * self._period[mine]
        self._even = (
            (kinds == AppKind.POLLER)
            | ((kinds == AppKind.SCRAPER) & (rng.random(n) < 0.5))
            | (rng.random(n) < 0.04)
        )

    def _set_rates(self, weight: np.ndarray, rate: float) -> None:
        """Requests a second of each app outside (`base`) and inside (`peak`) its active time."""
        rng, kinds, n = self._np, self.kinds, len(self.kinds)
        peak = np.zeros(n)
        for kind, median, spread, most in (
            (AppKind.SCRAPER, 6.0, 0.8, 40.0),
            (AppKind.STUFFER, 4.0, 0.8, 25.0),
            (AppKind.CARD_TESTER, 1.5, 0.7, 8.0),
            (AppKind.DRIPPER, 0.2, 0.7, 0.8),
            (AppKind.STORM, 2.0, 0.6, 6.0),
        ):
            mine = kinds == kind
            peak[mine] = np.minimum(most, median * rng.lognormal(0, spread, mine.sum()))
        abuse = float((peak * self._duty)[self._abusive].sum())
        thin = min(1.0, ABUSE_SHARE * rate / abuse) if abuse else 1.0
        self._duty = np.where(
            self._abusive & (kinds != AppKind.DRIPPER), self._duty * thin, self._duty
        )
        base = np.where(kinds == AppKind.BURSTY, 0.6, 1.0) * np.where(
            self._abusive, 0.0, weight / weight.sum()
        )
        leap = base * rng.uniform(3, 11, n)
        mean = float(
            np.where(kinds == AppKind.BURSTY, base + (leap - base) * self._duty, base).sum()
        )
        scale = (rate - min(abuse, ABUSE_SHARE * rate)) / max(mean, 1e-9)
        spike = np.where(rng.random(n) < 0.15, rng.lognormal(0.7, 0.7, n), 0.0)
        abuser_base = np.where(kinds == AppKind.DRIPPER, peak, np.minimum(0.2, 0.02 * peak))
        self._base = np.where(self._abusive, abuser_base, base * scale)
        honest_peak = np.where(
            kinds == AppKind.BURSTY, np.minimum(leap * scale + spike, 40.0), base * scale
        )
        self._peak = np.where(peak > 0, peak, honest_peak)

    def incident(self, kind: AppKind, apps: int, now: float, lasts: float) -> list[int]:
        """Makes up to `apps` of the louder apps of `kind` active from `now` for `lasts` seconds;
        gives their indices.
        """
        mine = np.flatnonzero((self.kinds == kind) & (self._begins <= now))
        loud = mine[np.argsort(-self._peak[mine])][: max(apps, len(mine) // 2)]
        chosen = self._np.permutation(loud)[:apps]
        self._forced_until[chosen] = now + lasts
        self._quiet_until[chosen] = 0.0
        self._pace[chosen] = 1.0
        return [int(i) for i in chosen]

    def active(self, now: float) -> np.ndarray:
        """Which apps are inside their active time; bool, one for each app."""
        phase = (now + self._offset) % self._period
        return (phase < self._duty * self._period) | (self._forced_until > now)

    def rates(self, now: float, active: np.ndarray) -> np.ndarray:
        """First tries a second of each app at `now`, given which are active."""
        wave = 1.0 + 0.2 * np.sin((now - self.start) * 2 * np.pi / (4 * HOUR_S))
        rate = np.where(active, self._peak, self._base) * np.where(self._abusive, self._pace, wave)
        return np.where((now >= self._begins) & (now >= self._quiet_until), rate, 0.0)

    def due(self, upto: float) -> list[PlannedRequest]:
        """All requests from the last call until `upto`, in time order. Call it with small steps
        (0.02 to 0.2 s).
        """
        span = upto - self.now
        if span <= 0:
            return []
        active = self.active(upto)
        for at, index in self._moments(self.rates(upto, active), span):
            heapq.heappush(self._coming, (at, index, bool(active[index])))
        out = []
        while self._coming and self._coming[0][0] <= upto:
            at, index, is_active = heapq.heappop(self._coming)
            if (planned := self._next_request(index, at, is_active)) is not None:
                out.append(planned)
        while self._later and self._later[0][0] <= upto:
            planned = heapq.heappop(self._later)[2]
            self._held[planned.app] -= 1
            if planned.at < self._hold_until[planned.app]:
                self._postpone(planned, self._hold_until[planned.app] + 2.0 * self._rng.random())
            else:
                out.append(planned)
        self.now = upto
        out.sort(key=lambda p: p.at)
        return out

    def _moments(self, rates: np.ndarray, span: float) -> list[tuple[float, int]]:
        """When and who, a clump may reach beyond the span: Poisson clumps for most, even gaps with
        a little jitter for the rest.
        """
        rng, random = self._np, self._rng.random
        clumps = rng.poisson(np.where(self._even, 0.0, rates * span / self._clumps))
        out = []
        who = np.flatnonzero(clumps)
        for i, many, stop in zip(
            who.tolist(),
            clumps[who].tolist(),
            (1.0 - 1.0 / self._clumps[who]).tolist(),
            strict=True,
        ):
            for _ in range(many):
                at = self.now + span * random()
                out.append((at, i))
                while random() < stop:
                    at += 0.02 + 0.25 * random() ** 2
                    out.append((at, i))
        before = self._phase.copy()
        self._phase += np.where(self._even, rates * span, 0.0)
        for i in np.flatnonzero(np.floor(self._phase) > np.floor(before)):
            for crossing in range(int(before[i]) + 1, int(self._phase[i]) + 1):
                jitter = (random() - 0.5) * 0.06
                out.append((self.now + max(0.0, crossing + jitter - before[i]) / rates[i], int(i)))
        self._phase %= 1.0
        return out

    def _next_request(self, index: int, at: float, active: bool) -> PlannedRequest | None:
        """The app's next request; None when its client is waiting and has enough kept for later."""
        storming = active and self._storms[index]
        planned = self.clients[index].next_request(
            at, active, storming and self._rng.random() < 0.6
        )
        if at < self._hold_until[index]:
            if self._held[index] < HELD_MOST:
                self._postpone(planned, self._hold_until[index] + 2.0 * self._rng.random())
            return None
        return planned

    def _postpone(self, planned: PlannedRequest, at: float) -> None:
        planned.at = at
        self._held[planned.app] += 1
        heapq.heappush(self._later, (at, next(self._ticket), planned))

    def react(self, sent: PlannedRequest, status: int, retry_after: float, now: float) -> None:
        """What the client of `sent` does with its answer. `retry_after` is in seconds, 0 when there
        was none.
        """
        if status < 400 or status in (402, 404, 405):
            if self._abuses[sent.app]:
                self._pace[sent.app] = min(1.0, self._pace[sent.app] * 1.01)
                self._refused[sent.app] *= 0.97
            return
        if self._abuses[sent.app] and status in (403, 429, 503) and self._give_way(sent.app, now):
            return
        if self._storms[sent.app]:
            self._storm(sent, now)
        elif status == 401:
            return
        elif retry_after > 0 and self._obeys[sent.app]:
            self._hold_until[sent.app] = max(self._hold_until[sent.app], now + retry_after)
            self._again(sent, now + retry_after * (1.0 + 0.3 * self._rng.random()) + 0.01, most=4)
        elif status != 403 and self._obeys[sent.app]:
            self._again(
                sent, now + 0.5 * 2**sent.request.attempt * (0.5 + self._rng.random()), most=3
            )
        elif status != 403 and self._rng.random() < 0.6:
            self._again(sent, now + 0.2 + 0.8 * self._rng.random(), most=3)

    def _storm(self, sent: PlannedRequest, now: float) -> None:
        """Again at once, with nothing learnt from the answer: the later tries are worth next to
        nothing.
        """
        if self._rng.random() < 0.93:
            self._again(
                sent, now + 0.05 + 0.25 * self._rng.random(), most=STORM_ATTEMPTS, worth=0.15
            )

    def _again(self, sent: PlannedRequest, at: float, most: int, worth: float = 0.9) -> None:
        request = sent.request
        if request.attempt >= most:
            return
        retry = type(request)(
            request.app,
            request.method,
            request.path,
            request.token,
            request.source,
            f"req_{self._rng.getrandbits(64):016x}",
            request.payload_bytes,
            request.attempt + 1,
        )
        value = min(sent.value, 0.15) if worth < 0.5 else sent.value * worth
        self._postpone(
            PlannedRequest(at, sent.app, retry, sent.query, sent.service, value, sent.abusive), at
        )

    def _give_way(self, index: int, now: float) -> bool:
        """Counts a refusal against an abuser's patience; when that is spent it goes quiet and comes
        back slower.
        """
        self._refused[index] += 1.0
        if self._refused[index] < self._patience[index]:
            return False
        self._refused[index] = 0.0
        self._quiet_until[index] = now + self._rng.uniform(15, 90)
        self._pace[index] = max(0.15, self._pace[index] * self._rng.uniform(0.4, 0.8))
        return True
