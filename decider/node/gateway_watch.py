"""What a gateway says of its questions to deciders: how long each took, and which got no answer.

A decider cannot count what it did not answer, and does not see what asking it adds to a request. So
both are taken from the gateway: from its access log, and beside it from Envoy's own statistics.
"""

from __future__ import annotations

import http.client
import logging
import re
import urllib.request
from collections import deque
from pathlib import Path

import numpy as np

from decider.contracts.store import GatewayStatus
from decider.doors.addresses import UNIX
from decider.doors.unix_client import UnixConnection

# Seconds that count as recent. Chosen: long enough for a share of one in a thousand, and short
# enough that a gateway which was helped is soon seen to be well.
RECENT_S = 60
# Times are told apart in steps of 0.1 ms up to 100 ms; longer ones share the last place.
STEP_MS, STEPS = 0.1, 1000
# Seconds that Envoy's statistics may take. Chosen: its main thread answers in milliseconds, and the
# log waits meanwhile.
PATIENCE_S = 0.3
# Bytes read of Envoy's answer, which is one line for each match.
MOST_BYTES = 65_536
_ERRORS = re.compile(r"^http\.[^:\n]*\.ext_authz\.error: (\d{1,18})$", re.MULTILINE)

_PAGE = "/stats?filter=ext_authz.error$"

log = logging.getLogger("sluice.feedback")


class _Second:
    """Counts of one second."""

    __slots__ = ("asked", "at", "reported", "times", "unasked")

    def __init__(self, at: int) -> None:
        self.at, self.asked, self.unasked, self.reported = at, 0, 0, 0
        self.times = np.zeros(STEPS, np.int64)


class GatewayWatch:
    """The counts of one gateway. `now`: seconds of a clock that is not set."""

    def __init__(self, name: str, gateway_s: float) -> None:
        """Count for a gateway that waits for `gateway_s` seconds for a decision."""
        self.name, self._waits_ms = name, gateway_s * 1e3
        self.asked = self.unasked = 0
        self.given_up = 0
        """Lines of the log that were given up unread."""
        self._reported = 0
        self._seconds: deque[_Second] = deque()

    def note(self, took_ms: float | None, unasked: bool, now: float) -> None:
        """Note a request for which a decider was asked. `took_ms`: how long, as the gateway saw it;
        None when it did not say.
        """
        second = self._second(now)
        self.asked += 1
        second.asked += 1
        if unasked:
            self.unasked += 1
            second.unasked += 1
            took_ms = max(took_ms or 0.0, self._waits_ms)
        if took_ms is not None:
            second.times[min(STEPS - 1, int(took_ms / STEP_MS))] += 1

    def note_reported(self, more: int, now: float) -> None:
        """Note that the gateway's own statistics count so many more without an answer."""
        self._reported += more
        self._second(now).reported += more

    def _second(self, now: float) -> _Second:
        seconds = self._seconds
        if not seconds or seconds[-1].at < int(now):
            seconds.append(_Second(int(now)))
            while seconds[0].at <= int(now) - RECENT_S:
                seconds.popleft()
        return seconds[-1]

    def status(self, at: float, now: float) -> GatewayStatus:
        """Return the counts. `at`: unix seconds.

        Log and statistics may each miss what the other has, so the larger count is told.
        """
        self._second(now)
        asked = sum(second.asked for second in self._seconds)
        unasked = sum(second.unasked for second in self._seconds)
        unasked = max(unasked, sum(second.reported for second in self._seconds))
        sums = np.cumsum(np.sum([second.times for second in self._seconds], axis=0))
        place = int(np.searchsorted(sums, 0.99 * sums[-1])) + 1 if sums[-1] else 0
        return GatewayStatus(
            self.name,
            at,
            max(self.asked, self._reported),
            max(self.unasked, self._reported),
            max(asked, unasked),
            unasked,
            round(place * STEP_MS, 1),
            self.given_up,
        )


class EnvoyStatistics:
    """The counter of failed checks in Envoy's admin interface, read again and again."""

    def __init__(self, address: str) -> None:
        """Read from `address`, such as unix:/run/envoy-admin.sock or http://127.0.0.1:9301."""
        self._address = address.rstrip("/")
        self._before: int | None = None
        self._away = False

    def more(self) -> int:
        """Return how many checks failed since the last call; 0 while Envoy does not tell."""
        try:
            count = count_errors(_fetch(self._address).decode("ascii", "replace"))
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not self._away:
                log.warning("Envoy's statistics cannot be read (%s); its log counts alone.", error)
            self._away = True
            return 0
        self._away = False
        before, self._before = self._before, count
        # a smaller count: Envoy started again
        return 0 if before is None else count - before if count >= before else count


def _fetch(address: str) -> bytes:
    """Return a page of statistics. Raise OSError, ValueError or HTTPException."""
    if address.startswith(UNIX):
        line = UnixConnection(Path(address.removeprefix(UNIX)), PATIENCE_S)
        try:
            line.request("GET", _PAGE)
            return line.getresponse().read(MOST_BYTES)
        finally:
            line.close()
    # the operator names the address
    with urllib.request.urlopen(address + _PAGE, timeout=PATIENCE_S) as answer:  # noqa: S310
        return bytes(answer.read(MOST_BYTES))


def count_errors(text: str) -> int:
    """Return how many checks failed, by all listeners' filters in a page of statistics."""
    return sum(int(number) for number in _ERRORS.findall(text))
