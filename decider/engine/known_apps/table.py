"""The table of known apps: all apps above the free tier, and all apps of tenants that a rule names,
whether they are tracked or not.

It is looked at only when a slot is made or the table changes, so requests of tracked apps pay
nothing for it. An entry is the keyed hash of the app id, that of its tenant id, and the tier: 17
bytes. Entries stand sorted by hash. Changes stand in a second, small sorted table in front of the
first one, which is merged when it has grown; a change then costs as much as the small table is
long. With a million entries the chance that a stranger's hash is among them is 10^6 / 2^64, less
than 1 in 10^13.

A table never changes: each function returns a new one, so threads may share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from decider.contracts.store import Profile
from decider.engine.text_hash import TextHash

# Entries that a table may have: 34 MB. Chosen: above the paying apps of any installation we know
# of, and a mistake elsewhere cannot fill a decider's memory.
MOST_ENTRIES = 2_000_000
# Number of changes from which on they are merged into the table. Chosen: a change then takes about
# a millisecond (docs/adr/0025), and a merge, which runs beside the decisions, is rare.
MERGE_FROM = 8_192
# The highest tier an entry may have (`vocabulary.Tier`).
HIGHEST_TIER = 3
# Tier of a change that takes an entry out.
REMOVED = 255


class KnownAppsError(ValueError):
    """Entries that make no valid table: unsorted, too many, or of a tier that does not exist."""


class KnownApps(NamedTuple):
    """Entries sorted by hash, each hash once, and the changes to them, sorted as well."""

    key: NDArray[np.uint64]
    """(n,): keyed hash of the app id."""
    tenant: NDArray[np.int64]
    """(n,): keyed hash of the tenant id."""
    tier: NDArray[np.uint8]
    """(n,)."""
    changed_key: NDArray[np.uint64]
    """(m,)."""
    changed_tenant: NDArray[np.int64]
    """(m,)."""
    changed_tier: NDArray[np.uint8]
    """(m,): REMOVED for an entry that is gone."""


def empty() -> KnownApps:
    """Return a table without entries."""
    return _without_changes(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint8))


def build(keys: np.ndarray, tenants: np.ndarray, tiers: np.ndarray) -> KnownApps:
    """Return the table of n entries in any order; of two with one key the later one counts.

    `keys`, `tenants`: hashes of 64 bits (n,). `tiers`: (n,). Raises KnownAppsError.
    """
    key, tenant = _unsigned(keys), np.asarray(tenants, np.int64)
    return checked(*_last_of_each(key, tenant, np.asarray(tiers, np.uint8)))


def of_profiles(profiles: Iterable[Profile], text_hash: TextHash) -> KnownApps:
    """Return the table of those apps among `profiles` that are above the free tier."""
    paying = [p for p in profiles if p.tier > 0]
    tiers = np.array([p.tier for p in paying], np.uint8)
    return build(
        text_hash.many([p.app for p in paying]), text_hash.many([p.tenant for p in paying]), tiers
    )


def checked(key: np.ndarray, tenant: np.ndarray, tier: np.ndarray) -> KnownApps:
    """Return the table of entries that should be sorted. Raises KnownAppsError if they are not,
    or if there are too many or one of a tier that does not exist.
    """
    filling = Filling(len(key))
    filling.add(key, tenant, tier)
    return filling.table()


class Filling:
    """A table that is filled part by part; nobody uses it before `table` returns it. The parts need
    not be kept, so a load takes no more memory than a second table beside the one in force.
    """

    def __init__(self, most: int) -> None:
        """Make room for `most` entries, at most MOST_ENTRIES. Room that is never written takes no
        memory.
        """
        self._most = min(most, MOST_ENTRIES)
        self._key = np.empty(self._most, np.uint64)
        self._tenant = np.empty(self._most, np.int64)
        self._tier = np.empty(self._most, np.uint8)
        self._count = 0

    def add(self, key: np.ndarray, tenant: np.ndarray, tier: np.ndarray) -> None:
        """Add entries (n,) behind those that came before. Raises KnownAppsError if they are not
        sorted, or if there are too many or one of a tier that does not exist.
        """
        first, last = self._count, self._count + len(key)
        if last > self._most:
            raise KnownAppsError(f"{last:,} known apps are more than the allowed {self._most:,}")
        if (tier > HIGHEST_TIER).any():
            raise KnownAppsError(f"a known app has a tier above the highest, {HIGHEST_TIER}")
        self._key[first:last], self._tenant[first:last] = key, tenant
        self._tier[first:last] = tier
        # together with the last entry of the part before
        found = self._key[max(0, first - 1) : last]
        if not (found[1:] > found[:-1]).all():
            raise KnownAppsError("the known apps are not sorted by hash, each hash once")
        self._count = last

    def table(self) -> KnownApps:
        """Return the table of all entries that came."""
        to = self._count
        return _without_changes(self._key[:to], self._tenant[:to], self._tier[:to])


def change(known: KnownApps, keys: np.ndarray, tenants: np.ndarray, tiers: np.ndarray) -> KnownApps:
    """Return the table with n entries put in or, where the tier is REMOVED, taken out.

    Of two changes to one key the later one counts. Raises KnownAppsError.
    """
    tier = np.asarray(tiers, np.uint8)
    if ((tier > HIGHEST_TIER) & (tier != REMOVED)).any():
        raise KnownAppsError(f"a change is to a tier above the highest, {HIGHEST_TIER}")
    key, tenant, tier = _last_of_each(
        np.concatenate([known.changed_key, _unsigned(keys)]),
        np.concatenate([known.changed_tenant, np.asarray(tenants, np.int64)]),
        np.concatenate([known.changed_tier, tier]),
    )
    # a removal of an entry that never was there changes nothing
    kept = (tier != REMOVED) | _among(key, known.key)
    if len(known.key) + int(kept.sum()) > MOST_ENTRIES + MERGE_FROM:
        raise KnownAppsError(f"more than {MOST_ENTRIES:,} known apps")
    return known._replace(
        changed_key=key[kept], changed_tenant=tenant[kept], changed_tier=tier[kept]
    )


def merge(known: KnownApps) -> KnownApps:
    """Return the same table with its changes merged into its entries; other threads can run."""
    most = len(known.key) + len(known.changed_key)
    key, tenant = np.empty(most, np.uint64), np.empty(most, np.int64)
    tier = np.empty(most, np.uint8)
    to = _merge_into(known, key, tenant, tier)
    return _without_changes(key[:to], tenant[:to], tier[:to])


@njit(cache=True, nogil=True)
def _merge_into(known: KnownApps, key: np.ndarray, tenant: np.ndarray, tier: np.ndarray) -> int:
    """Write entries and changes, both sorted, in one order. Return how many entries there are."""
    to, c, changes = 0, 0, known.changed_key.shape[0]
    for k in range(known.key.shape[0] + 1):
        last = k == known.key.shape[0]
        # changes up to this entry; one to the entry itself stands for it
        replaced = False
        while c < changes and (last or known.changed_key[c] <= known.key[k]):
            replaced = not last and known.changed_key[c] == known.key[k]
            if known.changed_tier[c] != REMOVED:
                key[to], tenant[to] = known.changed_key[c], known.changed_tenant[c]
                tier[to] = known.changed_tier[c]
                to += 1
            c += 1
        if not last and not replaced:
            key[to], tenant[to], tier[to] = known.key[k], known.tenant[k], known.tier[k]
            to += 1
    return to


def count(known: KnownApps) -> int:
    """Return how many apps a table holds."""
    replaced = int(_among(known.changed_key, known.key).sum())
    return len(known.key) - replaced + int((known.changed_tier != REMOVED).sum())


@njit(cache=True)
def _place_of(keys: np.ndarray, key: np.uint64) -> int:
    """Return the index of a key among sorted ones, -1 where it is missing."""
    low, high = 0, keys.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < keys.shape[0] and keys[low] == key else -1


@njit(cache=True)
def look_up(known: KnownApps, key: np.uint64) -> tuple[int, int]:
    """Return the tier of an app and the hash of its tenant; -1 and 0 if it is not in the table."""
    tier, tenant = -1, 0
    at = _place_of(known.changed_key, key)
    if at >= 0:
        if known.changed_tier[at] != REMOVED:
            tier, tenant = int(known.changed_tier[at]), int(known.changed_tenant[at])
        return tier, tenant
    at = _place_of(known.key, key)
    if at >= 0:
        tier, tenant = int(known.tier[at]), int(known.tenant[at])
    return tier, tenant


def _without_changes(key: np.ndarray, tenant: np.ndarray, tier: np.ndarray) -> KnownApps:
    return KnownApps(
        np.ascontiguousarray(key, np.uint64),
        np.ascontiguousarray(tenant, np.int64),
        np.ascontiguousarray(tier, np.uint8),
        np.zeros(0, np.uint64),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint8),
    )


def _unsigned(keys: np.ndarray) -> NDArray[np.uint64]:
    """Return hashes as the engine's tables keep them; `TextHash` gives signed ones."""
    found = np.ascontiguousarray(keys)
    return found.view(np.uint64) if found.dtype == np.int64 else found.astype(np.uint64)


def _last_of_each(
    key: np.ndarray, tenant: np.ndarray, tier: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows sorted by key; of rows with the same key, only the last one."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    last = np.ones(len(key), bool)
    last[:-1] = key[1:] != key[:-1]
    order = order[last]
    return key[last], tenant[order], tier[order]


def _among(keys: np.ndarray, those: np.ndarray) -> NDArray[np.bool_]:
    """Return for each of sorted `keys` whether it is among `those`, which are sorted too: bool
    (n,).
    """
    at = np.searchsorted(those, keys)
    found = np.zeros(len(keys), bool)
    inside = at < len(those)
    found[inside] = those[at[inside]] == keys[inside]
    return found
