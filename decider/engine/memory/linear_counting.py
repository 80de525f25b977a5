"""Distinct items by linear counting over 64 bits (Whang, Vander-Zanden and Taylor, 1990)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Estimate of distinct items by how many of the 64 bits are set; a full map reads 310.
_DISTINCT = np.array(
    [0.0 if ones == 0 else -64.0 * math.log(max(64 - ones, 0.5) / 64.0) for ones in range(65)]
)


@njit(cache=True, inline="always")
def _ones(x: np.uint64) -> np.int64:
    """Return how many bits are set (Warren, Hacker's Delight, 5-1)."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, inline="always")
def distinct(bits: np.uint64) -> float:
    """Return an estimate of how many different items set the bits of a map."""
    return float(_DISTINCT[_ones(bits)])
