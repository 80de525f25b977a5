"""What a gateway holds to while no decider answers, and the agent that writes it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import config as configs
from decider.contracts import defaults, store
from decider.contracts.config import Config, ListEntry, Override, Switch
from decider.gateway import agent as agents
from decider.gateway import envoy, nginx, rules
from decider.gateway.agent import Agent, Outlet
from decider.gateway.rules import Held, Level, held

NOW = 1_000.0
KEY = Ed25519PrivateKey.generate()
KEYS = {configs.key_id(KEY.public_key()): KEY.public_key()}


def document(version: int = 1, **changes: object) -> Config:
    return msgspec.structs.replace(defaults.config(version), **changes)


def entry(verdict: str, kind: str, subject: str, until: float | None = None) -> ListEntry:
    return ListEntry(verdict=verdict, kind=kind, subject=subject, until=until)  # type: ignore[arg-type]


def override(kind: str, subject: str, action: int | None, until: float = NOW + 1) -> Override:
    return Override(id=f"o-{subject}", kind=kind, subject=subject, until=until, action=action)  # type: ignore[arg-type]


def test_block_and_compliance_rules_of_each_kind_are_held() -> None:
    lists = [
        entry("block", "app", "a"),
        entry("compliance", "app", "b"),
        entry("block", "tenant", "t"),
        entry("block", "source", "192.0.2.1"),
        entry("compliance", "source", "2001:db8::/32"),
        entry("allow", "app", "c"),
    ]
    assert held(document(lists=lists), NOW).levels == (
        Level("app", {"a": True, "b": True}),
        Level("tenant", {"t": True}),
        Level("source", {"192.0.2.1/32": True, "2001:db8::/32": True}),
    )


def test_rules_end_by_themselves_and_odd_sources_find_nobody() -> None:
    lists = [
        entry("block", "app", "a", until=NOW),
        entry("block", "app", "b", until=NOW + 1),
        entry("block", "source", "192.0.2.*"),
    ]
    assert held(document(lists=lists), NOW).levels == (Level("app", {"b": True}),)
    assert held(document(lists=lists), NOW + 1) == Held()


def test_overrides_that_refuse_come_after_all_lists_and_those_of_apps_before_tenants() -> None:
    overrides = [
        override("app", "a", 4),
        override("app", "b", 0),
        override("app", "c", 4),
        override("app", "c", None),
        override("tenant", "t", 4),
        override("tenant", "u", 4, until=NOW),
    ]
    found = held(document(lists=[entry("allow", "app", "a")], overrides=overrides), NOW)
    assert found.levels == (
        Level("app", {"a": False}),
        Level("app", {"a": True, "b": False, "c": False}),
        Level("tenant", {"t": True}),
    )


def test_in_observe_only_mode_a_gateway_refuses_nobody_as_deciders_do() -> None:
    lists = [entry("block", "app", "a")]
    observing = document(lists=lists, switches=[Switch("observe_only", until=NOW + 1)])
    assert held(observing, NOW) == Held()
    assert held(observing, NOW + 1).subjects == 1
    assert held(None, NOW) == Held()


def test_beyond_the_bound_the_first_are_held_and_the_rest_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "MOST", 3)
    lists = [entry("block", "app", f"a{i}") for i in range(5)] + [entry("block", "tenant", "t")]
    found = held(document(lists=lists), NOW)
    assert (found.subjects, found.left_out) == (3, 3)
    assert held(document(lists=lists[:3]), NOW).left_out == 0


def test_envoys_file_asks_first_whether_a_request_went_unasked() -> None:
    resource = json.loads(envoy.render(Held((Level("app", {"a": True}),))))["resources"][0]
    tree = resource["typed_config"]["matcher"]["matcher_tree"]
    assert tree["input"]["name"] == envoy.UNASKED
    assert list(tree["exact_match_map"]["map"]) == ["true"]


def test_nginx_reads_only_who_is_refused_and_no_pattern() -> None:
    held_here = Held(
        (
            Level("app", {"a": True, 'q"\\x': True, "~^.*$": True, "default": True}),
            Level("source", {"192.0.2.0/24": True}),
            Level("app", {"a": False, "b": True, "c": False}),
        )
    )
    assert nginx.render_sources(held_here) == b"192.0.2.0/24 1;\n"
    assert nginx.render_apps(held_here).decode().splitlines() == [
        '"a" 1;',
        '"b" 1;',
        r'"\default" 1;',
        r'"q\"\\x" 1;',
        r'"\~^.*$" 1;',
    ]


def made(folder: Path) -> tuple[Agent, Path]:
    path = folder / "rules" / "rules.json"
    agent = Agent("gw", KEYS, folder / "data", Outlet({path: envoy.render}))
    return agent, path


def blocking(version: int, *apps: str) -> Config:
    return document(version, lists=[entry("block", "app", app) for app in apps])


def test_a_signed_document_is_written_and_an_older_or_forged_one_is_not(tmp_path: Path) -> None:
    agent, path = made(tmp_path)
    agent.apply(NOW)
    assert path.read_bytes() == envoy.render(Held())
    agent.offer(configs.sign(blocking(2, "evil"), KEY))
    agent.apply(NOW)
    good = path.read_bytes()
    assert b'"evil"' in good
    forged = configs.sign(blocking(3), Ed25519PrivateKey.generate())
    for data in (configs.sign(blocking(1), KEY), forged, b"", b"\x93", b"x" * 100):
        agent.offer(data)
        agent.apply(NOW)
        assert path.read_bytes() == good
    assert agent.status(NOW).error.startswith("config refused")
    assert agent.status(NOW).version == 2
    agent.offer(configs.sign(blocking(4, "other"), KEY))
    agent.apply(NOW)
    assert b'"evil"' not in path.read_bytes()
    assert agent.status(NOW) == store.AgentStatus("gw", NOW, 4, 1, 0, "")


def test_a_rule_that_ends_by_itself_ends_in_the_file(tmp_path: Path) -> None:
    agent, path = made(tmp_path)
    lists = [entry("block", "app", "brief", NOW + 5), entry("block", "app", "long", NOW + 9)]
    agent.offer(configs.sign(document(2, lists=lists), KEY))
    found = []
    for now in (NOW, NOW + 4, NOW + 5, NOW + 8, NOW + 9, NOW + 10):
        agent.apply(now)
        found.append([app for app in ("brief", "long") if f'"{app}"'.encode() in path.read_bytes()])
    assert found == [["brief", "long"]] * 2 + [["long"]] * 2 + [[]] * 2


def test_rules_are_not_read_again_while_none_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = made(tmp_path)
    agent.offer(configs.sign(blocking(2, "evil"), KEY))
    agent.apply(NOW)
    monkeypatch.setattr(agents, "held", lambda *_: pytest.fail("read again"))
    agent.apply(NOW + 1)


def test_a_restarted_agent_holds_the_last_good_document(tmp_path: Path) -> None:
    first, path = made(tmp_path)
    first.offer(configs.sign(blocking(2, "evil"), KEY))
    again, _ = made(tmp_path)
    again.start_from_disk()
    again.apply(NOW)
    assert b'"evil"' in path.read_bytes()


def test_a_file_that_cannot_be_written_is_told_and_tried_again(tmp_path: Path) -> None:
    agent, path = made(tmp_path)
    path.parent.write_text("in the way")
    agent.offer(configs.sign(blocking(2, "evil"), KEY))
    agent.apply(NOW)
    assert "could not be written" in agent.status(NOW).error
    assert b"sluice_gateway_stale 1" in agent.metrics()
    path.parent.unlink()
    agent.apply(NOW)
    assert agent.status(NOW).error == ""
    assert b"sluice_gateway_rules 1" in agent.metrics()
    assert b'"evil"' in path.read_bytes()


def test_what_a_gateway_is_not_given_is_told_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rules, "MOST", 1)
    agent, _ = made(tmp_path)
    agent.offer(configs.sign(blocking(2, "a", "b", "c"), KEY))
    with caplog.at_level("WARNING"):
        agent.apply(NOW)
    assert agent.status(NOW).left_out == 2
    assert b"sluice_gateway_rules_left_out 2" in agent.metrics()
    assert "2 subjects are more than a gateway is given" in caplog.text


def test_a_reload_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    folder, told = tmp_path / "folder", tmp_path / "folder" / "told"
    outlet = Outlet({tmp_path / "f": nginx.render_apps}, ["mkdir", str(told)])
    agent = Agent("gw", KEYS, tmp_path / "data", outlet)
    agent.apply(NOW)
    assert "could not be told" in agent.status(NOW).error
    folder.mkdir()
    agent.apply(NOW)
    assert agent.status(NOW).error == ""
    assert told.is_dir()
    told.rmdir()
    agent.apply(NOW)
    assert not told.exists()


def test_the_agent_reports_through_the_store(tmp_path: Path, valkey: redis.Redis) -> None:
    agent, path = made(tmp_path)
    valkey.set(store.CONFIG_KEY, configs.sign(blocking(5, "evil"), KEY))
    agents.exchange(agent, valkey, NOW)
    assert b'"evil"' in path.read_bytes()
    told = valkey.get(store.AGENT_PREFIX + "gw")
    assert msgspec.msgpack.decode(told, type=store.AgentStatus).version == 5
    assert valkey.zscore(store.AGENTS_KEY, "gw") == NOW


def test_once_writes_the_file_and_ends(tmp_path: Path) -> None:
    (tmp_path / "config.pub").write_text(KEY.public_key().public_bytes_raw().hex())
    path = tmp_path / "rules.json"
    where = ["--keys", str(tmp_path), "--data", str(tmp_path), "--envoy", str(path)]
    assert agents.main(["--name", "gw", *where, "--once"]) == 0
    assert path.read_bytes() == envoy.render(Held())
    where[1] = str(tmp_path / "nowhere")
    assert agents.main(["--name", "gw", *where, "--once"]) == 2
