"""The waits that refused clients are told, and the places kept for those who wait; compiled.

A refusal at a service that is short of room books a place in the service's calendar. A client that
repeats the request once the wait has passed takes the place, and then the load does not count
against that request.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from decider import policy as p
from decider.contracts.signals import INDEX as S
from decider.engine.buffers import Batch
from decider.engine.memory import app_state as apps
from decider.engine.memory import retries
from decider.engine.shared import service_control
from decider.engine.shared.state import Region

S_OBSERVE = S["observe_only"]
# JITTER: largest share by which a told wait is longer than needed. Chosen: clients that were
# refused together come back at different times, and none waits much longer for that. JITTER_MOST_S:
# the same in seconds; with rounding up it is at most a minute, so that all who wait for a new day's
# quota come within the first minute of the day.
JITTER, JITTER_MOST_S = 0.2, 59.0
# Shortest wait that a refusal for risk tells, seconds. Chosen: by then, the app's latest requests
# are answered and counted, and an abuser that waits gets only four requests a minute.
RISK_WAIT_S = 15.0
# An odd 64-bit number (the fractional part of the golden ratio): it spreads keyed hashes further.
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, inline="always")
def take_place(state: apps.State, slot: int, repeat: int) -> float:
    """Return 1 and use up a place when a repeat in time finds one kept for its app, else 0."""
    if repeat != apps.IN_TIME or state.clock[slot, apps.PLACES] < 1.0:
        return 0.0
    state.clock[slot, apps.PLACES] -= 1.0
    return 1.0


@njit(cache=True)
def _most_places(sig: np.ndarray) -> float:
    """Return the most places that an app may have: MOST_PLACES while the service is short of room,
    else one. Each place admits a request that risk would refuse, so risk alone earns only one.
    """
    return apps.MOST_PLACES if p.busy(sig) else 1.0


@njit(cache=True)
def gets_place(state: apps.State, slot: int, sig: np.ndarray, repeat: int) -> bool:
    """Return whether a request that is refused before its app's Retry-After has passed gets a place
    of its own. A repeat that came too early gets none, nor does an app that has all its places.
    """
    return bool(repeat != apps.EARLY and state.clock[slot, apps.PLACES] < _most_places(sig))


@njit(cache=True)
def least(region: Region, batch: Batch, i: int, now: float) -> float:
    """Return the shortest wait, seconds, of a refused request. At a service short of room, book a
    place and return the time until then, at most LONGEST_WAIT_S. Else return RISK_WAIT_S for a
    refusal for risk, and 0 for any other.

    A repeat that came too early gets 0 and no second place; in observe-only mode all get 0.
    """
    sig, answer = batch.signals[i], batch.answer[i]
    if sig[S_OBSERVE] != 0.0 or answer["repeat"] == apps.EARLY:
        return 0.0
    if p.busy(sig):
        service = region.pair[answer["pair"]]["service"]
        placed = service_control.book(region, service, sig[p.S_COST], now)
        return min(p.LONGEST_WAIT_S, placed)
    return RISK_WAIT_S if answer["reason"] == p.RISK_HIGH else 0.0


@njit(cache=True)
def note_refused(state: apps.State, slot: int, batch: Batch, i: int, now: float) -> None:
    """Remember the refused request, until when its client was told to wait, and its place."""
    request, answer, clock = batch.request[i], batch.answer[i], state.clock
    path, token, wait = np.uint64(request["path"]), np.uint64(request["token"]), answer["wait"]
    retries.note(state.refused, slot, now, path, token, np.uint64(request["endpoint"]), wait)
    if wait > 0.0:
        if now >= clock[slot, apps.RETRY_UNTIL]:
            clock[slot, apps.PLACES] = 1.0
        elif gets_place(state, slot, batch.signals[i], answer["repeat"]):
            clock[slot, apps.PLACES] += 1.0
        clock[slot, apps.RETRY_UNTIL] = max(clock[slot, apps.RETRY_UNTIL], now + wait)


@njit(cache=True, inline="always")
def draw(app: int, now: float) -> float:
    """Return a number from 0 to 1 that follows from an app's hash and a moment, and that no client
    can compute.

    It is not drawn from a generator, so that the same traffic gets the same answers.
    """
    mixed = (np.uint64(app) ^ np.uint64(now * 1000.0)) * _MIX
    return np.float64((mixed ^ (mixed >> np.uint64(29))) * _MIX >> np.uint64(40)) / 2.0**24


@njit(cache=True)
def with_jitter(wait: float, draw: float) -> float:
    """Return a wait in whole seconds, made longer by up to JITTER of it, or by up to a second if
    that is more; never by more than JITTER_MOST_S.

    `draw`: from 0 to 1. The result is whole because Retry-After is: a fraction would be rounded
    away.
    """
    whole = math.ceil(wait)
    most = max(1.0, min(JITTER_MOST_S, JITTER * whole))
    return float(whole + math.floor((most + 1.0) * draw))
