"""Real Envoy, real deciders, real feedback: what a client gets, what comes back, and what survives
a killed decider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import redis

from decider.contracts import ids, store
from decider.contracts.requests import Outcome
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal import receipt
from learning.logs import playback
from tests.gateway import running
from tests.gateway.real import BLOCKED, with_deciders
from tests.gateway.running import Gateway, until
from tests.learning.logs import KEY, combined

# in order: one of them kills a decider
pytestmark = [pytest.mark.parts, pytest.mark.in_order]
EJECTIONS = "outlier_detection.ejections_enforced_total"


class Whole(NamedTuple):
    gateway: Gateway
    client: redis.Redis
    keys: dict[bytes, receipt.Key]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with with_deciders(folder, running.envoy(folder, trusted_hops=1)) as (gateway, client):
        until(lambda: decided_by_both(gateway), "both deciders")
        token_key = bytes.fromhex((folder / "keys" / "token.key").read_text())
        yield Whole(gateway, client, receipt.keys_of([token_key]))


def decided_by_both(gateway: Gateway) -> bool:
    """Whether Envoy finds both deciders healthy."""
    lines = gateway.admin("/clusters").splitlines()
    return sum("deciders::" in line and "health_flags::healthy" in line for line in lines) == 2


def test_an_admitted_request_carries_its_decision_and_rate_limit_fields(whole: Whole) -> None:
    answer = whole.gateway.get("app-modest")
    assert answer.status == 200
    assert answer.headers["sluice-decision"].startswith("dec_")
    assert answer.headers["ratelimit"]
    assert answer.headers["ratelimit-policy"]


def test_an_app_beyond_its_plan_is_told_when_to_come_back(whole: Whole) -> None:
    answers = [whole.gateway.get("app-hungry") for _ in range(400)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert int(refused[-1].headers["retry-after"]) >= 1
    assert refused[-1].headers["content-type"] == "application/problem+json"
    told = refused[-1].json()
    assert told["status"] == 429
    assert told["decision"] == refused[-1].headers["sluice-decision"]
    assert [reason["code"] for reason in told["reasons"]] == ["PACE"]


def test_a_refusal_carries_a_receipt_that_opens_with_the_installations_key(whole: Whole) -> None:
    answers = [whole.gateway.get("app-greedy") for _ in range(400)]
    assert not any("sluice-receipt" in answer.headers for answer in answers if answer.status == 200)
    refused = next(answer for answer in reversed(answers) if answer.status == 429)
    text = refused.headers["sluice-receipt"]
    found = receipt.open_sealed(text, whole.keys)
    assert ids.format_decision_id(found.decision) == refused.headers["sluice-decision"]
    assert (found.action, found.stage, found.reason) == (
        Action.DEFER,
        Stage.FALLBACK,
        Reason.TOKENS_EMPTY,
    )
    assert found.retry_after == int(refused.headers["retry-after"])
    assert found.app == next(iter(whole.keys.values())).pseudonym("app-greedy")
    assert len(text) <= receipt.MAX_TEXT
    assert "app-greedy" not in text


def test_a_block_listed_app_gets_403_and_no_retry_after(whole: Whole) -> None:
    answer = whole.gateway.get(BLOCKED)
    assert answer.status == 403
    assert "retry-after" not in answer.headers
    assert answer.json()["status"] == 403


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("203.0.113.9", 403),
        ("198.51.100.7, ::FFFF:203.0.113.9", 403),
        ("203.0.113.9, 198.51.100.7", 200),
        ("198.51.100.7", 200),
    ],
)
def test_a_block_listed_network_is_met_and_no_client_writes_itself_in_or_out(
    whole: Whole, forwarded: str, status: int
) -> None:
    forged = {"x_sluice_source": "198.51.100.7" if status == 403 else "203.0.113.9"}
    answer = whole.gateway.get("app-modest", x_forwarded_for=forwarded, **forged)
    assert answer.status == status


def test_a_request_without_a_token_is_refused_whatever_it_claims(whole: Whole) -> None:
    assert whole.gateway.get(None).status == 401
    assert whole.gateway.get(None, x_sluice_app="app-modest").status == 401


def test_outcomes_of_served_requests_reach_the_stream_within_seconds(whole: Whole) -> None:
    whole.gateway.get("app-outcome", "/v2/search/fail", x_request_id="r-outcome")

    def told() -> list[Outcome]:
        entries = whole.client.xrevrange(store.OUTCOMES_STREAM, count=50)
        every = [
            one
            for _, fields in entries
            for one in msgspec.msgpack.decode(fields[b"b"], type=list[Outcome])
        ]
        return [one for one in every if one.request_id == "r-outcome"]

    until(lambda: bool(told()), "the outcome")
    one = told()[0]
    assert (one.app, one.service, one.named, one.status) == ("app-outcome", "search", "search", 500)

    def learned() -> list[store.NodeStatus]:
        beats = [whole.client.get(key) for key in whole.client.scan_iter(store.NODE_PREFIX + "*")]
        found = [msgspec.msgpack.decode(beat, type=store.NodeStatus) for beat in beats]
        assert all(status.outcomes == store.OutcomesStatus() for status in found)
        return [s for s in found if any(load.feedback_age_s < 60.0 for load in s.services)]

    # sealed by the program that sent them, and believed by all
    until(
        lambda: len(learned()) == len(list(whole.client.scan_iter(store.NODE_PREFIX + "*"))), "it"
    )


def test_a_log_is_played_through_the_gateway_and_its_busiest_client_is_slowed(
    whole: Whole, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    lines = [
        combined(k // 200, request=f"{'HEAD' if k % 50 == 0 else 'GET'} /v2/orders/{k} HTTP/1.1")
        for k in range(400)
    ]
    path.write_text("\n".join([*lines, combined(2, address="198.51.100.99")]))
    ejected = []
    # A machine that stands still for half a second fails all checks of that time, and then one
    # decider rests for a second as it should; such a stall does not come three times in a row.
    while len(ejected) < 3 and 0 not in ejected:
        before = whole.gateway.statistic(EJECTIONS)
        found = asyncio.run(
            playback.replay_through_gateway(
                [path],
                KEY,
                f"http://127.0.0.1:{whole.gateway.ports['gateway']}",
                1000.0,
                signer=whole.gateway.signer,
            )
        )
        ejected.append(whole.gateway.statistic(EJECTIONS) - before)
        assert found.requests == sum(found.answers.values()) == 401
        assert set(found.answers) <= {"200", "429"}
        assert found.answers["429"] > 0
        assert "the deciders' own sample" in playback.describe_summary(found)
    # connections of a burst that took longer than they may: no reason to drop a living decider
    assert 0 in ejected


def test_a_killed_deciders_apps_are_decided_by_the_other(whole: Whole) -> None:
    apps = [f"app-{i}" for i in range(12)]
    whole.gateway.kill("d01")
    answers = [whole.gateway.get(app) for app in apps]
    assert [answer.status for answer in answers] == [200] * 12
    assert sum("sluice-decision" in answer.headers for answer in answers) == 12
