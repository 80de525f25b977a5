"""The example configuration on a real nginx, where one is installed, with deciders that answer as
told.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator

import pytest

from console.local import gateway as example
from console.local import servers
from tests.gateway import alike, running
from tests.gateway.alike import (  # noqa: F401 - run here, on this gateway
    test_a_refusal_reaches_the_client_with_its_true_status_and_fields,
    test_an_admitted_request_reaches_its_service_and_its_answer_carries_the_fields,
    test_an_app_always_meets_the_same_decider,
    test_an_encoded_slash_is_refused_because_each_server_reads_it_differently,
    test_the_decider_is_told_the_clients_address_and_a_client_cannot_forge_it,
    test_the_decider_is_told_the_service_that_is_called_and_a_client_cannot_forge_it,
)
from tests.gateway.running import HERE, NAMES, Gateway, stub, until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = [
    pytest.mark.parts,
    pytest.mark.in_order,  # the last test kills the deciders
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("nginx")
    it = Gateway({name: servers.free_port() for name in NAMES}, folder / "unused.json")
    text = (example.EXAMPLE.parent / "nginx.conf").read_text().replace("15ms", "500ms")
    for name, shipped in {"d01": 9101, "d02": 9102, "services": 9200, "gateway": 8090}.items():
        text = re.sub(rf"127\.0\.0\.1:{shipped}\b", f"127.0.0.1:{it.ports[name]}", text)
    config = folder / "nginx.conf"
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"pid {folder}/pid;\nerror_log stderr;\ndaemon off;\n"
    config.write_text(head + text.replace("http {", "http {\n    access_log off;\n" + temporary, 1))
    try:
        it.start(
            "services", [sys.executable, str(HERE / "stub_service.py"), str(it.ports["services"])]
        )
        for node in ("d01", "d02"):
            it.start(node, stub(node, it.ports[node]))
        it.start("nginx", [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(config)])
        until(lambda: not servers.is_free(it.ports["gateway"]), "nginx")
        until(lambda: running.both_asked(it), "both deciders")
        yield it
    finally:
        it.stop()


def test_a_client_cannot_choose_how_the_decider_answers(gateway: Gateway) -> None:
    assert gateway.get("shed", x_sluice_answer="plain").status == 503


def test_an_answer_with_a_decider_behind_it_is_not_marked(gateway: Gateway) -> None:
    assert "sluice-unasked" not in gateway.get("good").headers


def test_no_request_goes_unasked_when_a_decider_dies(gateway: Gateway) -> None:
    alike.kill_one_of_two(gateway)


def test_with_no_decider_left_nginx_limits_by_itself(gateway: Gateway) -> None:
    gateway.kill("d02")
    answers = [gateway.get("hungry") for _ in range(80)]
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses[:10] == [200] * 10
    assert {answer.headers.get("sluice-unasked") for answer in answers} == {"true"}
