"""The crowd of clients: when each app sends, and how it reacts to answers. The simulation and the
demo in real time use the same crowd.

`due` returns the requests of the next stretch of time, and `react` tells an app how one of its
requests was answered. Obeying clients wait for Retry-After and hold back other requests meanwhile.
Most others retry within a second, and retry storms keep retrying. Abusers back off when they are
refused too often, and return at a slower pace.

The random draws must keep their order, so that a seed means the same crowd in every version.
"""

from __future__ import annotations

import heapq
from itertools import count
from random import Random

import numpy as np
import numpy.typing as npt

from learning.traffic.behaviour import AppClient, PlannedRequest
from learning.traffic.conduct import ORDINARY, Conduct
from learning.traffic.world import ABUSIVE, AppKind, Population

Floats = npt.NDArray[np.float64]
# A simulated "hour", seconds: schedules are compressed so that minutes show them. An hour begins
# whenever unix time is a multiple of it.
HOUR_S = 300.0
# Share of bursty apps whose schedule begins at the top of the hour: cron jobs of many customers
# that start together are honest load, and the model has to see them.
TOP_OF_HOUR = 0.4
# Requests an obeying client keeps for later while it waits; the rest are given up, as a client with
# a bounded queue does.
HELD_MOST = 20
# Share of apps whose users load whole pages: many requests at once, then silence.
PAGE_LOADERS = 0.08
# Tries of one request in a retry storm. Ordinary clients stop after three or four.
STORM_ATTEMPTS = 10
# Refusals in a short time after which an abuser backs off, on average.
ABUSER_PATIENCE = 40.0
# Kind -> least and most period as multiples of HOUR_S, least and most share of it that is active.
# Chosen: abuse comes in campaigns of a minute or so.
CAMPAIGNS = (
    (AppKind.STORM, (2.0, 6.0), (0.01, 0.025)),
    (AppKind.SCRAPER, (0.8, 3.0), (0.08, 0.3)),
    (AppKind.STUFFER, (0.8, 3.0), (0.06, 0.25)),
    (AppKind.CARD_TESTER, (0.8, 3.0), (0.08, 0.3)),
)
# Kind -> median, lognormal spread and cap of its requests a second while active. A dripper sends as
# many as quiet honest apps, because rate alone must not give it away.
PEAK_RATES = (
    (AppKind.SCRAPER, 6.0, 0.8, 40.0),
    (AppKind.STUFFER, 4.0, 0.8, 25.0),
    (AppKind.CARD_TESTER, 1.5, 0.7, 8.0),
    (AppKind.DRIPPER, 0.2, 0.7, 0.8),
    (AppKind.STORM, 2.0, 0.6, 6.0),
)
# An abuser takes these as a refusal; it cannot tell a service that failed from one that sheds.
REFUSED_STATUSES = (403, 429, 503)
# A client takes these as answers about its request, not as trouble: it neither retries nor waits.
FINAL_STATUSES = (402, 404, 405)


class Crowd:
    """All clients of a population.

    `rate` is the mean number of first tries a second of the whole crowd; `start` is unix seconds.
    The same population, seed, conduct and answers give the same requests. Raises ValueError when
    `rate` is not positive.
    """

    def __init__(
        self,
        population: Population,
        seed: int,
        start: float,
        rate: float = 300.0,
        conduct: Conduct = ORDINARY,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"the rate must be positive, not {rate}")
        # Two generators: numpy's for whole columns, Python's for single draws, where it is faster.
        self._rng = Random((population.seed << 20) ^ seed)
        self._np = np.random.default_rng([population.seed, seed])
        self.conduct = conduct
        self.clients = [
            AppClient(app, i, self._rng, conduct) for i, app in enumerate(population.apps)
        ]
        self.kinds = np.array([a.kind for a in population.apps])
        self.start = self.now = start
        self._abusive = np.isin(self.kinds, [int(k) for k in ABUSIVE])
        self._storms = [a.kind == AppKind.STORM for a in population.apps]
        self._abuses = [a.abusive for a in population.apps]
        self._obeys = [a.obeys for a in population.apps]
        self._coming: list[tuple[float, int, bool]] = []
        self._later: list[tuple[float, int, PlannedRequest]] = []
        self._ticket = count()
        self._set_schedule()
        self._set_rates(np.array([a.weight for a in population.apps]), rate)
        self._set_clients(np.array([a.born_late for a in population.apps]))

    def _set_clients(self, late: npt.NDArray[np.bool_]) -> None:
        """Set the first state of each client; clients born `late` begin after 20 to 600 s."""
        n = len(late)
        self._begins = np.where(late, self.start + self._np.uniform(20, 600, n), self.start)
        self._forced_until = np.zeros(n)
        self._quiet_until = np.zeros(n)
        self._pace = np.ones(n)
        self._phase = self._np.uniform(0, 1, n)
        # Lists, not arrays: they are read and written one by one, where numpy is slow.
        self._hold_until = [0.0] * n
        self._held = [0] * n
        self._refused = [0.0] * n
        self._refused_as_named = [0] * n
        self._patience = self._np.exponential(ABUSER_PATIENCE, n) + 5
        pages = np.where(self._np.random(n) < PAGE_LOADERS, self._np.uniform(6, 30, n), 0.0)
        self._clumps = np.where(
            self._even, 1.0, 1.0 + self._np.exponential(1.2, n) * (self._np.random(n) < 0.6) + pages
        )

    def _set_schedule(self) -> None:
        """Set each app's period, offset and share of active time; steady apps are always active."""
        rng, kinds, n = self._np, self.kinds, len(self.kinds)
        self._period = np.full(n, HOUR_S)
        self._duty = np.ones(n)
        self._offset = rng.uniform(0, HOUR_S, n)
        bursty = kinds == AppKind.BURSTY
        at_top = bursty & (rng.random(n) < TOP_OF_HOUR)
        # Up to 12 seconds late: clocks differ, and jobs take time to start.
        self._offset[at_top] = rng.uniform(-12, 0, at_top.sum())
        self._period[bursty & ~at_top] *= rng.choice([0.5, 1.0, 2.0], (bursty & ~at_top).sum())
        self._duty[bursty] = rng.uniform(0.03, 0.12, bursty.sum())
        for kind, periods, duties in CAMPAIGNS:
            mine = kinds == kind
            self._period[mine] *= rng.uniform(*periods, mine.sum())
            self._duty[mine] = rng.uniform(*duties, mine.sum())
            self._offset[mine] = rng.uniform(0, 1, mine.sum()) * self._period[mine]
        # Even gaps do not prove abuse: pollers have them too, and only half of the scrapers do.
        self._even = (
            (kinds == AppKind.POLLER)
            | ((kinds == AppKind.SCRAPER) & (rng.random(n) < 0.5))
            | (rng.random(n) < 0.04)
        )

    def _set_rates(self, weight: Floats, rate: float) -> None:
        """Set the requests a second of each app outside (`base`) and inside (`peak`) its active
        time, so that the mean over all is `rate`.
        """
        rng, kinds, n = self._np, self.kinds, len(self.kinds)
        peak = np.zeros(n)
        for kind, median, spread, most in PEAK_RATES:
            mine = kinds == kind
            peak[mine] = np.minimum(most, median * rng.lognormal(0, spread, mine.sum()))
        abuse = float((peak * self._duty)[self._abusive].sum())
        most_abuse = self.conduct.abuse_share * rate
        thin = min(1.0, most_abuse / abuse) if abuse else 1.0
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
        scale = (rate - min(abuse, most_abuse)) / max(mean, 1e-9)
        spike = np.where(rng.random(n) < 0.15, rng.lognormal(0.7, 0.7, n), 0.0)
        abuser_base = np.where(kinds == AppKind.DRIPPER, peak, np.minimum(0.2, 0.02 * peak))
        self._base = np.where(self._abusive, abuser_base, base * scale)
        honest_peak = np.where(
            kinds == AppKind.BURSTY, np.minimum(leap * scale + spike, 40.0), base * scale
        )
        self._peak = np.where(peak > 0, peak, honest_peak)

    def incident(self, kind: AppKind, apps: int, now: float, lasts: float) -> list[int]:
        """Make up to `apps` of the louder apps of `kind` active from `now` for `lasts` seconds.

        Return their indices.
        """
        # Only the louder half, so that an incident shows in the console.
        mine = np.flatnonzero((self.kinds == kind) & (self._begins <= now))
        loud = mine[np.argsort(-self._peak[mine])][: max(apps, len(mine) // 2)]
        chosen = self._np.permutation(loud)[:apps]
        self._forced_until[chosen] = now + lasts
        self._quiet_until[chosen] = 0.0
        self._pace[chosen] = 1.0
        return [int(i) for i in chosen]

    def active(self, now: float) -> npt.NDArray[np.bool_]:
        """Return which apps are inside their active time; bool, one for each app."""
        phase = (now + self._offset) % self._period
        scheduled: npt.NDArray[np.bool_] = phase < self._duty * self._period
        return scheduled | (self._forced_until > now)

    def rates(self, now: float, active: npt.NDArray[np.bool_]) -> Floats:
        """Return the first tries a second of each app at `now`, given which are active."""
        # Honest traffic swells and ebbs by a fifth, as by day and night.
        wave = 1.0 + 0.2 * np.sin((now - self.start) * 2 * np.pi / (4 * HOUR_S))
        wave *= self.conduct.honest_factor(now - self.start)
        rate = np.where(active, self._peak, self._base) * np.where(self._abusive, self._pace, wave)
        return np.where((now >= self._begins) & (now >= self._quiet_until), rate, 0.0)

    def due(self, upto: float) -> list[PlannedRequest]:
        """Return all requests from the last call until `upto` (unix seconds), in time order.

        Call it with small steps (0.02 to 0.2 s): rates are constant within a step.
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
        out += self._due_again(upto)
        self.now = upto
        out.sort(key=lambda p: p.at)
        return out

    def _due_again(self, upto: float) -> list[PlannedRequest]:
        """Return the postponed requests that are due; postpone those of waiting apps once more."""
        out = []
        while self._later and self._later[0][0] <= upto:
            planned = heapq.heappop(self._later)[2]
            self._held[planned.app] -= 1
            if planned.at < self._hold_until[planned.app]:
                self._postpone(planned, self._hold_until[planned.app] + 2.0 * self._rng.random())
            else:
                out.append(planned)
        return out

    def _moments(self, rates: Floats, span: float) -> list[tuple[float, int]]:
        """Return (unix seconds, app index) of each request that begins in the next `span` seconds:
        Poisson clumps for most apps, even gaps for the others.
        """
        return self._clumped(rates, span) + self._regular(rates, span)

    def _clumped(self, rates: Floats, span: float) -> list[tuple[float, int]]:
        """Return (unix seconds, app index) of requests in Poisson clumps, which may reach beyond
        the span.
        """
        random = self._rng.random
        clumps = self._np.poisson(np.where(self._even, 0.0, rates * span / self._clumps))
        out: list[tuple[float, int]] = []
        who = np.flatnonzero(clumps)
        # A clump goes on with the probability that gives it its mean length (geometric).
        stays = (1.0 - 1.0 / self._clumps[who]).tolist()
        for i, many, stay in zip(who.tolist(), clumps[who].tolist(), stays, strict=True):
            for _ in range(many):
                at = self.now + span * random()
                out.append((at, i))
                while random() < stay:
                    at += 0.02 + 0.25 * random() ** 2
                    out.append((at, i))
        return out

    def _regular(self, rates: Floats, span: float) -> list[tuple[float, int]]:
        """Return (unix seconds, app index) of requests in even gaps, with a jitter of 3% either
        way.
        """
        out: list[tuple[float, int]] = []
        before = self._phase.copy()
        self._phase += np.where(self._even, rates * span, 0.0)
        # A request is due where the phase passes a whole number.
        for i in np.flatnonzero(np.floor(self._phase) > np.floor(before)).tolist():
            for crossing in range(int(before[i]) + 1, int(self._phase[i]) + 1):
                jitter = (self._rng.random() - 0.5) * 0.06
                out.append((self.now + max(0.0, crossing + jitter - before[i]) / rates[i], i))
        self._phase %= 1.0
        return out

    def _next_request(self, index: int, at: float, active: bool) -> PlannedRequest | None:
        """Return the app's next request. Return None while its client waits: then the request is
        kept for later or given up.
        """
        storming = active and self._storms[index]
        # Expired credentials cause many storms, so six in ten requests of a storm have one.
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
        """Let the client of `sent` act on its answer at `now` (unix seconds).

        `retry_after` is in seconds, 0 when the answer had none.
        """
        if status < 400 or status in FINAL_STATUSES:
            self._succeed(sent.app)
            return
        if self._abuses[sent.app] and status in REFUSED_STATUSES:
            self._rotate(sent)
            if self._give_way(sent.app, now):
                return
        if self._storms[sent.app]:
            self._storm(sent, now)
        elif status == 401:
            return
        elif retry_after > 0 and self._obeys[sent.app]:
            # Spread over 30% of the wait, or obeying clients would all come back together.
            self._hold_until[sent.app] = max(self._hold_until[sent.app], now + retry_after)
            self._again(sent, now + retry_after * (1.0 + 0.3 * self._rng.random()) + 0.01, most=4)
        elif status != 403 and self._obeys[sent.app]:
            # Exponential backoff with jitter, as client libraries do it.
            pause = 0.5 * 2**sent.tried * (0.5 + self._rng.random())
            self._again(sent, now + pause, most=3)
        elif status != 403 and self._rng.random() < 0.6:
            self._again(sent, now + 0.2 + 0.8 * self._rng.random(), most=3)

    def _succeed(self, app: int) -> None:
        """Make an abuser faster again, slowly, after a success, and let it forget refusals."""
        if self._abuses[app]:
            self._pace[app] = min(1.0, self._pace[app] * 1.01)
            self._refused[app] *= 0.97

    def _storm(self, sent: PlannedRequest, now: float) -> None:
        """Repeat a request at once, whatever the answer said. Repeats are worth next to nothing."""
        # Not always, because people stop some of these clients.
        if self._rng.random() < 0.93:
            at = now + 0.05 + 0.25 * self._rng.random()
            self._again(sent, at, most=STORM_ATTEMPTS, worth=0.15)

    def _again(self, sent: PlannedRequest, at: float, most: int, worth: float = 0.9) -> None:
        request, client, tried = sent.request, self.clients[sent.app], sent.tried + 1
        if tried > most:
            return
        retry = type(request)(
            client.id,
            request.method,
            request.path,
            request.token,
            request.source,
            f"req_{self._rng.getrandbits(64):016x}",
            request.payload_bytes,
            client.claimed_attempt(tried),
        )
        value = min(sent.value, 0.15) if worth < 0.5 else sent.value * worth
        self._postpone(
            PlannedRequest(
                at, sent.app, retry, sent.query, sent.service, value, sent.abusive, tried
            ),
            at,
        )

    def _rotate(self, sent: PlannedRequest) -> None:
        """Count a refusal of the app id in use. After `rotate_after` of them the abuser goes on
        under a new id and forgets the refusals. Late refusals of a dropped id do not count.
        """
        client = self.clients[sent.app]
        rotates = self.conduct.rotate_after and client.changed
        if not rotates or sent.request.app != client.id:
            return
        self._refused_as_named[sent.app] += 1
        if self._refused_as_named[sent.app] >= self.conduct.rotate_after:
            self._refused_as_named[sent.app], self._refused[sent.app] = 0, 0.0
            client.drop_id()

    def _give_way(self, index: int, now: float) -> bool:
        """Count a refusal and return whether the abuser's patience is spent. If so, it goes quiet
        and later returns at a slower pace.
        """
        self._refused[index] += 1.0
        if self._refused[index] < self._patience[index]:
            return False
        self._refused[index] = 0.0
        self._quiet_until[index] = now + self._rng.uniform(15, 90)
        self._pace[index] = max(0.15, self._pace[index] * self._rng.uniform(0.4, 0.8))
        return True
