"""A real decider whose model is far too slow: gateways get their answers all the same."""

from __future__ import annotations

import re
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from decider.contracts import artifact, defaults
from decider.contracts.config import ModelRef
from decider.contracts.vocabulary import MlState
from learning.training import shipped
from tests.conftest import write_keys
from tests.decider.http_client import parse
from tests.decider.test_process import World, until

pytestmark = [pytest.mark.parts, pytest.mark.in_order]

# The shipped program, with a model that takes 1 ms for each row: hundreds of times the usual.
SLOWED = """
import time
from decider.node import process
from decider.scoring.model import Model

plain = Model.score_into

def score_into(self, rows, index, count, out, workspace):
    plain(self, rows, index, count, out, workspace)
    end = time.perf_counter() + 0.001 * count
    while time.perf_counter() < end:
        pass

Model.score_into = score_into
raise SystemExit(process.main())
"""
# Connections that ask at once, and the seconds that their gateway waits: the model alone would need
# more. Longer than 15 ms, as a busy test machine halts the decider for longer.
COUNT, WAITS_S = 400, 0.2
# Times that they ask, at most, until one was late: the first ones find out how slow the model is.
ROUNDS = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("slow")
    write_keys(folder / "keys")
    made = World(folder, folder / "keys")
    data = shipped.read()
    digest = artifact.digest_of(data)
    (folder / "models").mkdir()
    (folder / "models" / digest).write_bytes(data)
    try:
        tiers = [msgspec.structs.replace(t, rank_from=0.0) for t in defaults.config().tiers]
        model = ModelRef("slow", 1, digest)
        made.publish(tiers=tiers, model=model, ml_time_limit_ms=1e6)
        made.start_decider(program=("-c", SLOWED), options=("--gateway-waits", str(WAITS_S)))
        until(lambda: (s := made.status()) is not None and s.model == digest, "the model")
        yield made
    finally:
        for name in list(made.servers):
            made.end(name, signal.SIGTERM)


def connected(world: World) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(world.sockets["d01"]))
    return line


def ask_at_once(world: World, count: int) -> list:
    """Return the answers to one check on each of `count` connections, sent before any is read."""
    lines = [connected(world) for _ in range(count)]
    for k, line in enumerate(lines):
        head = f"GET /v1/check/v2/orders/{k} HTTP/1.1\r\nHost: t\r\nx-sluice-app: app_{k % 50}\r\n"
        line.sendall(f"{head}\r\n".encode())
    answers = []
    for line in lines:
        assert select.select([line], [], [], 60.0)[0], "an answer"
        answers += parse(line.recv(65_536))
        line.close()
    return answers


def counter(world: World, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", world.get("/metrics")[2].decode(), re.MULTILINE)
    assert found is not None, name
    return int(found[1])


def seen(world: World) -> tuple[int, int, int]:
    """What the last heartbeat says: checks, late and undecided ones."""
    status = world.status() or pytest.fail("no heartbeat")
    timely = status.timely
    return status.decisions + timely.undecided, timely.late, timely.undecided


def test_more_checks_than_the_model_has_time_for_are_answered_counted_and_recorded(
    world: World,
) -> None:
    statuses, marked, asked = Counter(), 0, 0
    for _ in range(ROUNDS):
        answers = ask_at_once(world, COUNT)
        asked += COUNT
        statuses.update(answer.status for answer in answers)
        marked += sum(answer.headers.get("sluice-late") == "true" for answer in answers)
        if marked:
            break
    assert marked > 0 and statuses.total() == asked
    late = counter(world, "sluice_late_total")
    undecided = counter(world, "sluice_undecided_total")
    assert (marked, statuses[503]) == (late, undecided)
    # whoever got no decision left no record
    until(lambda: len(world.events()) == asked - undecided, "the records")
    kept = Counter(event.ml_state for event in world.events())
    assert kept[MlState.DECIDER_LATE] == late
    assert set(kept) <= {MlState.LIVE, MlState.DECIDER_LATE}
    until(lambda: seen(world) == (asked, late, undecided), "the heartbeat")


def test_a_decider_that_was_halted_does_not_decide_what_its_gateway_gave_up(world: World) -> None:
    checks, late, undecided = seen(world)
    decided = sum(world.status().by_action)  # type: ignore[union-attr]
    lines = [connected(world) for _ in range(20)]
    process = world.servers["decider"]
    process.send_signal(signal.SIGSTOP)
    try:
        for k, line in enumerate(lines):
            head = f"GET /v1/check/v2/orders/{k} HTTP/1.1\r\nHost: t\r\nx-sluice-app: halted"
            line.sendall(f"{head}\r\n\r\n".encode())
        # longer than the gateway waits, by the clock that the decider reads
        time.sleep(3 * WAITS_S)
    finally:
        process.send_signal(signal.SIGCONT)
    answers = []
    for line in lines:
        assert select.select([line], [], [], 60.0)[0], "an answer"
        answers += parse(line.recv(65_536))
        line.close()
    assert {answer.status for answer in answers} == {503}
    assert {answer.json["type"] for answer in answers} == {"urn:sluice:problem:not-in-time"}
    until(lambda: seen(world) == (checks + 20, late, undecided + 20), "the heartbeat")
    assert sum(world.status().by_action) == decided  # type: ignore[union-attr]
