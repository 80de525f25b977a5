"""The example configuration on a real Envoy, with deciders that answer as told."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from console.local.gateway import EXAMPLE
from tests.gateway import running
from tests.gateway.alike import (  # noqa: F401 - run here, on this gateway
    test_an_answer_that_the_model_had_no_time_for_says_so_and_no_client_can,
    test_an_encoded_slash_is_refused_because_each_server_reads_it_differently,
    test_the_decider_is_told_the_clients_address_and_a_client_cannot_forge_it,
    test_the_decider_is_told_the_service_that_is_called_and_a_client_cannot_forge_it,
)
from tests.gateway.running import Gateway, stub, until

# in order: one of them kills the deciders
pytestmark = [pytest.mark.parts, pytest.mark.in_order]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with with_stubs(tmp_path_factory.mktemp("gateway")) as it:
        yield it


@pytest.fixture(scope="module")
def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with with_stubs(tmp_path_factory.mktemp("behind"), trusted_hops=1) as it:
        yield it


@contextmanager
def with_stubs(
    folder: Path,
    *,
    patience: str = "0.5s",
    trusted_hops: int = 0,
    adapt: Callable[[str], str] = str,
) -> Iterator[Gateway]:
    """Envoy and two deciders that answer as told, once requests meet both."""
    options = {"patience": patience, "trusted_hops": trusted_hops, "adapt": adapt}
    with running.with_stubs(running.envoy(folder, **options)) as gateway:
        yield gateway


def home(gateway: Gateway, app: str) -> str | None:
    """The decider that answered for `app`; None when no one was asked."""
    told = gateway.get(app).headers.get("ratelimit")
    return told.rpartition(";")[2] if told else None


@pytest.mark.parametrize(
    ("app", "status"), [("defer", 429), ("shed", 503), ("block", 403), ("malformed", 400)]
)
def test_a_refusal_reaches_the_client_with_its_true_status_and_fields(
    gateway: Gateway, app: str, status: int
) -> None:
    answer = gateway.get(app)
    assert answer.status == status
    assert answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["sluice-receipt"] == "AQAB"
    assert answer.headers["sluice-decision"].startswith("dec_")
    assert "ratelimit" in answer.headers
    assert "sluice-status" not in answer.headers
    assert answer.headers.get("retry-after") == ("7" if status in {429, 503} else None)


def test_an_admitted_request_reaches_its_service_and_its_answer_carries_the_fields(
    gateway: Gateway,
) -> None:
    answer = gateway.get("good")
    assert answer.status == 200
    assert answer.headers["sluice-decision"].startswith("dec_")
    assert "ratelimit" in answer.headers
    assert "x-envoy-auth-failure-mode-allowed" not in answer.json()


def test_the_decider_is_told_the_path_the_size_and_the_client(gateway: Gateway) -> None:
    told = gateway.get(
        "defer",
        "/v2/orders/1?secret=2",
        method="POST",
        body=b"12345",
        x_request_id="r-1",
    ).json()
    seen = told["seen"]
    assert str(told["path"]).startswith("/v1/check/v2/orders/1")
    assert isinstance(seen, dict)
    assert (seen["x-sluice-bytes"], seen["authorization"], seen["x-request-id"]) == (
        "5",
        f"Bearer {gateway.signer.token('defer')}",
        "r-1",
    )
    assert seen["x-sluice-source"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 2001:DB8::9", "2001:db8::9"),
        ("", "127.0.0.1"),
        ("203.0.113.9, unknown", "127.0.0.1"),
    ],
)
def test_behind_a_trusted_proxy_its_word_counts_and_no_word_before(
    behind_a_proxy: Gateway, forwarded: str, source: str
) -> None:
    claims = {"x_forwarded_for": forwarded} if forwarded else {}
    answer = behind_a_proxy.get("good", x_sluice_source="6.6.6.6", **claims)
    assert answer.source == source


def test_a_gateway_may_remove_the_forwarded_list_and_loses_no_address(tmp_path: Path) -> None:
    def remove(text: str) -> str:
        mark = "- remove: x-sluice-source\n"
        indent = " " * (text.index(mark) - text.rindex("\n", 0, text.index(mark)) - 1)
        return text.replace(mark, f"{mark}{indent}- remove: x-forwarded-for\n")

    with with_stubs(tmp_path, adapt=remove) as gateway:
        answer = gateway.get("good", x_forwarded_for="203.0.113.9")
        assert answer.source == "127.0.0.1"


def test_a_client_cannot_speak_for_the_gateway(gateway: Gateway) -> None:
    claims = {
        "x_sluice_bytes": "99999",
        "x_sluice_answer": "plain",
        "x_envoy_auth_failure_mode_allowed": "true",
    }
    told = gateway.get("defer", **claims).json()["seen"]
    assert isinstance(told, dict)
    assert told.get("x-sluice-bytes", "0") == "0"
    assert told["x-sluice-answer"] == "nginx"
    answer = gateway.get("good", **claims)
    assert "x-envoy-auth-failure-mode-allowed" not in answer.json()


def test_an_app_always_meets_the_same_decider(gateway: Gateway) -> None:
    deciders = {
        app: {gateway.get(app).headers["ratelimit"] for _ in range(6)}
        for app in (f"app-{i}" for i in range(8))
    }
    assert all(len(met) == 1 for met in deciders.values())
    assert len(set.union(*deciders.values())) == 2


@pytest.mark.parametrize("app", ["slow", "broken"])
def test_a_late_or_failing_decider_does_not_stop_the_request(gateway: Gateway, app: str) -> None:
    begun = time.monotonic()
    answer = gateway.get(app)
    assert answer.status == 200
    assert answer.json()["x-envoy-auth-failure-mode-allowed"] == "true"
    assert time.monotonic() - begun < 1.5


def test_the_shipped_configuration_waits_15_milliseconds_for_a_decision() -> None:
    assert "cluster: check, timeout: 0.015s" in EXAMPLE.read_text()


def test_the_access_log_tells_what_became_of_a_request(gateway: Gateway) -> None:
    gateway.get("logged", "/v2/search?q=private", x_request_id="r-log-1")
    gateway.get("defer", "/v2/search", x_request_id="r-log-2")
    until(lambda: "r-log-2" in gateway.log.read_text(), "the lines")
    lines = {line["request_id"]: line for line in gateway.log_lines(2)}
    served, refused = lines["r-log-1"], lines["r-log-2"]
    assert (served["service"], served["status"], served["app"], served["path"]) == (
        "search",
        200,
        "logged",
        "/v2/search",
    )
    assert re.fullmatch(r"dec_0{32}", str(served["decision"]))
    assert (refused["status"], refused["flags"]) == (429, "UAEX")


def test_a_hung_deciders_apps_move_because_its_answers_come_late(
    tmp_path: Path,
) -> None:
    """A hung decider still accepts connections, so only late answers show it."""
    with with_stubs(tmp_path, patience="0.05s") as gateway:
        hung = gateway.processes["d01"]
        apps = [app for app in (f"app-{i}" for i in range(40)) if home(gateway, app) == "d01"]
        hung.send_signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(len(apps)) as clients:
                until(
                    lambda: "d02" in clients.map(lambda app: home(gateway, app), apps),
                    "the other decider's answer",
                )
            assert gateway.statistic("outlier_detection.ejections_enforced_total") > 0
        finally:
            hung.send_signal(signal.SIGCONT)


def test_a_killed_deciders_apps_are_asked_within_the_15_ms_of_the_shipped_configuration(
    tmp_path: Path,
) -> None:
    with with_stubs(tmp_path, patience="0.015s") as gateway:
        # many more than are needed: the ring's halves differ with the ports
        apps = [f"app-{i}" for i in range(120)]
        moving = [app for app in apps if home(gateway, app) == "d01"][:12]
        assert len(moving) == 12
        unasked = []
        for _ in range(5):
            gateway.kill("d01")
            found = [home(gateway, app) for app in moving]
            unasked.append(found.count(None))
            gateway.start("d01", stub(gateway, "d01"))
            until(lambda: home(gateway, moving[0]) == "d01", "the decider's return")
        # the three calmest rounds: a busy machine does not always give 15 ms
        assert sum(sorted(unasked)[:3]) <= 1


def test_killed_deciders_apps_move_and_with_none_left_the_gateways_own_limit_holds(
    tmp_path: Path,
) -> None:
    with with_stubs(tmp_path) as gateway:
        homes = {app: home(gateway, app) for app in (f"app-{i}" for i in range(8))}
        assert len(set(homes.values())) == 2

        gateway.kill("d01")
        unasked = [app for app in homes if "sluice-decision" not in gateway.get(app).headers]
        assert unasked == []
        assert {home(gateway, app) for app in homes} == {"d02"}

        gateway.kill("d02")
        begun = time.monotonic()
        answers = [gateway.get("hungry") for _ in range(80)]
        refused = [answer for answer in answers if answer.status == 429]
        assert 20 <= len(answers) - len(refused) <= 20 + 10 * (time.monotonic() - begun + 1)
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].headers["ratelimit"] == '"retry";r=0;t=1'
        assert refused[0].headers["ratelimit-policy"] == '"retry";q=1;w=1'
        assert refused[0].headers["content-type"] == "application/problem+json"
        assert gateway.get("modest").status == 200

        gateway.start("d02", stub(gateway, "d02"))
        until(lambda: "sluice-decision" in gateway.get("hungry").headers, "the decider's return")
