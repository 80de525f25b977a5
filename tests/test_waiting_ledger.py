"""How `make bench ONLY=waiting_clients` counts: who waited, what came of it, what was promised."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.waiting_clients import stack
from bench.waiting_clients.ledger import Answered, WaitingClients, by_reason, wilson
from bench.waiting_clients.live import broken_promises
from bench.waiting_clients.rows import trial_row
from decider.contracts.requests import CheckRequest
from learning.traffic.behaviour import PlannedRequest
from learning.traffic.client import GatewayAnswer

REFUSED, OK = Answered(429, "risk_high", 5, refused=True), Answered(200)


def planned(at: float = 0.0, app: int = 1, path: str = "/v2/orders/1") -> PlannedRequest:
    request = CheckRequest(f"app_{app}", "GET", path, "tok", request_id="req")
    return PlannedRequest(at, app, request, "", "orders-read", 0.5, False)


def refused(clients: WaitingClients) -> PlannedRequest:
    """Let app 1 send a request at 0 that is refused for 5 seconds."""
    first = planned()
    assert clients.may_send(first, 0.0)
    clients.read(first, REFUSED, 0.0)
    return first


def test_a_refused_client_sends_nothing_until_its_wait_has_passed() -> None:
    clients = WaitingClients([1])
    refused(clients)
    assert not clients.may_send(planned(2.0, path="/v2/orders/2"), 2.0)
    assert clients.due(4.99) == []
    (again,) = clients.due(5.0)
    assert (again.request.method, again.request.path, again.request.token) == (
        "GET",
        "/v2/orders/1",
        "tok",
    )
    assert not clients.may_send(planned(5.0), 5.0)
    assert clients.due(60.0) == []


def test_a_repeat_counts_by_what_was_refused_at_first() -> None:
    clients = WaitingClients([1])
    refused(clients)
    (again,) = clients.due(5.0)
    clients.read(again, Answered(503, "service_overloaded", 2, refused=True), 5.1)
    (third,) = clients.due(7.2)
    clients.read(third, OK, 7.3)
    first, second = clients.trials
    assert (first.admitted, first.earlier, first.in_row) == (False, 0, 0)
    assert (second.admitted, second.earlier, second.in_row) == (True, 1, 1)
    assert by_reason(clients.trials) == {
        "429 risk_high": (0, 1),
        "503 service_overloaded": (1, 1),
    }


def test_a_client_that_does_not_wait_is_not_counted() -> None:
    clients = WaitingClients([1])
    refused(clients)
    with pytest.raises(ValueError, match="sent another request"):
        clients.read(planned(1.0), OK, 1.0)
    assert clients.trials == []
    assert 2 not in clients


def test_one_request_is_under_way_at_a_time_and_the_others_follow() -> None:
    clients, first, second = WaitingClients([1]), planned(), planned(0.1, path="/v2/orders/2")
    assert clients.may_send(first, 0.0)
    assert not clients.may_send(second, 0.1)
    clients.read(first, OK, 0.2)
    assert clients.due(0.2) == [second]
    assert clients.may_send(second, 0.2)


def test_a_wait_that_outlasts_the_run_is_told_apart() -> None:
    clients = WaitingClients([1, 2])
    refused(clients)
    assert [trial.refusal for trial in clients.not_tried()] == [REFUSED]
    assert clients.trials == []


def test_a_repeat_that_no_decider_decided_is_not_a_trial() -> None:
    clients = WaitingClients([1])
    refused(clients)
    clients.read(clients.due(5.0)[0], Answered(200, decided=False), 5.1)
    assert [trial.tried for trial in clients.trials] == [False]


def test_an_answer_of_the_service_is_an_admit_and_another_refusal_is_none() -> None:
    clients = WaitingClients([1])
    for answer in (Answered(503), Answered(403, "blocked", refused=True)):
        refused(clients)
        clients.read(clients.due(5.0)[0], answer, 5.1)
    assert [trial.admitted for trial in clients.trials] == [True, False]


def test_too_few_trials_do_not_meet_the_target() -> None:
    clients = WaitingClients([1])
    refused(clients)
    clients.read(clients.due(5.0)[0], OK, 5.1)
    assert trial_row("x", clients.trials, "", judged=True)["met"] is False


def test_the_interval_is_wilsons() -> None:
    assert wilson(469, 478) == pytest.approx((0.9646, 0.9901), abs=2e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(500, 500)[1] == 1.0


def refusal(**changes: str) -> GatewayAnswer:
    fields = {
        "retry-after": "5",
        "ratelimit": '"retry";r=0;t=5, "burst";r=50;t=0',
        "sluice-receipt": "abc",
        **changes,
    }
    body = {"retry_after": 5, "receipt": "abc"}
    return GatewayAnswer(429, 5.0, "dec_1", fields, json.dumps(body).encode())


def test_a_refusal_that_keeps_its_promises_breaks_none() -> None:
    assert broken_promises(refusal()) == []
    assert broken_promises(refusal(ratelimit='"retry";r=0;t=3')) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ratelimit": '"burst";r=50;t=0'}, "no used-up policy"),
        ({"ratelimit": '"retry";r=0;t=6'}, "no used-up policy"),
        ({"ratelimit": "nonsense"}, "no used-up policy"),
        ({"retry-after": "soon"}, "no Retry-After"),
        ({"retry-after": "0"}, "no Retry-After"),
        ({"sluice-receipt": "other"}, "no receipt in the body"),
        ({"sluice-receipt": ""}, "no receipt in the body"),
    ],
)
def test_a_broken_promise_is_found(changes: dict[str, str], found: str) -> None:
    assert found in broken_promises(refusal(**changes))


def test_a_body_that_says_another_wait_or_no_receipt_is_found() -> None:
    answer = refusal()
    other = GatewayAnswer(503, 5.0, "dec_1", answer.fields, b'{"retry_after": 6}')
    assert broken_promises(other) == ["no receipt in the body", "another wait in the body"]
    assert broken_promises(GatewayAnswer(503, 5.0, "d", answer.fields, b"<")) == ["no JSON body"]


# -- the processes


def test_the_parts_start_where_the_decider_is_found(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import decider"]
    with stack._process("a part", command, tmp_path) as process:
        assert process.wait(60) == 0


def test_a_part_that_ends_at_its_start_says_why_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such table')"]
    with (
        pytest.raises(RuntimeError, match=r"^a part ended at its start, with status 1\n") as raised,
        stack._process("a part", command, tmp_path) as process,
    ):
        stack._wait_until(lambda: False, "a part", 60.0, process)
    assert raised.value.__notes__ == ["a part said: no such table\n"]
