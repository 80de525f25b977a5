"""Real Envoy, real deciders, real feedback: what a client gets, what comes back, and what survives
a killed decider.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import config, defaults, ids, store
from decider.contracts.config import ListEntry
from decider.contracts.requests import Outcome
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal import receipt
from learning.logs import playback
from tests.conftest import write_keys
from tests.gateway import running
from tests.gateway.running import Gateway, until
from tests.learning.logs import KEY, combined
from tests.servers import PATIENT

# in order: one of them kills a decider
pytestmark = [pytest.mark.parts, pytest.mark.in_order]
BLOCKED = "app-blocked"
START_S = 180.0
EJECTIONS = "outlier_detection.ejections_enforced_total"
"""A decider whose code is not compiled yet needs a while."""


class Whole(NamedTuple):
    gateway: Gateway
    client: redis.Redis
    keys: dict[bytes, receipt.Key]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    write_keys(folder / "keys")
    client = redis.Redis.from_url(os.environ["VALKEY_URL"])
    client.flushdb()
    publish(client, folder / "keys")
    with running.envoy(folder, trusted_hops=1) as gateway:
        for node in ("d01", "d02"):
            gateway.start(node, decider(folder, node, gateway.ports[node]))
        log = ["--log", str(gateway.log), "--valkey", os.environ["VALKEY_URL"]]
        gateway.start("feedback", [sys.executable, "-m", "decider.node.feedback", *log])
        until(lambda: decided_by_both(gateway), "both deciders", START_S)
        token_key = bytes.fromhex((folder / "keys" / "token.key").read_text())
        yield Whole(gateway, client, receipt.keys_of([token_key]))
    client.close()


def publish(client: redis.Redis, keys: Path) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((keys / "config.key").read_text()))
    document = msgspec.structs.replace(
        defaults.config(),
        issued_at=time.time(),
        lists=[
            ListEntry(verdict="block", kind="app", subject=BLOCKED),
            ListEntry(verdict="block", kind="source", subject="203.0.113.0/24", network=True),
        ],
    )
    client.set(store.CONFIG_KEY, config.sign(document, key))


def decider(folder: Path, node: str, port: int) -> list[str]:
    where = [
        "--node",
        node,
        "--listen",
        f"127.0.0.1:{port}",
        "--data",
        str(folder / node),
        "--models",
        str(folder / "models"),
    ]
    shared = [
        "--keys",
        str(folder / "keys"),
        "--valkey",
        os.environ["VALKEY_URL"],
        "--capacity",
        "20000",
        *PATIENT,
    ]
    return [sys.executable, "-m", "decider", *where, *shared]


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
