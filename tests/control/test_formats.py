"""A change that not every decider can read is refused before it is made, with field and decider."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import redis

from control.audit.actors import SYSTEM
from control.config import changes
from control.deciders import keys as signing
from control.deciders.valkey import client
from control.errors import Refused
from control.models import ConfigVersion
from control.switches import switches
from decider.contracts import config as document
from decider.contracts import defaults, store
from decider.contracts.config import Config, ModelRef
from tests.control.conftest import beat, status

pytestmark = pytest.mark.usefixtures("as_before", "first")
HERE = Path(__file__).resolve().parents[2]
NEW = ModelRef("risk", 1, "ab" * 32, "0123456789abcdef")
WHY = "A model of another schema"


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document of an installation of before: nothing in it needs a newer format."""
    tiers = [
        msgspec.structs.replace(tier, headroom_to="all", error_budget=None)
        for tier in defaults.TIERS
    ]
    monkeypatch.setattr(defaults, "TIERS", tiers)


def make_live(ref: ModelRef) -> ConfigVersion:
    def edit(config: Config) -> Config:
        return msgspec.structs.replace(config, model=ref)

    return changes.make_version(
        by=SYSTEM, reason=WHY, action="model.make_live", subject="risk", summary="", edit=edit
    )


def test_a_change_that_an_old_decider_cannot_read_is_refused_and_names_it(
    valkey: redis.Redis,
) -> None:
    beat(valkey, status("d01", config_format=2))
    beat(valkey, status("d02", config_format=1))
    before = changes.current()
    with pytest.raises(Refused) as refused:
        make_live(NEW)
    assert str(refused.value) == (
        "Not every decider can read this change: `model.feature_schema` needs config format 2."
        " Upgrade these first: d02 (reads up to format 1)."
    )
    assert changes.current() == before
    valkey.delete(store.NODE_PREFIX + "d02")  # it has ended
    assert make_live(NEW).version == before.version + 1


def test_a_change_without_new_fields_asks_nobody(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat(valkey, status("d01", config_format=1))
    monkeypatch.setattr(client(), "zrangebyscore", None)
    assert make_live(ModelRef("risk", 1, "ab" * 32)).version == 2


def test_a_kill_switch_goes_out_where_an_old_decider_cannot_read_the_document_anyway(
    valkey: redis.Redis,
) -> None:
    make_live(NEW)
    beat(valkey, status("d02", config_format=1))
    switches.engage("all_ml", by=SYSTEM, reason=WHY, until=None)
    assert document.engaged(changes.current(), document.ALL_ML, time.time())


def test_with_the_store_away_a_change_that_needs_a_new_format_is_refused(settings) -> None:
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(Refused, match=r"`model.feature_schema` needs .* format 2, and Valkey"):
        make_live(NEW)
    assert make_live(ModelRef("risk", 1, "ab" * 32)).version == 2


@pytest.mark.parts
def test_a_decider_of_the_version_before_follows_what_it_can_read(
    valkey: redis.Redis,
    keys: Path,
    tmp_path: Path,
    django_capture_on_commit_callbacks: Callable[..., object],
) -> None:
    code = {"old": code_before_formats(tmp_path / "code"), "new": HERE}
    carry_on_from(code["old"])
    running = [start(code[node], node, keys, tmp_path) for node in code]
    try:
        with django_capture_on_commit_callbacks(execute=True):
            switches.engage("all_ml", by=SYSTEM, reason=WHY, until=None)
        follow = {"old": 3, "new": 3}
        wait_until(lambda: versions(valkey) == follow, running)
        with pytest.raises(Refused, match=r"`model.feature_schema` .*: old \(reads up to format 1"):
            make_live(NEW)
        assert versions(valkey) == follow

        # what the refusal saved it from
        newer = msgspec.structs.replace(changes.current(), version=4, model=NEW)
        valkey.set(store.CONFIG_KEY, document.sign(newer, signing.load_signing_key(keys)))
        wait_until(lambda: versions(valkey) == {"old": 3, "new": 4}, running)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(15)


def carry_on_from(code: Path) -> None:
    """Make the document of an installation that began with that code: its schema stays."""
    told = "from decider.contracts.features import SCHEMA; print(SCHEMA)"
    schema = subprocess.run(
        [sys.executable, "-c", told], cwd=code, capture_output=True, check=True, text=True
    ).stdout.strip()

    def edit(config: Config) -> Config:
        return msgspec.structs.replace(config, feature_schema=schema)

    changes.make_version(
        by=SYSTEM, reason=WHY, action="model.make_live", subject="risk", summary="", edit=edit
    )


def code_before_formats(folder: Path) -> Path:
    """The deciders' code of the last commit before documents had formats, unpacked."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(
            ["git", "-C", str(HERE), *arguments], capture_output=True, check=True
        ).stdout

    try:
        searched = (
            "--reverse",
            "--format=%H",
            "-SFORMAT: Final",
            "--",
            "decider/contracts/config.py",
        )
        first = git("log", *searched).decode().split()[0]
        archive = git("archive", f"{first}^", "decider")
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip("no git history here that holds the version before config formats")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def start(code: Path, node: str, keys: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "decider", "--node", node]
    # the older one knows no other
    command += ["--listen", "127.0.0.1:0"] if node == "old" else []
    command += ["--data", str(folder / node), "--models", str(folder / "models")]
    command += ["--keys", str(keys), "--valkey", os.environ["VALKEY_URL"]]
    return subprocess.Popen(command, cwd=code, stdout=subprocess.DEVNULL)


def versions(valkey: redis.Redis) -> dict[str, int]:
    """The config version that each decider runs, by its heartbeat."""
    found = {node: valkey.get(store.NODE_PREFIX + node) for node in ("old", "new")}
    return {
        node: msgspec.msgpack.decode(data, type=store.NodeStatus).config_version
        for node, data in found.items()
        if data
    }


def wait_until(true: Callable[[], bool], running: list[subprocess.Popen[bytes]]) -> None:
    give_up = time.monotonic() + 300  # the old code is compiled first
    while not true():
        assert all(process.poll() is None for process in running), "a decider ended"
        assert time.monotonic() < give_up
        time.sleep(0.1)
