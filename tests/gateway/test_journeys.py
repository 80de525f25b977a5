"""The journeys of real clients through real Envoy, nginx and Caddy, to real deciders, end alike."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.gateway import running
from tests.gateway.journeys import FED_BACK, JOURNEYS, ODD, World
from tests.gateway.real import with_deciders
from tests.gateway.running import Gateway

pytestmark = pytest.mark.parts

Start = Callable[[Path], AbstractContextManager[Gateway]]
STARTS: dict[str, Start] = {
    "envoy": running.envoy,
    **({"nginx": running.nginx} if running.NGINX else {}),
    **({"caddy": running.caddy} if running.CADDY else {}),
}
ADMITTED = (200, "sluice-decision", "ratelimit", "ratelimit-policy")
WAIT = ("sluice-decision", "ratelimit", "ratelimit-policy", "retry-after", "sluice-receipt")
EXPOSED = ["RateLimit", "RateLimit-Policy", "Retry-After", "Sluice-Decision", "Sluice-Receipt"]
EXPECTED: dict[str, object] = {
    "first_request": ADMITTED,
    "burst_used_up": ((429, *WAIT), "application/problem+json", 429),
    "waits_as_told": ADMITTED,
    "blocked_app": (403, "sluice-decision", "ratelimit", "ratelimit-policy", "sluice-receipt"),
    "shed_app": (503, *WAIT),
    "no_credential": (401, 401, 401),
    "outcomes_come_back": list(FED_BACK),
    "other_options": [ADMITTED] * 3,
    "pages_may_read": (
        (EXPOSED, None),
        ([*EXPOSED, "x-own"], None),
        (EXPOSED, "*"),
        ([""], None),
    ),
    "odd_headers": [200] * len(ODD),
    "request_ids": (True, False),
    "long_paths": [200, 200, 200, 414],
    "preflights": ((200, None, 200, set()), {429}, True),
    # The local limit holds; and preflights, which no decider decides, pass.
    "deciders_dead": (200, (429, "ratelimit", "ratelimit-policy", "retry-after"), 200),
}
# Caddy has no rate limit of its own: when no decider answers, it refuses all but the services that
# it is told to let through.
OF_CADDY = {"deciders_dead": (503, (503, "retry-after"), 200)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What became of each journey, by gateway; the text of the error of one that failed."""
    return {
        name: played(start, tmp_path_factory.mktemp(f"journeys-{name}"))
        for name, start in STARTS.items()
    }


def played(start: Start, folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    # Envoy verifies tokens by itself.
    reads = start is not running.envoy
    with with_deciders(folder, start(folder), reads_credentials=reads) as (gateway, client):
        for journey in JOURNEYS:
            try:
                found[journey.__name__] = journey(World(gateway, client))
            except Exception:  # noqa: BLE001 - the journeys after it are told all the same
                found[journey.__name__] = traceback.format_exc()
    return found


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("journey", [journey.__name__ for journey in JOURNEYS])
def test_a_journey_ends_alike_at_each_gateway(
    tables: dict[str, dict[str, object]], journey: str, name: str
) -> None:
    expected = EXPECTED[journey]
    if name == "caddy":
        expected = OF_CADDY.get(journey, expected)
    assert tables[name][journey] == expected
