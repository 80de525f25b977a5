"""The Envoy in front of the console: half-sent requests, busy pages, who the client is, and what
happens while workers restart. A small application stands in the console's place.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from console.local import programs
from tests.console import front as fronts
from tests.console.front import Front

pytestmark = pytest.mark.parts
STUB = "tests.console.front_app:application"
HALF_HEAD = "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: "
HALF_BODY = "POST /disputes HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\nhalf"
SLOW = 200


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with fronts.running(tmp_path_factory.mktemp("front"), app=STUB) as it:
        yield it


def said(front: Front, path: str = "/", **more: str) -> dict[str, object]:
    status, body = front.ask(path, **more)
    assert status == 200, body
    return dict(json.loads(body))


@pytest.mark.parametrize("half", [HALF_HEAD, HALF_BODY, ""])
def test_slow_clients_take_no_worker(front: Front, half: str) -> None:
    lines = [front.send(half) for _ in range(SLOW)]
    try:
        for path in ("/", "/switches", "/login", "/lookup.csv"):
            assert front.ask(path, within_s=5)[0] == 200
    finally:
        for line in lines:
            line.close()


def test_a_half_sent_head_is_cut(front: Front) -> None:
    with front.send(HALF_HEAD) as line:
        line.settimeout(30)
        assert line.recv(100).startswith(b"HTTP/1.1 408 ")


def test_who_does_not_read_an_answer_takes_no_worker(front: Front) -> None:
    lines = []
    for _ in range(64):
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", front.port))
        line.sendall(b"GET /?stream=1 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        lines.append(line)
    try:
        assert front.ask("/", within_s=10)[0] == 200
    finally:
        for line in lines:
            line.close()


def test_a_page_that_holds_a_whole_worker_leaves_the_other_pages_and_the_switches(
    front: Front,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(front.ask, "/?hold=5", within_s=60)
        time.sleep(1)
        for path in ("/switches", "/", "/switches/all_ml/engage", "/"):
            assert front.ask(path, within_s=30)[0] == 200
        assert not held.done()
        assert held.result() == (200, "held")


def test_pages_that_take_every_thread_leave_the_switches(front: Front) -> None:
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(front.ask, "/?wait=3", within_s=60) for _ in range(40)]
        time.sleep(0.5)
        assert said(front, "/switches")["process"] != said(front, "/lookup.csv")["process"]
        assert front.ask("/switches", within_s=5)[0] == 200
        assert not all(one.done() for one in waiting)
        assert {one.result()[0] for one in waiting} == {200}


def test_exports_leave_threads_to_the_pages(front: Front) -> None:
    with ThreadPoolExecutor(12) as pool:
        exports = [pool.submit(front.ask, "/lookup.csv?wait=2", within_s=60) for _ in range(12)]
        time.sleep(0.5)
        assert front.ask("/", within_s=2)[0] == 200
        # four at once, and the others after them
        assert {one.result()[0] for one in exports} == {200}


def test_guesses_of_passwords_leave_threads_to_the_switches(front: Front) -> None:
    with ThreadPoolExecutor(20) as pool:
        guesses = [
            pool.submit(front.ask, "/login?wait=0.5", method="POST", within_s=60) for _ in range(20)
        ]
        time.sleep(0.2)
        assert front.ask("/switches", within_s=2)[0] == 200
        assert {one.result()[0] for one in guesses} == {200}


def test_an_export_that_streams_for_long_is_not_cut(front: Front) -> None:
    status, body = front.ask("/lookup.csv?stream=30&pause=0.7", within_s=60)
    assert (status, len(body)) == (200, 30 * 60_000)


def test_no_limit_holds_for_a_whole_answer() -> None:
    text = fronts.gateway.CONSOLE_EXAMPLE.read_text()
    routes = [line for line in text.splitlines() if "route: { cluster" in line]
    assert len(routes) >= 10
    assert all("timeout: 0s" in line for line in routes)


def test_a_body_that_is_too_large_is_refused_and_an_upload_of_the_largest_form_is_not(
    front: Front,
) -> None:
    assert front.ask("/disputes", method="POST", body="x" * 1_100_000)[0] == 413
    assert said(front, "/outcomes", method="POST", body="x" * 4_100_000)["bytes"] == 4_100_000
    assert front.ask("/outcomes", method="POST", body="x" * 6_100_000)[0] == 413


def test_the_client_is_who_connects_whatever_it_writes(front: Front) -> None:
    for name in ("x-forwarded-for", "x-sluice-client", "x_sluice_client", "x-real-ip", "forwarded"):
        heads = f"host: localhost\r\n{name}: 203.0.113.9\r\nconnection: close\r\n"
        with front.send(f"GET / HTTP/1.1\r\n{heads}\r\n") as line:
            text = b"".join(iter(lambda line=line: line.recv(4096), b"")).decode()
        assert json.loads(text[text.index("{") : text.rindex("}") + 1])["client"] == "127.0.0.1"


def test_a_client_cannot_say_that_it_came_over_https(front: Front) -> None:
    assert said(front, x_forwarded_proto="https")["scheme"] == "http"


def test_a_client_cannot_steer_the_envoy(front: Front) -> None:
    steering = {"x_envoy_upstream_rq_timeout_ms": "1", "x_envoy_retry_on": "5xx"}
    assert said(front, "/?wait=0.3", **steering)["bytes"] == 0


def test_behind_a_trusted_proxy_its_word_counts_and_no_word_before_it(tmp_path: Path) -> None:
    trusted = {"TRUSTED": "127.0.0.1"}
    with fronts.running(tmp_path, app=STUB, trusted_hops=1, environment=trusted) as front:
        told = said(front, x_forwarded_for="6.6.6.6, 203.0.113.9", x_forwarded_proto="https")
        assert (told["client"], told["scheme"]) == ("203.0.113.9", "https")
        forged = said(front, x_forwarded_for="203.0.113.9", x_sluice_client="7.7.7.7")
        assert forged["client"] == "203.0.113.9"
        assert said(front, x_forwarded_for="2001:DB8:0::9")["client"] == "2001:db8::9"


def test_whoever_connects_past_the_trusted_proxies_is_not_believed(tmp_path: Path) -> None:
    elsewhere = {"TRUSTED": "192.0.2.7"}
    with fronts.running(tmp_path, app=STUB, trusted_hops=1, environment=elsewhere) as front:
        told = said(front, x_forwarded_for="192.0.2.7, 203.0.113.9", x_forwarded_proto="https")
        assert (told["client"], told["scheme"]) == ("127.0.0.1", "http")


def test_only_this_user_may_open_the_sockets(front: Front) -> None:
    for path in programs.console_sockets(front.var).values():
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) & 0o077 == 0


def test_a_worker_that_ends_finishes_its_requests_and_new_ones_wait_for_its_successor(
    tmp_path: Path,
) -> None:
    with fronts.running(tmp_path, app=STUB) as front, ThreadPoolExecutor(4) as pool:
        under_way = pool.submit(front.ask, "/?wait=2", within_s=60)
        time.sleep(0.5)
        program = fronts.of_console(front.var, front.port)["console"]
        ended = threading.Thread(target=front.stop, args=("console",))
        ended.start()
        time.sleep(0.3)
        # its process is still there for those that work on the switches
        assert front.ask("/switches", within_s=5)[0] == 200
        ended.join()
        assert under_way.result()[0] == 200
        meanwhile = pool.submit(front.ask, "/", within_s=60)
        front.start(program)
        assert meanwhile.result()[0] == 200


def test_without_the_process_of_the_switches_the_other_one_serves_them(tmp_path: Path) -> None:
    with fronts.running(tmp_path, app=STUB) as front:
        pages = said(front)["process"]
        front.stop("console-switches")
        assert said(front, "/switches")["process"] == pages
        assert said(front, "/login")["process"] == pages


def test_without_any_worker_the_answer_is_a_sentence(tmp_path: Path) -> None:
    with fronts.running(tmp_path, app=STUB) as front:
        for name in ("console", "console-switches"):
            front.stop(name)
        status, body = front.ask("/switches")
        assert status == 503
        assert "manage.py switch" in body


def test_more_connections_than_the_process_may_have_open_are_refused_and_it_lives(
    front: Front,
) -> None:
    limit = re.search(
        r"max_active_downstream_connections: (\d+)", fronts.gateway.CONSOLE_EXAMPLE.read_text()
    )
    assert limit is not None
    lines: list[socket.socket] = []
    try:
        for _ in range(int(limit[1]) + 100):
            lines.append(front.send(""))
    finally:
        for line in lines:
            line.close()
    fronts.wait_until(lambda: fronts.answers(front, "/"), front, 20.0)


def test_the_front_is_no_part_of_the_gateway() -> None:
    """Another process with another configuration: a flood of one does not reach the other."""
    by_name = fronts.of_console(Path("/var"), 1)
    assert str(programs.console_config_path(Path("/var"))) in by_name["console-front"].command
    assert {"console", "console-switches", "console-front"} == set(by_name)


def test_one_that_is_killed_is_replaced_by_gunicorn(front: Front) -> None:
    worker = said(front)["worker"]
    subprocess.run(["kill", "-9", str(worker)], check=True)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if said(front)["worker"] != worker and said(front)["worker"] != worker:
                return
        except (OSError, http.client.HTTPException, AssertionError):
            continue
    raise AssertionError(front.log())
