"""What must survive what, with real processes: each part of a whole installation is killed, halted
or cut off during traffic, and afterwards every request and every decision is accounted for.

The rows are those of the table "What survives what" in the README.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from console.local.programs import DECIDERS
from tests.faults import installation, operator
from tests.faults.checks import changed, check_configs, play
from tests.faults.client import Fate
from tests.faults.installation import Installation
from tests.faults.rows import LONG, SHORT, UNKNOWN_TOKEN, Row
from tests.gateway.running import until

# one installation for all: each test leaves it whole
pytestmark = [pytest.mark.parts, pytest.mark.in_order]

# Requests that an app may send a day where a region is cut off. Chosen: so many are asked for in
# seconds, and a cut decider's own share is still some requests.
QUOTA = 1_000
# Refusals in a row after which a decider has nothing more to give, and the seconds between two.
# Chosen: together several times what a lease takes to arrive.
REFUSED, PAUSE_S = 20, 0.05
FORBIDDEN = 403


@pytest.fixture(scope="module")
def whole() -> Iterator[Installation]:
    with installation.running() as it:
        yield it


@pytest.mark.parametrize("row", SHORT, ids=str)
def test_during_a_short_fault_decisions_go_on_and_nothing_is_lost(
    whole: Installation, row: Row
) -> None:
    play(whole, row)


def test_a_change_made_while_valkey_is_away_reaches_every_decider_and_survives_a_crash(
    whole: Installation,
) -> None:
    """What an operator was told is done stays done, whichever server fails next."""
    halted = whole.halt("valkey")
    try:
        whole.do(operator.change())
        # told to be done, so it is on the disk
        whole.kill("postgres")
    finally:
        whole.go_on(halted)
    until(lambda: whole.api_status() == UNKNOWN_TOKEN, "the database", 30)
    version = int(whole.do(operator.NEWEST))
    for node in DECIDERS:
        until(lambda node=node: whole.version_of(node) == version, f"the change at {node}", 30)


def test_a_block_that_a_halted_agent_missed_holds_at_the_gateway_once_it_goes_on(
    whole: Installation,
) -> None:
    blocked, other = "blocked-app", "other-app"
    halted = whole.halt("gateway-agent")
    try:
        with changed(whole, operator.block(blocked)) as version:
            until(lambda: whole.version_of("d01") == version, "the block at a decider", 30)
            assert whole.client.ask(blocked).status == FORBIDDEN
            whole.go_on(halted)
            until(lambda: whole.version_of("gateway") == version, "the block at the gateway", 30)
            with unanswered(whole):
                until(lambda: whole.client.ask(other).fate is Fate.UNANSWERED, "no decider")
                found = whole.client.ask(blocked)
            assert (found.fate, found.status) == (Fate.UNANSWERED, FORBIDDEN)
    finally:
        whole.go_on(halted)
    check_configs(whole)
    until(lambda: whole.client.ask(blocked).fate is Fate.DECIDED, "decisions")


def test_a_region_that_is_cut_off_decides_by_its_share_and_never_beyond_the_quota(
    whole: Installation,
) -> None:
    # one of which no decider has heard
    app = f"quota-{whole.ports['gateway']}"
    with changed(whole, operator.set_quota(QUOTA)):
        check_configs(whole)
        whole.wires.cut("d02>valkey")
        try:
            until(lambda: whole.alone("d02"), "the silence", 30)
            apart = admitted(whole, app)
        finally:
            whole.wires.mend("d02>valkey")
        until(lambda: not whole.alone("d02"), "the other region", 30)
        together = admitted(whole, app)
        # the cut one goes on by the share that is its own, the other one by what it leased as well
        assert 0 < apart["d02"] < apart["d01"]
        assert QUOTA // 2 < (apart + together).total() <= QUOTA
    check_configs(whole)


def admitted(it: Installation, app: str) -> Counter[str]:
    """Ask each decider in turn whether a request of the app may pass, until each has refused
    REFUSED times in a row; return how many each let pass.
    """
    passed: Counter[str] = Counter()
    refused = dict.fromkeys(DECIDERS, 0)
    with ExitStack() as stack:
        lines = {node: stack.enter_context(closing(it.line_to(node))) for node in DECIDERS}
        while asked := [node for node in DECIDERS if refused[node] < REFUSED]:
            for node in asked:
                lines[node].request("GET", "/v1/check/v2/orders/1", headers={"x-sluice-app": app})
                response = lines[node].getresponse()
                response.read()
                passed[node] += response.status == 200
                refused[node] = 0 if response.status == 200 else refused[node] + 1
            assert passed.total() <= QUOTA
            # a lease that was asked for takes a while to arrive
            time.sleep(PAUSE_S if any(refused[node] for node in asked) else 0.0)
    return passed


@contextmanager
def unanswered(it: Installation) -> Iterator[None]:
    """Let no decider answer the gateway."""
    wires = it.wires.touching("envoy")
    it.wires.cut(*wires)
    try:
        yield
    finally:
        it.wires.mend(*wires)


@pytest.mark.long
@pytest.mark.parametrize("row", LONG, ids=str)
def test_during_a_long_fault_decisions_go_on_and_nothing_is_lost(
    whole: Installation, row: Row
) -> None:
    play(whole, row)
