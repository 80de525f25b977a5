"""Whether Retry-After is true: of clients that send nothing until it has passed and then repeat the
request, how many are admitted. Live through Envoy under load, and simulated for the waits that are
longer than a live run.
"""

from __future__ import annotations


def measure() -> list[dict[str, object]]:
    """Train a model as a first start does, then measure live and simulated."""
    # here: the services' process needs neither
    from bench.waiting_clients import live, simulated
    from learning.training import train

    trained = train.train()
    return [*live.measure(trained), *simulated.measure(trained.data)]
