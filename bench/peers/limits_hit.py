"""Peer: `limits` with its in-memory storage and a fixed window. It reads numbers of hits from
stdin, one a line, makes so many hits, and prints the CPU seconds that they took.
"""

import random
import sys
import time

from limits import RateLimitItemPerDay
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter


def main(keys: int) -> None:
    """Fill the storage with `keys` keys, then measure hits for each line of stdin."""
    limiter, item = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerDay(1_000_000_000)
    for k in range(keys):
        limiter.hit(item, f"app_{k:07d}")
    draw = random.Random(1)
    print("ready", flush=True)
    for line in sys.stdin:
        names = [f"app_{draw.randrange(keys):07d}" for _ in range(int(line))]
        hit, start = limiter.hit, time.thread_time()
        for name in names:
            hit(item, name)
        print(time.thread_time() - start, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
