"""Counts of the last minutes, from counts since the start."""

from __future__ import annotations

from collections import deque


class Recent:
    """What several counts were a while ago. `now`: seconds of a clock that is not set."""

    def __init__(self, span_s: float, note_every_s: float) -> None:
        """Look back over `span_s` seconds, to within `note_every_s`."""
        self._span_s, self._note_every_s = span_s, note_every_s
        # (when, counts), one each `note_every_s` and one older than the span
        self._notes: deque[tuple[float, tuple[int, ...]]] = deque()

    def since(self, counts: tuple[int, ...], now: float) -> tuple[int, ...]:
        """Note the counts when it is time, and return how much of each is recent."""
        notes = self._notes
        if not notes or now - notes[-1][0] >= self._note_every_s:
            notes.append((now, counts))
        while len(notes) > 1 and now - notes[1][0] >= self._span_s:
            notes.popleft()
        # what came before the first note is recent, too, until it is older than the span
        was = notes[0][1] if now - notes[0][0] >= self._span_s else (0,) * len(counts)
        return tuple(count - before for count, before in zip(counts, was, strict=True))
