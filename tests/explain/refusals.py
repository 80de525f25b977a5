"""Refusals of simulated traffic: decided by the engine, with what their clients were told."""

from __future__ import annotations

import uuid
from typing import NamedTuple

import msgspec

from decider.contracts.config import Config, ModelRef, Sampling
from decider.contracts.event import Event
from decider.contracts.requests import Decision as Answered
from decider.contracts.vocabulary import Action
from decider.refusal.client import Budget, Teller
from decider.scoring.model import Model
from decisions.models import Decision, utc
from learning.traffic import simulate
from learning.traffic.simulate import Scenario, Simulation

KEY = b"k" * 32


class _Endless(Budget):
    def end(self, started: float) -> None:
        """Nothing is booked, so every refusal is explained."""


class Refusal(NamedTuple):
    """A refusal as it was recorded, and as its client got it."""

    event: Event
    answered: Answered

    @property
    def decision(self) -> Decision:
        fields = {"id": uuid.UUID(bytes=self.event.id), "at": utc(self.event.at)}
        return Decision(**(msgspec.structs.asdict(self.event) | fields))


class _Recorded(Simulation):
    def __init__(self, scenario: Scenario, config: Config, model: Model) -> None:
        super().__init__(scenario, config, model)
        self.engine.teller = Teller(KEY, _Endless())
        self.answered: dict[bytes, Answered] = {}

    def answer(self, planned, decision, cost, now):
        if decision.action != Action.ADMIT:
            self.answered[decision.id] = decision
        return super().answer(planned, decision, cost, now)


def play(
    model: Model, scenario: Scenario, version: int = 1, harm: float = 1.0
) -> tuple[list[Refusal], Config]:
    """Return the refusals of a run in the order of their decision, and its config document.

    The harm of abuse is multiplied by `harm`, so that more of it is blocked.
    """
    start = simulate.starting_config(scenario)
    config = msgspec.structs.replace(
        start,
        version=version,
        # without the budgets that spare most of them
        tiers=[
            msgspec.structs.replace(t, harm=t.harm * harm, error_budget=None) for t in start.tiers
        ],
        sampling=Sampling(admit=0, refuse=1, block=1, enterprise_refuse=1, budget_per_s=1e6),
        model=ModelRef(name="risk", version=1, digest=model.digest),
    )
    made = _Recorded(scenario, config, model)
    made.run()
    # what the engine decided before the run, to remember its apps, was nobody's request
    events = [e for e in made.engine.take_events() if e.id in made.answered]
    return [Refusal(e, made.answered[e.id]) for e in events], config
