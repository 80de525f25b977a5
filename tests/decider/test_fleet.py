"""However many deciders a region has, a service gets what it has room for, and each tenant its
due.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bench.fleet.world import TARGET, Result, World, due
from tests.decider.model import small_model

# what is judged begins two seconds after the surge
SETTLED, SECONDS = 2, 22


@cache
def surge(deciders: int, load: float) -> Result:
    return World(small_model(), deciders, load, SECONDS).run()


def test_the_due_is_the_max_min_share() -> None:
    assert due(np.array([10.0, 20.0])).tolist() == [10.0, 20.0]
    assert due(np.array([10.0, 200.0, 200.0])).tolist() == [10.0, 80.0, 80.0]
    assert due(np.full(8, 100.0)).sum() == pytest.approx(TARGET)


# `bench ONLY=fleet` measures 1, 2, 4 and 8 deciders, and three loads
@pytest.mark.parametrize("load", [1.3, 3.0])
@pytest.mark.parametrize("deciders", [1, 4])
def test_a_surge_is_held_at_the_target_and_costs_the_others_nothing(
    deciders: int, load: float
) -> None:
    found = surge(deciders, load)
    assert 0.9 <= found.share(SETTLED, SECONDS) <= 1.07
    assert found.parts(SETTLED, SECONDS)[1:].min() >= 0.93
    assert found.jain(SETTLED, SECONDS) >= 0.95
    # one world each: chance alone makes 3%, so 5% is judged by the bench, as a mean of several
    assert found.share(SETTLED, SECONDS) == pytest.approx(
        surge(1, load).share(SETTLED, SECONDS), rel=0.08
    )


def hanging(t: float) -> set[int]:
    return {0} if 8.0 <= t < 13.0 else set()


def joining(t: float) -> set[int]:
    return {0} if t < 8.0 else set()


def leaving(t: float) -> set[int]:
    return {0} if t >= 8.0 else set()


@pytest.mark.parametrize("away", [hanging, joining, leaving])
def test_the_same_holds_while_a_decider_joins_leaves_or_hangs(away) -> None:
    deciders = 3

    def home(t: float, homes: np.ndarray) -> np.ndarray:
        # the gateway gives a hanging decider's requests to nobody, those of one that is not there
        # to the others
        if away is hanging or 0 not in away(t):
            return homes
        return np.where(homes == 0, 1 + np.arange(len(homes)) % (deciders - 1), homes)

    found = World(small_model(), deciders, 1.8, SECONDS, away=away, home=home).run()
    # what a hanging decider would have answered is not asked of any, so its time is judged alone,
    # and with a margin, as five seconds are few
    if away is hanging:
        assert 0.8 <= found.share(8, 13) <= 1.15
        assert found.parts(8, 13)[1:].min() >= 0.75
    start = 13 if away is hanging else SETTLED
    assert 0.9 <= found.share(start, SECONDS) <= 1.05
    assert found.parts(start, SECONDS)[1:].min() >= 0.93
    assert found.jain(start, SECONDS) >= 0.95


def test_while_the_store_is_silent_a_service_never_gets_more_than_it_has_room_for() -> None:
    found = World(small_model(), 3, 1.8, 44, silent=(8.0, 38.0)).run()
    for start in range(8, 38, 5):
        assert 0.5 <= found.share(start, start + 5) <= 1.1, start
    assert 0.9 <= found.share(40, 44) <= 1.1
