"""Entries of a log in the order of their times, without those whose time cannot be right."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import count
from statistics import median

from learning.logs.entry import LogEntry

# Entries before and after one that its time is compared with. Chosen: a clock that is set late or
# read wrongly spoils a few lines at once, and more than half of the neighbours must be right.
NEIGHBOURS = 10
# Seconds from the median of the neighbours within which every time is right: one day. Logs are
# rarely further out of order.
USUAL_S = 86_400.0
# Beyond that, how many times the median distance of the neighbours from their median is still
# right. A log with a line a week spreads wider than a day by itself. Chosen: Hampel's rule takes
# three or more; at the ends of a log the neighbours lie on one side only, which takes more.
USUAL_TIMES = 10.0
# Lines held back to put them in order. Servers write a line when the answer ends, so lines are out
# of order by as many as are answered meanwhile. Chosen: far more than that, for some 50 MB.
SORT_WITHIN = 100_000

Numbered = tuple[int, LogEntry]


def believable(found: Iterator[Numbered], skip: Callable[[int], object]) -> Iterator[LogEntry]:
    """Yield the entries, given with the numbers of their lines, whose times are near those of their
    neighbours. Call `skip` with the line numbers of the others.

    The rule is Hampel's (1974, The influence curve and its role in robust estimation): the distance
    from the median of the neighbours against the median of their distances. Where times only grow,
    an entry is itself the median, so a gap of any length is right.
    """
    before: deque[float] = deque(maxlen=NEIGHBOURS)
    ahead: deque[Numbered] = deque()
    ended = False
    while True:
        while not ended and len(ahead) <= NEIGHBOURS:
            if (one := next(found, None)) is None:
                ended = True
            else:
                ahead.append(one)
        if not ahead:
            return
        line, entry = ahead.popleft()
        if _is_near(entry.at, [*before, entry.at, *(other.at for _, other in ahead)]):
            yield entry
        else:
            skip(line)
        # Refused times count as well, or no time would be right after the clock was set.
        before.append(entry.at)


def _is_near(at: float, around: list[float]) -> bool:
    # the usual case, without two medians
    if max(around) - min(around) <= USUAL_S:
        return True
    middle = median(around)
    spread = median([abs(other - middle) for other in around])
    return abs(at - middle) <= max(USUAL_S, USUAL_TIMES * spread)


def in_order(
    found: Iterator[LogEntry], noticed: Counter[str], most: int = SORT_WITHIN
) -> Iterator[LogEntry]:
    """Yield the entries in time order, as far as holding back `most` of them allows. An entry that
    is older than one already given comes late and is counted in `noticed`.
    """
    # The ticket keeps entries of equal time in the log's order, and entries are never compared.
    held: list[tuple[float, int, LogEntry]] = []
    ticket, newest, last = count(), -math.inf, -math.inf
    for entry in found:
        if entry.at < newest:
            noticed["time runs backwards"] += 1
        newest = max(newest, entry.at)
        heapq.heappush(held, (entry.at, next(ticket), entry))
        if len(held) > most:
            at, _, oldest = heapq.heappop(held)
            noticed["too far out of order to sort"] += at < last
            last = max(last, at)
            yield oldest
    while held:
        yield heapq.heappop(held)[2]
