"""Services that call each other: what honest apps suffer when the last one slows down, with and
without its costs in the config document.

The peer is the same decider with a document that says of each endpoint only what it costs its own
service.
"""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from decider.contracts.config import Config, EndpointPolicy, Service
from decider.scoring.model import Model
from learning.evaluation.arms import SLUICE, EvaluationArm
from learning.evaluation.match import Match, TierCounts
from learning.traffic import referee, services
from learning.traffic.simulate import Scenario
from learning.training import shipped

# Seeds of the worlds, neither the referee's nor those of training.
SEEDS = (30_003, 30_014, 30_025)
# What the ledger and auth can still do for a minute, as a share of their capacity.
LEDGER, AUTH, LASTS_S = 0.2, 0.4, 60.0
# More of the usual traffic goes to charges and entries than the chain could serve if each of them
# came at the peak; this leaves the chain the usual room while nothing is slow.
RATE_SHARE = 1.0


def measure() -> list[dict[str, object]]:
    """Return the rows: honest first tries admitted and not served, and those refused."""
    model = Model.load(shipped.read())
    told, blind = (_play(model, knows=knows) for knows in (True, False))
    return [
        _row("admitted and not served", told.honest_failed, blind.honest_failed, told, blind),
        _row("refused", told.honest_refused, blind.honest_refused, told, blind),
    ]


def _row(
    what: str, count: int, peer_count: int, told: TierCounts, blind: TierCounts
) -> dict[str, object]:
    share, peer_share = count / told.honest, peer_count / blind.honest
    return {
        "name": f"fleet: chain of services, honest first tries {what}",
        "figure": round(share, 4),
        "unit": "",
        "peer": "the same without costs at several services",
        "peer_figure": round(peer_share, 4),
        "ratio": round(share / peer_share, 3) if peer_share else None,
        "target": None,
        "met": None,
        "conditions": f"{len(SEEDS)} worlds of 120 s; a charge calls the ledger twice and auth, an"
        f" entry calls auth; for {LASTS_S:.0f} s the ledger can do {LEDGER} and auth {AUTH} of its"
        " capacity; the model of a first start",
    }


def scenario(seed: int) -> Scenario:
    """Return a world in which services that call each other fall together."""
    world = referee.USUAL.scenario(seed)
    slow = (("ledger-write", LEDGER), ("auth", AUTH))
    begins = referee.DISTURBED_FROM_S
    return replace(
        world,
        rate=RATE_SHARE * world.rate,
        calls=services.CHAIN,
        slowdowns=tuple(
            services.Slowdown(name, begins, referee.ONCE_S, LASTS_S, factor)
            for name, factor in slow
        ),
    )


def document(config: Config) -> Config:
    """Return the document with the costs of the chain."""
    return structs.replace(config, services=[_told(service) for service in config.services])


def _told(service: Service) -> Service:
    def costs(endpoint: EndpointPolicy) -> EndpointPolicy:
        further = services.CHAIN.get(f"{endpoint.method} {endpoint.template}")
        return structs.replace(endpoint, costs=dict(further)) if further else endpoint

    return structs.replace(service, endpoints=[costs(e) for e in service.endpoints])


class _Told(EvaluationArm):
    __slots__ = ()

    def config(self, scenario: Scenario) -> Config:
        """Return Sluice's document with the costs of the chain."""
        return document(super().config(scenario))


def _play(model: Model, *, knows: bool) -> TierCounts:
    arm = (_Told if knows else EvaluationArm)(SLUICE.name, SLUICE.says, model=True)
    found: list[TierCounts] = []
    for seed in SEEDS:
        match = Match(arm, scenario(seed), model)
        match.run()
        found += match.tiers()
    columns = TierCounts.__slots__
    return TierCounts(*(sum(getattr(each, name) for each in found) for name in columns))
