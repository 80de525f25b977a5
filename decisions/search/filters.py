"""The filters of a search: a time, and values of seven dimensions to include or to exclude. All of
them can be written in an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_

from django.db.models import Q

from decider.contracts.vocabulary import REASONS, Action, Arm, Reason, Stage, Tier
from decisions.counts import rollup
from decisions.reason_text import BRIEF

Value = int | str
# Seconds of a day.
DAY_S = 86_400.0
# Time ranges by their name in an address: words, and seconds back from now (None: no limit).
RANGES: dict[str, tuple[str, float | None]] = {
    "15m": ("Last 15 min", 900.0),
    "1h": ("Last 1 h", 3_600.0),
    "6h": ("Last 6 h", 21_600.0),
    "24h": ("Last 24 h", DAY_S),
    "7d": ("Last 7 d", 7 * DAY_S),
    "all": ("All that is kept", None),
}
# Seconds of a histogram's bucket, by range. A range begins at the edge of a bucket, and a bucket is
# a multiple of a block of `rollup.LEVELS`. So the counts kept ready answer for a range exactly.
WIDTHS = {"15m": 60.0, "1h": 60.0, "6h": 300.0, "24h": 1_800.0, "7d": 10_800.0}
REFUSED = frozenset({Action.DEFER, Action.BATCH, Action.SHED, Action.BLOCK})
# Characters. Chosen: longer than any path template or service name; addresses stay short.
LONGEST_VALUE = 300
# Chosen: nobody picks more by hand, and an address stays below what proxies take (8 KB).
MOST_VALUES = 50


@dataclass(frozen=True, slots=True)
class Dimension:
    """A property that decisions are filtered and counted by."""

    name: str
    """Its name in an address; the field of `Filters` has an s after this name."""
    title: str
    read: Callable[[str], Value]
    """Returns a value from its word in an address; raises ValueError."""
    word: Callable[[Value], str]
    label: Callable[[Value], str]
    known: str
    """Which values exist, in words, for the message about a value that does not."""
    words: tuple[str, ...] = ()
    """All values as words, when there is a fixed set of them; else empty."""

    @property
    def field(self) -> str:
        return f"{self.name}s"

    @property
    def without(self) -> str:
        """The name of its excluded values in an address: a name that programs can use as it is."""
        return f"not_{self.name}"

    def condition(self, values: Iterable[Value]) -> Q:
        """Return the condition that a stored decision has one of these values."""
        chosen = sorted(values)
        if self.name != "endpoint":
            return Q(**{f"{self.name}__in": chosen})
        # an endpoint is stored in two columns, method and path
        parts = (str(value).partition(" ") for value in chosen)
        return reduce(or_, (Q(method=method, endpoint=path) for method, _, path in parts))


def _reader_of(kinds: Mapping[str, Value]) -> Callable[[str], Value]:
    """Return a function that reads one of these words; it raises ValueError for another."""

    def read(word: str) -> Value:
        if word not in kinds:
            raise ValueError(word)
        return kinds[word]

    return read


def _text(word: str) -> str:
    """Return a word unchanged. Raise ValueError when it is empty, too long or contains a NUL
    character.
    """
    if not word or len(word) > LONGEST_VALUE or "\x00" in word:
        raise ValueError(word)
    return word


def _fixed(
    name: str,
    title: str,
    kinds: type[Action | Stage | Tier | Reason | Arm],
    label: Callable[[Value], str],
) -> Dimension:
    """Return a dimension whose values are those of an enumeration."""
    words = {kind.name.lower().replace("_", "-"): int(kind) for kind in kinds}
    back = {value: word for word, value in words.items()}
    known = f"one of {', '.join(words)}"
    return Dimension(
        name, title, _reader_of(words), lambda value: back[int(value)], label, known, tuple(words)
    )


ARM_LABELS = {Arm.NONE: "No model", Arm.LIVE: "Live model"}


def arm_label(arm: Arm) -> str:
    """Return a model arm in words; its own name where it has none."""
    return ARM_LABELS.get(arm, arm.name.lower())


def reason_label(value: Value) -> str:
    """Return a machine reason in a few words."""
    reason = Reason(int(value))
    text = BRIEF.get(reason, REASONS[reason].text)
    return text[:1].upper() + text[1:]


# In the order of `facet_counts.Tally.values`, which `Filters.passes` relies on.
DIMENSIONS: tuple[Dimension, ...] = (
    _fixed("action", "Action", Action, lambda v: Action(int(v)).word.capitalize()),
    _fixed("stage", "Decided by", Stage, lambda v: Stage(int(v)).label),
    _fixed("tier", "Tier", Tier, lambda v: Tier(int(v)).word.capitalize()),
    Dimension(
        "service",
        "Service",
        _text,
        str,
        str,
        f"a service's name of at most {LONGEST_VALUE} characters",
    ),
    Dimension(
        "endpoint",
        "Endpoint",
        _text,
        str,
        str,
        "a method, a space and a path, as “GET /v2/orders/{id}”",
    ),
    _fixed("reason", "Reason", Reason, reason_label),
    _fixed("arm", "Model arm", Arm, lambda v: arm_label(Arm(int(v)))),
)
BY_NAME = {d.name: d for d in DIMENSIONS}


@dataclass(frozen=True, slots=True)
class Window:
    """A time range, divided into buckets."""

    since: float | None
    """Unix seconds; None: all that is kept."""
    until: float | None
    """Exclusive; None: until now."""
    width: float
    """Seconds of a bucket; 0 when it depends on what is found."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a list of decisions. An empty set filters nothing."""

    range: str = "1h"
    actions: frozenset[int] = frozenset()
    stages: frozenset[int] = frozenset()
    tiers: frozenset[int] = frozenset()
    services: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    reasons: frozenset[int] = frozenset()
    arms: frozenset[int] = frozenset()
    out: frozenset[tuple[str, Value]] = frozenset()
    """Excluded: dimension and value."""
    start: float | None = None
    """Start of a chosen time, unix seconds, which replaces `range`. `start` and `end` are both set,
    or both None.
    """
    end: float | None = None

    def wanted(self, dimension: Dimension) -> frozenset[Value]:
        """Return the values of a dimension that are included; an empty set means all."""
        found: frozenset[Value] = getattr(self, dimension.field)
        return found

    def unwanted(self, dimension: Dimension) -> frozenset[Value]:
        """Return the values of a dimension that are excluded."""
        return frozenset(value for name, value in self.out if name == dimension.name)

    def since(self, now: float) -> float | None:
        """Return the unix seconds at which the window begins; None for all that is kept."""
        return self.window(now).since

    def window(self, now: float) -> Window:
        """Return the time range of these filters at `now` (unix seconds)."""
        if self.start is not None and self.end is not None:
            return _chosen_window(self.start, self.end, now)
        seconds = RANGES[self.range][1]
        if seconds is None:
            return Window(None, None, 0.0)
        width = WIDTHS[self.range]
        return Window((now - seconds) // width * width, None, width)

    def passes(self, values: Sequence[Value], *, but: str = "") -> bool:
        """Return whether these filters let a combination of values pass: one value of each
        dimension, in the order of DIMENSIONS. The dimension called `but` is not checked.
        """
        for dimension, value in zip(DIMENSIONS, values, strict=True):
            if dimension.name == but:
                continue
            wanted = self.wanted(dimension)
            if (wanted and value not in wanted) or (dimension.name, value) in self.out:
                return False
        return True

    def condition(self) -> Q:
        """Return the condition that a stored decision passes these filters, apart from its time."""
        found = Q()
        for dimension in DIMENSIONS:
            if wanted := self.wanted(dimension):
                found &= dimension.condition(wanted)
            if unwanted := self.unwanted(dimension):
                found &= ~dimension.condition(unwanted)
        return found

    def narrows(self) -> bool:
        """Return whether these filters say anything besides the time."""
        return bool(self.out) or any(self.wanted(d) for d in DIMENSIONS)

    def including(self, dimension: Dimension, value: Value) -> Filters:
        """Return these filters with a value included; with it no longer included when it was."""
        out = frozenset(self.out - {(dimension.name, value)})
        return self._changed(dimension, self.wanted(dimension) ^ {value}, out)

    def excluding(self, dimension: Dimension, value: Value) -> Filters:
        """Return these filters with a value excluded; with it no longer excluded when it was."""
        out = self.out ^ {(dimension.name, value)}
        return self._changed(dimension, self.wanted(dimension) - {value}, out)

    def without(self, dimension: Dimension) -> Filters:
        """Return these filters without what they say about a dimension."""
        left = frozenset((name, value) for name, value in self.out if name != dimension.name)
        return self._changed(dimension, frozenset(), left)

    def _changed(
        self,
        dimension: Dimension,
        wanted: frozenset[Value],
        out: frozenset[tuple[str, Value]],
    ) -> Filters:
        """Return these filters with other values of one dimension: `wanted` and `out`."""
        # a dimension's field is known by its name only, which mypy cannot follow
        return replace(self, out=out, **{dimension.field: wanted})  # type: ignore[arg-type]

    @property
    def time_words(self) -> str:
        """The window in words."""
        if self.start is None or self.end is None:
            return RANGES[self.range][0]
        first, last = datetime.fromtimestamp(self.start, UTC), datetime.fromtimestamp(self.end, UTC)
        end = f"{last:%H:%M}" if first.date() == last.date() else f"{last.day} {last:%b %H:%M}"
        return f"{first.day} {first:%b %H:%M} to {end}"

    def query(self) -> list[tuple[str, str]]:
        """Return names and values for an address; the look-up page reads them back."""
        if self.start is not None and self.end is not None:
            out = [("from", stamp(self.start)), ("to", stamp(self.end)), ("f", "1")]
        else:
            out = [("range", self.range), ("f", "1")]
        for dimension in DIMENSIONS:
            out += [
                (dimension.name, dimension.word(value)) for value in sorted(self.wanted(dimension))
            ]
            out += [
                (dimension.without, dimension.word(value))
                for value in sorted(self.unwanted(dimension))
            ]
        return out


# Seconds. A chosen time of at most this length is counted from the rows when the counts kept ready
# are coarser. Chosen: six hours of rows are counted quickly enough for a page.
ROWS_WINDOW_S = 6 * 3_600.0
# Bars of a histogram at most: enough to see a shape, wide enough to be clicked.
_BUCKETS = 60


def _chosen_window(start: float, end: float, now: float) -> Window:
    """Return the window of a chosen time. Its ends are whole minutes when the counts kept ready are
    that fine or the time is at most ROWS_WINDOW_S; else they are as coarse as the counts.
    """
    minute = 60.0
    grain = rollup.grain(now - start) * minute
    if end - start <= ROWS_WINDOW_S:
        grain = minute
    first, last = start // grain * grain, -(-end // grain) * grain
    return Window(first, last, max(grain, -(-(last - first) // (_BUCKETS * grain)) * grain))


def stamp(seconds: float) -> str:
    """Return unix seconds as a UTC minute for an address, such as 2025-11-18T14:21."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M}"
