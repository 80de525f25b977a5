"""Anchors outside the database show what its owner did to the audit log: a chain computed anew, an
end that was cut off, anchors that were forged, cut or brought from elsewhere.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from console.management.commands import up
from control import tasks
from control.audit import anchoring, anchors, chain
from control.deciders import keys as key_files
from control.models import AnchorReport, AuditEntry
from monitoring.anchors import Anchoring, find
from tests.control.conftest import DELE
from tests.database import without_triggers

pytestmark = pytest.mark.django_db


def say(count: int = 1) -> None:
    for k in range(count):
        chain.append(by=DELE, reason=f"R {k}", action="test.act", subject="x", summary="did it")


@pytest.fixture
def anchored() -> Path:
    """Three anchors, of entries 2, 3 and 4, and an entry after them."""
    say(2)
    now = datetime.now(UTC)
    for minutes in (30, 20, 10):
        assert anchors.append(now - timedelta(minutes=minutes))
        say()
    return anchors.path()


def verified() -> str:
    out = io.StringIO()
    call_command("audit", "verify", stdout=out)
    return out.getvalue()


def fails(why: str) -> None:
    with pytest.raises(CommandError, match=why):
        call_command("audit", "verify")


def rewrite(seq: int) -> None:
    """Change an entry as the owner of the database can, and compute all hashes after it anew."""
    with without_triggers():
        head = AuditEntry.objects.get(seq=seq - 1).hash if seq > 1 else chain.FIRST_PREV
        for entry in AuditEntry.objects.filter(seq__gte=seq).order_by("seq"):
            if entry.seq == seq:
                entry.reason = "Another reason"
            entry.prev_hash = head
            entry.hash = head = chain.digest(entry)
            AuditEntry.objects.filter(seq=entry.seq).update(
                reason=entry.reason, prev_hash=entry.prev_hash, hash=entry.hash
            )


def test_an_untouched_log_is_as_anchored(anchored: Path) -> None:
    assert "as anchored: 3 anchors, the newest of entry 4" in verified()
    assert anchored.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("seq", "line"), [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_a_chain_that_was_computed_anew_is_found_and_the_first_anchor_named(
    anchored: Path, seq: int, line: int
) -> None:
    rewrite(seq)
    assert chain.verify().broken is None
    fails(rf"Line {line} .* entry {line + 1} of the audit log has another hash than at .*rewritten")


def test_an_end_that_was_cut_off_is_found(anchored: Path) -> None:
    with without_triggers():
        AuditEntry.objects.filter(seq__gte=4).delete()
    assert chain.verify().broken is None
    fails("Line 3 .* entry 4 of the audit log, which was there at .*, is gone")


def test_no_anchor_is_made_of_a_log_that_was_rewritten(anchored: Path) -> None:
    before = anchored.read_bytes()
    rewrite(4)
    report = anchoring.run()
    assert "entry 4 of the audit log has another hash" in report.why
    assert report.failing_since is not None
    assert anchored.read_bytes() == before
    with pytest.raises(CommandError, match="another hash"):
        call_command("audit", "anchor")


def test_what_nobody_anchored_yet_is_said() -> None:
    assert "as anchored" not in verified()
    say()
    fails("There are no anchors .* is missing or empty")
    call_command("audit", "anchor")
    assert "1 anchors, the newest of entry 1" in verified()
    anchors.path().unlink()
    fails("There are no anchors")


def test_anchors_that_nobody_makes_any_more_are_found() -> None:
    say()
    now = datetime.now(UTC)
    anchors.append(now - timedelta(hours=3))
    fails("the newest and 3.0 hours old")
    assert anchors.append(now) is not None
    assert "as anchored: 2 anchors" in verified()


def parts(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(path: Path, lines: list[dict | str]) -> None:
    compact = {"separators": (",", ":")}
    text = [line if isinstance(line, str) else json.dumps(line, **compact) for line in lines]
    path.write_text("\n".join(text) + "\n")


def signed(line: dict, key: Ed25519PrivateKey) -> dict:
    one = msgspec.convert(line | {"key": anchors.key_id(key.public_key())}, anchors.Anchor)
    signature = key.sign(anchors._message(one)).hex()
    return msgspec.to_builtins(msgspec.structs.replace(one, signature=signature))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hash": "f" * 64}, "its signature is wrong"),
        ({"seq": 1}, "its signature is wrong"),
        ({"at": "2026-01-01T00:00:00+00:00"}, "its signature is wrong"),
        ({"signature": "zz"}, "its signature is wrong"),
        ({"signature": ""}, "its signature is wrong"),
        ({"key": "0" * 16}, "signed by a key that is not in config.pub"),
        ({"installation": "0" * 64}, "of another installation"),
        ({"at": "then"}, "cannot be read"),
        ({"at": "2026-01-01T00:00:00"}, "cannot be read"),
        ({"seq": "2"}, "cannot be read"),
        ({"seq": 2**70}, "cannot be read"),
        ({"seq": 0}, "cannot be read"),
        ({"more": 1}, "cannot be read"),
        ({"hash": "f" * 5000}, "cannot be read"),
    ],
)
def test_a_forged_anchor_is_found(anchored: Path, change: dict, why: str) -> None:
    first, second, third = parts(anchored)
    put(anchored, [first, second | change, third])
    fails(f"Line 2 .*{why}")


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ([1, 2], "Line 1 .* number 2: others before it are missing"),
        ([0, 2], "Line 2 .* number 3: others before it are missing"),
        ([0, 2, 1], "Line 2 .* number 3"),
        ([0, 0, 1], "Line 2 .* number 1"),
    ],
)
def test_anchors_that_are_missing_or_moved_are_found(
    anchored: Path, left: list[int], why: str
) -> None:
    found = anchored.read_text().splitlines()
    put(anchored, [found[k] for k in left])
    fails(why)


def test_numbers_only_grow_even_where_the_key_signed(anchored: Path, keys: Path) -> None:
    first, second, third = anchored.read_text().splitlines()
    key = key_files.load_signing_key(keys)
    back = signed(json.loads(third) | {"seq": 2, "hash": json.loads(first)["hash"]}, key)
    put(anchored, [first, second, back])
    fails("Line 3 .* about entry 2, and the one before it about 3")
    other = signed(json.loads(third) | {"previous": "0" * 64}, key)
    put(anchored, [first, second, other])
    fails("Line 3 .* does not continue the one before it")


def test_a_file_that_was_cut_within_a_line_is_found_and_goes_on_behind_it(anchored: Path) -> None:
    data = anchored.read_bytes()
    anchored.write_bytes(data[:-40])
    fails("Line 3 .* cut off or changed")
    assert anchors.append(datetime.now(UTC)) is not None
    assert anchored.read_bytes().startswith(data[:-40] + b"\n")
    fails("Line 3 .* cut off or changed")


def test_anchors_of_another_installation_are_found(anchored: Path, keys: Path) -> None:
    (keys / key_files.INSTALLATION).write_text("ab" * 32)
    fails("Line 1 .* of another installation")


def test_a_key_that_was_replaced_still_counts_and_a_strangers_never(
    anchored: Path, keys: Path
) -> None:
    stranger = Ed25519PrivateKey.generate()
    first, second, third = parts(anchored)
    put(anchored, [first, second, signed(third, stranger)])
    fails("Line 3 .* signed by a key that is not in config.pub")
    with (keys / "config.pub").open("a") as known:
        known.write("\n" + stranger.public_key().public_bytes_raw().hex() + "\n")
    assert "3 anchors" in verified()


def test_an_anchor_is_made_when_the_log_grew_and_once_in_a_while_when_not() -> None:
    assert anchors.append() is None
    say()
    now = datetime.now(UTC)
    assert anchors.append(now) is not None
    assert anchors.append(now + timedelta(minutes=10)) is None
    say()
    assert anchors.append(now + timedelta(minutes=20)) is not None
    assert anchors.append(now + timedelta(minutes=30)) is None
    assert anchors.append(now + timedelta(minutes=66)) is not None
    assert [line["seq"] for line in parts(anchors.path())] == [1, 2, 2]


def test_who_waited_for_another_program_anchors_no_earlier_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say()
    alone = anchors._alone

    @contextmanager
    def after_another() -> Iterator[int]:
        monkeypatch.setattr(anchors, "_alone", alone)
        say()
        assert anchors.append() is not None
        with alone() as file:
            yield file

    monkeypatch.setattr(anchors, "_alone", after_another)
    assert anchors.append() is None
    assert "1 anchors, the newest of entry 2" in verified()


def test_a_file_elsewhere_is_used_and_one_that_cannot_be_written_says_so(
    settings, tmp_path: Path
) -> None:
    say()
    settings.SLUICE_AUDIT_ANCHORS = str(tmp_path / "far" / "a.jsonl")
    call_command("audit", "anchor")
    assert (tmp_path / "far" / "a.jsonl").stat().st_mode & 0o777 == 0o600
    settings.SLUICE_AUDIT_ANCHORS = str(tmp_path)
    report = anchoring.run()
    assert "cannot be written" in report.why
    assert AnchorReport.objects.get().why == report.why


# ---- a copy for somebody else


class Receiver(BaseHTTPRequestHandler):
    """Takes anchors, or answers as it is told."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        server = self.server
        assert isinstance(server, Receiving)
        if server.status == 200:
            server.got.append(body)
        self.send_response(server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Receiving(HTTPServer):
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.got: list[bytes] = []


@pytest.fixture
def receiver(settings) -> Iterator[Receiving]:
    with Receiving() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        settings.SLUICE_AUDIT_ANCHOR_URL = f"http://127.0.0.1:{server.server_port}/a?b=c"
        yield server
        server.shutdown()
        thread.join()


def test_each_anchor_is_sent_once_and_in_order(anchored: Path, receiver: Receiving) -> None:
    assert tasks.anchor_audit() == {"sent": 4, "waiting": 0}
    assert tasks.anchor_audit() == {"sent": 4, "waiting": 0}
    assert receiver.got == anchored.read_bytes().splitlines()


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_is_not_taken_is_said_counted_and_sent_later(
    anchored: Path, receiver: Receiving, status: int, caplog
) -> None:
    receiver.status = status
    assert tasks.anchor_audit() == {"sent": 0, "waiting": 4}
    first = AnchorReport.objects.get()
    assert f"the receiver answered {status}" in first.why
    assert f"the receiver answered {status}" in caplog.text
    tasks.anchor_audit()
    assert AnchorReport.objects.get().failing_since == first.failing_since
    receiver.status = 200
    assert tasks.anchor_audit() == {"sent": 4, "waiting": 0}
    after = AnchorReport.objects.get()
    assert (after.why, after.failing_since) == ("", None)
    assert len(receiver.got) == 4


def test_a_receiver_that_says_nothing_is_given_up(
    anchored: Path, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchoring, "WITHIN_S", 0.1)
    with HTTPServer(("127.0.0.1", 0), Receiver) as silent:
        settings.SLUICE_AUDIT_ANCHOR_URL = f"http://127.0.0.1:{silent.server_port}/"
        assert "Anchors cannot be sent" in anchoring.run().why
    assert "4 anchors" in verified()


@pytest.mark.parametrize("url", ["ftp://x/", "anchors", "http://", "https://x:99999/", "//x/a"])
def test_an_address_that_is_none_says_what_to_set(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="SLUICE_AUDIT_ANCHOR_URL must be"):
        anchoring.receiver(url)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"anchored_at": 9_000.0}, ""),
        ({"anchored_at": 2_000.0}, "not anchored lately"),
        ({"anchored_at": 9_000.0, "failing_since": 8_000.0, "why": "It broke."}, "It broke."),
        (
            {"anchored_at": 9_000.0, "failing_since": 8_000.0, "why": "Away.", "waiting": 3},
            "3 wait to be sent",
        ),
    ],
)
def test_home_has_a_line_when_anchoring_fails_or_stops(fields: dict, said: str) -> None:
    found = find(Anchoring(10_000.0, **fields))
    assert len(found) == bool(said)
    assert all(said in f"{item.title} {item.detail}" for item in found)


def test_up_makes_the_first_anchor_and_no_second_one(monkeypatch) -> None:
    """The worker's first comes minutes later; whoever verifies a new installation finds one."""
    monkeypatch.setattr(up, "call_command", lambda *_, **__: None)
    say()
    for _ in range(2):
        up.prepare_database(with_traffic=False)
        assert "1 anchors, the newest of entry 1" in verified()
