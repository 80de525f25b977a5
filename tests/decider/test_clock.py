"""Steps of the wall clock: nothing freezes, nothing is given twice, and rules end when they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest

from decider.contracts import defaults
from decider.contracts.config import ListEntry
from decider.contracts.requests import CheckRequest
from decider.contracts.vocabulary import Action
from decider.engine import clock
from decider.engine.engine import Engine
from tests.decider.test_engine import config, engine

NOW = 1_790_000_000.0
HOUR_S, DAY_S = 3_600.0, 86_400.0


@dataclass
class Machine:
    """A machine's two clocks."""

    wall: float = NOW
    boot: float = 5_000.0

    def passes(self, seconds: float) -> None:
        self.wall, self.boot = self.wall + seconds, self.boot + seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clock.time, "time", lambda: made.wall)
    monkeypatch.setattr(clock.time, "clock_gettime", lambda _: made.boot)
    return made


def ask(made: Engine, app: str = "app_1", count: int = 1) -> list:
    return made.decide([CheckRequest(app, "GET", "/v2/orders/1") for _ in range(count)])


Step = Callable[[Machine], None]
STEPS = {"forward": HOUR_S, "back": -HOUR_S, "a day forward": DAY_S, "a day back": -DAY_S}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("returns", [True, False], ids=["and returns", "and stays"])
def test_a_step_freezes_nothing_and_refills_nothing(
    machine: Machine, step: float, returns: bool
) -> None:
    made = engine()
    refused = sum(a.action != Action.ADMIT for a in ask(made, count=80))
    assert refused == 30  # a burst of 50
    machine.wall += step
    assert ask(made)[0].action != Action.ADMIT
    if returns:
        machine.wall -= step
    admitted = 0
    for _ in range(600):
        machine.passes(1.0)
        admitted += ask(made)[0].action == Action.ADMIT
    assert admitted == 600
    assert made.clock.steps == 1 + returns


def test_a_caller_whose_time_jumps_ahead_once_is_served_after_it() -> None:
    made = engine()
    for at in (NOW, NOW + HOUR_S):
        made.decide([CheckRequest("app_1", "GET", "/v2/orders/1")], at)
    answers = [
        made.decide([CheckRequest("app_1", "GET", "/v2/orders/1")], NOW + second)[0].action
        for second in range(1, 601)
    ]
    assert answers == [Action.ADMIT] * 600


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_ids_stay_unique_and_ordered(machine: Machine, step: float) -> None:
    made = engine()
    ids = [a.id for a in ask(made, count=300)]
    for moved in (step, -step, 0.0):
        machine.wall += moved
        machine.passes(0.001)
        ids += [a.id for a in ask(made, count=300)]
    assert ids == sorted(set(ids))


def test_a_rule_ends_by_the_wall_clock(machine: Machine) -> None:
    entry = ListEntry(verdict="block", kind="app", subject="app_1", until=NOW + 100.0)
    made = engine(config(lists=[entry]))
    assert ask(made)[0].action == Action.BLOCK
    machine.wall += HOUR_S
    assert ask(made)[0].action == Action.ADMIT
    machine.wall -= HOUR_S
    assert ask(made)[0].action == Action.BLOCK
    machine.passes(101.0)
    assert ask(made)[0].action == Action.ADMIT


def test_a_step_to_tomorrow_and_back_gives_no_second_quota(machine: Machine) -> None:
    tiers = [msgspec.structs.replace(t, quota_per_day=20) for t in defaults.TIERS]
    made = engine(config(tiers=tiers))
    admitted = sum(a.action == Action.ADMIT for a in ask(made, count=40))
    machine.wall -= DAY_S
    admitted += sum(a.action == Action.ADMIT for a in ask(made, count=40))
    machine.wall += DAY_S
    machine.passes(10.0)
    admitted += sum(a.action == Action.ADMIT for a in ask(made, count=40))
    # a step back and on again may look like a new day once, and never more often
    assert admitted <= 40
    machine.wall -= DAY_S
    assert all(a.action != Action.ADMIT for a in ask(made, count=5))


def test_a_step_is_noticed_by_the_next_tick_without_any_request(machine: Machine) -> None:
    made = engine()
    made.tick()
    machine.wall += HOUR_S
    machine.passes(0.2)
    made.tick()
    assert made.clock.steps == 1
    assert made.clock.skew == pytest.approx(HOUR_S)


def test_a_clock_that_is_slewed_has_no_steps(machine: Machine) -> None:
    made = engine()
    for _ in range(5_000):
        machine.passes(0.2)
        machine.wall += 0.0005
        made.tick()
    assert made.clock.steps == 0
