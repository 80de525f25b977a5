"""How often the REST API may be called, counted in Valkey for all workers and threads together.

What is kept are plain numbers. Django's caches keep pickles, and whoever can write to Valkey could
then run code in the console.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import (
    AnonRateThrottle,
    ScopedRateThrottle,
    SimpleRateThrottle,
    UserRateThrottle,
)

from control.deciders import valkey
from decider.contracts.store import THROTTLE_PREFIX

if TYPE_CHECKING:
    from rest_framework.views import APIView

log = logging.getLogger(__name__)

# Digits of a counter that is believed. Chosen: no rate allows a billion calls.
MOST_DIGITS = 9


class _Counted(SimpleRateThrottle):
    """Throttle by sliding window counters: the calls of this window, and those of the window before
    as far as it reaches into the last `duration` seconds.

    Calls pass uncounted while Valkey does not answer (failure policy: open), because support must
    be able to work during an incident. Each uncounted call is logged.
    """

    # set by the class above from the rate: calls of a window, and its seconds
    num_requests: int
    duration: int
    _wait_s: float | None = None

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Return whether the call may pass, and count it if so."""
        key = self.get_cache_key(request, view) if self.rate is not None else None
        if key is None:
            return True
        try:
            self._wait_s = self._count(THROTTLE_PREFIX + key)
        except RedisError as error:
            log.warning("Valkey does not answer, so this API call passed uncounted: %s", error)
            return True
        return self._wait_s is None

    def wait(self) -> float | None:
        """Return after how many seconds a refused call may pass."""
        return self._wait_s

    def _count(self, key: str) -> float | None:
        """Count a call. Return None when it may pass, else in how many seconds one may. Raise
        RedisError.
        """
        window, into = divmod(self.timer() / self.duration, 1.0)
        this = f"{key}:{window:.0f}"
        client = valkey.client()
        # counted before it is judged, so that calls at the same time cannot miss each other
        with client.pipeline(transaction=False) as pipe:
            pipe.incr(this)
            pipe.expire(this, 2 * self.duration)
            pipe.get(f"{key}:{window - 1:.0f}")
            counted, _, before = pipe.execute()
        earlier = _number(before)
        if earlier * (1.0 - into) + counted <= self.num_requests:
            return None
        # a refused call counts for nothing: who only waits gets through
        client.decr(this)
        share = _free_after(earlier, counted - 1, self.num_requests)
        return float(max(share - into, 0.0) * self.duration)


def _number(stored: bytes | None) -> int:
    """Return a counter as it is stored; 0 for none, and for what is no counter."""
    known = stored is not None and stored.isdigit() and len(stored) <= MOST_DIGITS
    return int(stored) if stored is not None and known else 0


def _free_after(earlier: int, counted: int, most: int) -> float:
    """Return when one more call fits, in windows from the beginning of this one. `earlier` and
    `counted`: calls of the window before and of this one. `most`: calls that a window allows.
    """
    if counted < most:
        return 1.0 - (most - 1 - counted) / earlier if earlier else 0.0
    return 2.0 - (most - 1) / counted if counted else 1.0


class PersonThrottle(UserRateThrottle, _Counted):
    """Throttle of the calls of one person, by session and tokens together."""


class StrangerThrottle(AnonRateThrottle, _Counted):
    """Throttle of calls without a valid credential, by address."""


class ScopeThrottle(ScopedRateThrottle, _Counted):
    """Throttle of the calls of costly views, each by its `throttle_scope`."""
