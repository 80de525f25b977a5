"""Guard lists and operator overrides: a small hash table that the engine reads for each request,
and the networks that are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numba import njit

from decider.contracts.config import Config
from decider.contracts.normalise import addresses
from decider.engine.text_hash import TextHash

# Kinds of subjects. Each rule names its kind, as an app and a tenant may have the same id.
APP, TENANT, SOURCE = 0, 1, 2
KINDS = {"app": APP, "tenant": TENANT, "source": SOURCE}
# Values of the signal `list_verdict`; compliance has a signal of its own.
VERDICTS = {"allow": 1.0, "block": 2.0, "compliance": 3.0}
# columns of Subjects.rule (float64)
KIND, UNTIL, VERDICT, ACTION, MULTIPLIER, NEXT = range(6)
# Bits of a source, by the version of IP: a network of so many is found by the hash of its text.
_BITS_OF_SOURCE: Final = {4: 32, 6: addresses.SUBSCRIBER_BITS}
_WIDTHS: Final = {4: 32, 6: 128}  # bits of an address, by the version of IP


class Subjects(NamedTuple):
    """The rules of a config document, found by the hash of their subject."""

    key: np.ndarray
    """int64 (power of two,): hash of a subject."""
    first: np.ndarray
    """int64 (same,): row of its first rule plus one, 0 for empty."""
    rule: np.ndarray
    """float64 (rules or 1, 6): kind, until, list verdict (0 none), override action (-1 none),
    multiplier, next row (-1 none).
    """


def compile_subjects(
    config: Config, text_hash: TextHash, networks: Networks | None = None
) -> Subjects:
    """Return all list entries and overrides of a document, in a table by hash of the subject.
    `networks`: those of the document, if they are there already.
    """
    rows = _rows_of(config)
    # less than a quarter full, so that a request with no rule meets an empty entry at once
    size = 1 << max(2, (4 * len(rows)).bit_length())
    key, first = np.zeros(size, np.int64), np.zeros(size, np.int64)
    rule = np.zeros((max(1, len(rows)), 6))
    # A network's rules are found by its text, too, as by a source that no client can have.
    hashes = text_hash.many([subject for subject, _ in rows]).tolist()
    for number, (hashed, (_, row)) in enumerate(zip(hashes, rows, strict=True)):
        at = hashed & (size - 1)
        while first[at] and key[at] != hashed:
            at = (at + 1) & (size - 1)
        # put before the subject's earlier rules, so that the one listed last is found first
        row[NEXT] = first[at] - 1
        key[at], first[at], rule[number] = hashed, number + 1, row
    found = Subjects(key, first, rule)
    _link(found, networks or Networks(config, text_hash))
    return found


def _rows_of(config: Config) -> list[tuple[str, list[float]]]:
    """Return subject and columns of `Subjects.rule` of all lists and overrides, in order."""
    rows: list[tuple[str, list[float]]] = []
    for entry in config.lists:
        kind, verdict = KINDS[entry.kind], VERDICTS[entry.verdict]
        until = np.inf if entry.until is None else entry.until
        subject = entry.subject
        if entry.kind == "source" and (read := _read(subject)) is not None:
            subject = read.text
        rows.append((subject, [kind, until, verdict, -1.0, 1.0, -1.0]))
    for o in config.overrides:
        action = -1.0 if o.action is None else float(o.action)
        rows.append((o.subject, [KINDS[o.kind], o.until, 0.0, action, o.multiplier, -1.0]))
    return rows


class _Network(NamedTuple):
    """A listed source or network, read from its subject."""

    text: str
    version: int
    bits: int
    number: int
    """Its first address."""


# Remembered, so that a document with many entries is in force soon. Chosen: above what a document
# holds.
@lru_cache(maxsize=65_536)
def _read(subject: str) -> _Network | None:
    """Return what a listed source names; None for an old document's text that names none and so
    finds nobody, as it always did.
    """
    try:
        found = addresses.network(subject)
    except addresses.AddressError:
        return None
    number = int(found.network_address)
    return _Network(addresses.text_of(found), found.version, found.prefixlen, number)


class Networks:
    """The networks of more than one source that a document lists."""

    def __init__(self, config: Config, text_hash: TextHash) -> None:
        named = (_read(entry.subject) for entry in config.lists if entry.kind == "source")
        self.listed = list({n for n in named if n and n.bits < _BITS_OF_SOURCE[n.version]})
        self.hashes = text_hash.many([n.text for n in self.listed]).tolist()
        self._lengths = {
            version: sorted({n.bits for n in self.listed if n.version == version}, reverse=True)
            for version in _WIDTHS
        }
        places = ((n.version, n.bits, n.number) for n in self.listed)
        self._by_place = dict(zip(places, self.hashes, strict=True))

    def narrowest(self, version: int, number: int, below: int) -> int:
        """Return the hash of the narrowest network with fewer bits than `below` around an address,
        0 where there is none. One look-up for each length of a prefix.
        """
        for bits in self._lengths[version]:
            rest = _WIDTHS[version] - bits
            if bits < below and (
                hashed := self._by_place.get((version, bits, number >> rest << rest))
            ):
                return hashed
        return 0

    def finder(self) -> Callable[[str], int] | None:
        """Return a function from a source to the hash by which `consult` finds the rules of all
        networks around it, 0 for none. Return None when no network is listed.
        """
        if not self.listed:
            return None

        # A source looked up for the first time costs microseconds, and later ones a tenth of one.
        @lru_cache(maxsize=addresses.REMEMBERED)
        def around(source: str) -> int:
            version, number = addresses.bits_of(source)
            # A replayed log has pseudonyms for sources.
            return self.narrowest(version, number, _WIDTHS[version]) if version else 0

        return around


def _first_row(subjects: Subjects, hashed: int) -> int:
    """Return the first row of a listed subject's rules."""
    mask = len(subjects.key) - 1
    at = hashed & mask
    while subjects.key[at] != hashed:
        at = (at + 1) & mask
    return int(subjects.first[at]) - 1


def _link(subjects: Subjects, networks: Networks) -> None:
    """Let the rules of each network go on with those of the next wider one around it, so that the
    narrowest around a source leads to all.
    """
    for network, hashed in zip(networks.listed, networks.hashes, strict=True):
        if around := networks.narrowest(network.version, network.number, network.bits):
            last = _first_row(subjects, hashed)
            # The rules of this network end where the row after the last would be.
            while subjects.rule[last, NEXT] >= 0.0:
                last = int(subjects.rule[last, NEXT])
            subjects.rule[last, NEXT] = _first_row(subjects, around)


@njit(cache=True, inline="always")
def consult(subjects: Subjects, kind: int, hashed: int, now: float, found: np.ndarray) -> None:
    """Add the rules in force about a subject to `found`.

    `found`: float64 (4,): list verdict, compliance, override action, multiplier. `now`: wall time.
    A block outweighs an allow; of two overrides the one listed last counts.
    """
    mask = subjects.key.shape[0] - 1
    at = hashed & mask
    while subjects.first[at] != 0 and subjects.key[at] != hashed:
        at = (at + 1) & mask
    row = subjects.first[at] - 1
    # an override found for the app before is not replaced by the tenant's
    chosen = found[2] >= 0.0 or found[3] != 1.0
    while row >= 0:
        rule = subjects.rule[row]
        if int(rule[KIND]) == kind and now < rule[UNTIL]:
            if rule[VERDICT] == 3.0:
                found[1] = 1.0
            elif rule[VERDICT] > 0.0:
                found[0] = max(found[0], rule[VERDICT])
            elif not chosen:
                found[2], found[3], chosen = rule[ACTION], rule[MULTIPLIER], True
        row = int(rule[NEXT])
