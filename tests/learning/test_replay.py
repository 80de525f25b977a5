"""Replaying logs through the engine, and the command that does it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis
from django.core.management import CommandError, call_command

from control.deciders import keys as key_files
from decider.contracts import defaults, event, store
from decider.engine.engine import Engine
from learning.logs import formats, playback
from tests.learning import logs
from tests.learning.logs import KEY, combined

NOW = 1_790_000_000.0


def engine() -> Engine:
    made = Engine(node=playback.NODE, region="local", token_key=KEY, capacity=4096, keep_all=True)
    made.apply(defaults.config(), None)
    return made


def burst(path: Path, requests: int = 400) -> Path:
    """One address far over its plan, another one quiet."""
    lines = [combined(k // 40, request=f"GET /v2/orders/{k} HTTP/1.1") for k in range(requests)]
    lines += [combined(k, address="198.51.100.99") for k in range(5)]
    path.write_text("\n".join(lines))
    return path


def play(
    path: Path, limit: int | None = None
) -> tuple[playback.ReplaySummary, list[event.EventBatch]]:
    published: list[bytes] = []
    summary = playback.OfflineReplay(engine(), published.append, lambda apps: []).run(
        [path], KEY, limit=limit, end=NOW
    )
    return summary, [event.decode_batch(data) for data in published]


def test_a_log_ends_now_and_keeps_its_own_pace(tmp_path: Path) -> None:
    before = time.perf_counter()
    summary, _ = play(burst(tmp_path / "a.log"))
    assert 0.0 < summary.wall_s <= time.perf_counter() - before
    assert summary.last == NOW
    assert summary.last - summary.first == 9.0
    assert summary.requests == 405


def test_every_refusal_is_kept_and_sent_as_the_node_replay(tmp_path: Path) -> None:
    summary, batches = play(burst(tmp_path / "a.log"))
    refused = sum(r.count for r in summary.refused.values())
    kept = [e for batch in batches for e in batch.events]
    assert refused > 100
    assert sum(e.action != 0 for e in kept) == refused
    assert {batch.node for batch in batches} == {"replay"}
    assert all(e.inclusion_probability == 1.0 for e in kept if e.action)
    assert "198.51.100" not in repr(kept) + playback.describe_summary(summary)


def test_the_summary_names_the_app_refused_most_and_a_decision_to_look_up(tmp_path: Path) -> None:
    summary, batches = play(burst(tmp_path / "a.log"))
    (app, most), *_ = summary.refused.items()
    assert app in playback.describe_summary(summary)
    assert most.decision in playback.describe_summary(summary)
    assert most.decision[4:] in {e.id.hex() for batch in batches for e in batch.events}


def test_a_limit_stops_early(tmp_path: Path) -> None:
    assert play(burst(tmp_path / "a.log"), limit=50)[0].requests == 50


def test_a_log_without_a_request_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("nothing\nhere\n")
    with pytest.raises(playback.NothingReadError, match="2 lines: not a line of a known format"):
        play(tmp_path / "a.log")


@pytest.mark.parametrize(
    "name",
    [
        "zanbil_shop_access_2019-01-22_first10018.log.gz",
        "rootly_apache_access_2025-01-29.log.gz",
        "scanner_w3af_apache_2016.log.gz",
    ],
)
def test_a_real_log_replays_to_its_end(name: str) -> None:
    summary, batches = play(logs.real(name), limit=4000)
    assert summary.requests > 3_900
    assert summary.kept == sum(len(batch.events) for batch in batches)
    assert sum(summary.answers.values()) == summary.requests


def test_several_logs_overlay_each_other_and_all_end_now(tmp_path: Path) -> None:
    early, late = tmp_path / "early.log", tmp_path / "late.log"
    early.write_text("\n".join(combined(k) for k in range(10)))
    late.write_text(
        "\n".join(combined(k, address="198.51.100.9").replace("2019", "2021") for k in range(5))
    )
    summary = playback.OfflineReplay(engine(), lambda data: None, lambda apps: []).run(
        [early, late], KEY, end=NOW
    )
    assert (summary.first, summary.last, summary.requests) == (NOW - 9, NOW, 15)


@pytest.fixture
def installation(tmp_path: Path, settings) -> Path:
    settings.SLUICE_KEYS = tmp_path / "keys"
    settings.SLUICE_MODELS = tmp_path / "models"
    key_files.ensure(settings.SLUICE_KEYS)
    return tmp_path


def test_the_command_replays_into_the_events_stream(
    installation: Path, valkey: redis.Redis, capsys
) -> None:
    call_command("replay", str(burst(installation / "a.log")))
    out = capsys.readouterr()
    assert "405" in out.out
    assert "starting config" in out.err
    sent = [event.decode_batch(fields[b"b"]) for _, fields in valkey.xrange(store.EVENTS_STREAM)]
    assert {batch.node for batch in sent} == {"replay"}
    assert sum(len(batch.events) for batch in sent) > 100


def test_a_run_that_skipped_much_says_so_first_and_ends_with_status_3(
    installation: Path, valkey: redis.Redis, capsys
) -> None:
    path = burst(installation / "a.log")
    path.write_text(f"{path.read_text()}\n" + "damage\n" * 22)
    with pytest.raises(SystemExit) as ended:
        call_command("replay", str(path))
    assert ended.value.code == 3
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("22 of 427 lines were skipped (5.2%)")
    assert any(
        line.endswith("22 lines: not a line of the combined format, first line 406 of a.log")
        for line in rest
    )


def test_a_run_that_skipped_little_ends_well(
    installation: Path, valkey: redis.Redis, capsys
) -> None:
    path = burst(installation / "a.log")
    path.write_text(f"{path.read_text()}\n" + "damage\n" * 21)
    call_command("replay", str(path))
    said = capsys.readouterr().out
    assert "combined, of nginx and Apache: 100 of the first 100 lines of a.log fit" in said
    assert said.index("21 lines: not a line") > said.index("requests")


def test_a_log_of_skipped_lines_only_ends_with_status_3(
    installation: Path, valkey: redis.Redis
) -> None:
    path = installation / "a.log"
    path.write_text("\n".join(combined(k, address="-") for k in range(30)))
    with pytest.raises(CommandError, match="30 lines: no client address, first line 1") as told:
        call_command("replay", str(path))
    assert told.value.returncode == 3


def test_the_formats_are_in_the_help_and_an_unknown_one_is_told_them(
    installation: Path, capsys
) -> None:
    with pytest.raises(CommandError, match=r"'iis'.*nginx.*combined.*envoy-json"):
        call_command("replay", "a.log", "--format", "iis")
    with pytest.raises(SystemExit):
        call_command("replay", "--help")
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{one.name}: {one.label}" in said for one in formats.FORMATS)


def test_a_replay_writes_nothing_but_its_batches(
    installation: Path, valkey: redis.Redis, capsys
) -> None:
    before = set(valkey.keys())
    call_command("replay", str(burst(installation / "a.log")))
    assert set(valkey.keys()) - before == {store.EVENTS_STREAM.encode()}


def test_the_command_says_what_is_wrong_with_a_file(
    installation: Path, valkey: redis.Redis
) -> None:
    with pytest.raises(CommandError, match="There is no file"):
        call_command("replay", str(installation / "missing.log"))
    with pytest.raises(CommandError, match="limit"):
        call_command("replay", str(installation / "missing.log"), "--limit", "0")
