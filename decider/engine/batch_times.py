"""How long the engine took for its last batches."""

from __future__ import annotations

from collections import deque

# Batches that are kept. Chosen: some seconds of a busy decider.
KEPT = 1024


class BatchTimes:
    """Microseconds and sizes of the last KEPT batches."""

    def __init__(self) -> None:
        self._found: deque[tuple[float, int]] = deque(maxlen=KEPT)

    def note(self, elapsed_us: float, size: int) -> None:
        """Note a batch."""
        self._found.append((elapsed_us, size))

    def p99_us(self) -> float:
        """Return the 99th percentile of decision times, each batch counted by its size."""
        batches = sorted(self._found)
        rest = 0.01 * sum(size for _, size in batches)
        for elapsed, size in reversed(batches):
            rest -= size
            if rest < 0:
                return elapsed
        return 0.0
