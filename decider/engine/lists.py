"""Guard lists and operator overrides: a small hash table that the engine reads for each request,
and the networks that are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

import numpy as np
from numba import njit

from decider.contracts.config import Config
from decider.contracts.normalise import addresses
from decider.engine.text_hash import TextHash

Network = IPv4Network | IPv6Network

# Kinds of subjects. Each rule names its kind, as an app and a tenant may have the same id.
APP, TENANT, SOURCE = 0, 1, 2
KINDS = {"app": APP, "tenant": TENANT, "source": SOURCE}
# Values of the signal `list_verdict`; compliance has a signal of its own.
VERDICTS = {"allow": 1.0, "block": 2.0, "compliance": 3.0}
# columns of Subjects.rule (float64)
KIND, UNTIL, VERDICT, ACTION, MULTIPLIER, NEXT = range(6)
# Bits of a source, by the version of IP: a network of so many is found by the hash of its text.
_BITS_OF_SOURCE: Final = {4: 32, 6: addresses.SUBSCRIBER_BITS}


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


def compile_subjects(config: Config, text_hash: TextHash) -> Subjects:
    """Return all list entries and overrides of a document, in a table by hash of the subject."""
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
    _link(found, _networks_of(config, text_hash))
    return found


def _rows_of(config: Config) -> list[tuple[str, list[float]]]:
    """Return subject and columns of `Subjects.rule` of all lists and overrides, in order."""
    rows: list[tuple[str, list[float]]] = []
    for entry in config.lists:
        kind, verdict = KINDS[entry.kind], VERDICTS[entry.verdict]
        until = np.inf if entry.until is None else entry.until
        subject = entry.subject
        if entry.kind == "source" and (network := _network(subject)) is not None:
            subject = addresses.text_of(network)
        rows.append((subject, [kind, until, verdict, -1.0, 1.0, -1.0]))
    for o in config.overrides:
        action = -1.0 if o.action is None else float(o.action)
        rows.append((o.subject, [KINDS[o.kind], o.until, 0.0, action, o.multiplier, -1.0]))
    return rows


# Remembered, so that a document with many entries is in force as soon as any other. Chosen: above
# what a document holds.
@lru_cache(maxsize=65_536)
def _network(subject: str) -> Network | None:
    """Return what a listed source names; None for an old document's text that names none and so
    finds nobody, as it always did.
    """
    try:
        return addresses.network(subject)
    except addresses.AddressError:
        return None


class _Networks:
    """Listed networks of more than one source, and the hashes of their texts."""

    def __init__(self, hashes: dict[Network, int]) -> None:
        self.hashes = hashes
        self._lengths: dict[int, list[int]] = {
            version: sorted({n.prefixlen for n in hashes if n.version == version}, reverse=True)
            for version in (4, 6)
        }
        self._by_start = {
            (n.version, n.prefixlen, int(n.network_address)): hashed for n, hashed in hashes.items()
        }

    def narrowest(self, inside: Network, below: int) -> int:
        """Return the hash of the narrowest network with fewer bits than `below` around another, 0
        where there is none. One look-up for each length of a prefix.
        """
        version, number, most = inside.version, int(inside.network_address), inside.max_prefixlen
        for bits in self._lengths[version]:
            rest = most - bits
            if bits < below and (
                found := self._by_start.get((version, bits, number >> rest << rest))
            ):
                return found
        return 0


def _networks_of(config: Config, text_hash: TextHash) -> _Networks:
    """Return the networks of more than one source that a document lists."""
    named = (_network(entry.subject) for entry in config.lists if entry.kind == "source")
    found = {n for n in named if n is not None and n.prefixlen < _BITS_OF_SOURCE[n.version]}
    networks = list(found)
    hashes = text_hash.many([addresses.text_of(n) for n in networks]).tolist()
    return _Networks(dict(zip(networks, hashes, strict=True)))


def _first_row(subjects: Subjects, hashed: int) -> int:
    """Return the first row of a listed subject's rules."""
    mask = len(subjects.key) - 1
    at = hashed & mask
    while subjects.key[at] != hashed:
        at = (at + 1) & mask
    return int(subjects.first[at]) - 1


def _link(subjects: Subjects, networks: _Networks) -> None:
    """Let the rules of each network go on with those of the next wider one around it, so that the
    narrowest around a source leads to all.
    """
    for network, hashed in networks.hashes.items():
        if around := networks.narrowest(network, network.prefixlen):
            last = _first_row(subjects, hashed)
            # The rules of this network end where the row after the last would be.
            while subjects.rule[last, NEXT] >= 0.0:
                last = int(subjects.rule[last, NEXT])
            subjects.rule[last, NEXT] = _first_row(subjects, around)


def find_networks(config: Config, text_hash: TextHash) -> Callable[[str], int] | None:
    """Return a function from a source to the hash by which `consult` finds the rules of all listed
    networks around it, 0 for none. Return None when no network is listed.
    """
    networks = _networks_of(config, text_hash)
    if not networks.hashes:
        return None

    # A source looked up for the first time costs microseconds, and later ones a tenth of one.
    @lru_cache(maxsize=addresses.REMEMBERED)
    def around(source: str) -> int:
        try:
            found = addresses.network(source)
        except addresses.AddressError:
            return 0  # a pseudonym of a replayed log
        return networks.narrowest(found, _BITS_OF_SOURCE[found.version])

    return around


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
