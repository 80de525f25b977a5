"""The names of a service's endpoints that the config document does not list, learnt from the paths
that clients ask for.

A segment in which more words were seen than an API has there is taken for a parameter: all of its
words become `{text}`. So names stay few, and what clients write into paths (the name of a user, of
a company) is told apart a few times at most, and not for ever.
"""

from __future__ import annotations

from decider.contracts.normalise import names

# Words that are told apart in one place of a path, though the config document does not have them.
# Chosen: an API has fewer resources below one path; with more, they are a parameter's values.
MOST_WORDS = 40
# Segments that are remembered, of all names of a service. Bounded, as clients choose their paths;
# chosen above what a service really has.
MOST_SEGMENTS = 500
# Name that stands for all further endpoints.
OTHER = "/{other}"
_PLACEHOLDERS = frozenset((names.ID, names.EMAIL, names.TEXT))


class _Place:
    """What was seen behind one beginning of a path."""

    __slots__ = ("held", "learnt", "merged", "next")

    def __init__(self, held: bool = False) -> None:
        self.next: dict[str, _Place] = {}
        self.held = held
        """Whether the config document has it."""
        self.learnt = 0
        """Words in `next` that the document does not have."""
        self.merged = False
        """Whether these became one."""


class EndpointNames:
    """The names of one service, as a tree of segments."""

    def __init__(self) -> None:
        self._root, self._segments = _Place(held=True), 0
        self.merged = 0
        """Places where words became one. Names from before it rises are no longer given."""

    def hold(self, path: str) -> None:
        """Keep the words of a path or template of the config document: they are no client's."""
        place = self._root
        for part in path.split("/")[1:]:
            place = place.next.setdefault(part, _Place())
            place.held = True

    def of(self, path: str) -> str:
        """Return the name of a path, as `path_of` wrote it; OTHER when there are too many names."""
        place, kept = self._root, [""]
        for part in path.split("/")[1:]:
            found = self._step(place, self._word(place, part))
            if found is None:
                return OTHER
            part, place = found
            kept.append(part)
        return names.join(kept)

    @staticmethod
    def _word(place: _Place, part: str) -> str:
        """Return a segment as it may be kept behind `place`."""
        return part if (known := place.next.get(part)) and known.held else names.of_segment(part)

    def _step(self, place: _Place, part: str) -> tuple[str, _Place] | None:
        """Return the segment to keep and the place behind it; None when there is no room."""
        known = place.next.get(part)
        if known is None and part not in _PLACEHOLDERS:
            if not place.merged and place.learnt >= MOST_WORDS:
                self._merge(place)
            if place.merged:
                part, known = names.TEXT, place.next.get(names.TEXT)
        if known is None:
            if self._segments >= MOST_SEGMENTS:
                return None
            self._segments += 1
            place.learnt += part not in _PLACEHOLDERS
            known = place.next[part] = _Place()
        return part, known

    def _merge(self, place: _Place) -> None:
        """Make one of all words behind a place that the document does not have."""
        self.merged += 1
        place.merged = True
        kept = _PLACEHOLDERS | {part for part, after in place.next.items() if after.held}
        for part in place.next.keys() - kept:
            self._segments -= _size(place.next.pop(part))


def _size(place: _Place) -> int:
    """Return how many segments are remembered from this one on."""
    return 1 + sum(map(_size, place.next.values()))
