"""Whether Retry-After is true: of clients that send nothing until it has passed and then repeat the
request, how many are admitted. It is measured live through Envoy under load, and in a simulation
for waits that are longer than a live run.
"""

from __future__ import annotations


def measure() -> list[dict[str, object]]:
    """Measure the model that ships, live and simulated, and return the rows."""
    # imported here, because the services' process needs neither
    from bench.waiting_clients import live, simulated
    from learning.training import shipped

    model = shipped.read()
    return [*live.measure(model), *simulated.measure(model)]
