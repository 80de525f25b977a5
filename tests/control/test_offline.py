from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from django.conf import settings as live_settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from control import tasks
from control.audit import chain
from control.audit.actors import Actor
from control.config import changes
from control.deciders import keys, publish
from control.errors import ControlError, Refused
from control.models import AuditEntry, ConfigVersion
from control.switches import offline, offline_journal, switches
from decider.contracts import config, defaults
from tests.control.conftest import DELE, ack, beat, status

pytestmark = pytest.mark.django_db
SHELL = Actor("dele", "dele", "Shell")
GONE = "postgres://nobody@127.0.0.1:1/none"


def switch(*arguments: str, **options: object) -> str:
    out = io.StringIO()
    call_command("switch", *arguments, stdout=out, **options)
    return out.getvalue()


def switch_elsewhere(
    folder: Path, *arguments: str, valkey: str
) -> subprocess.CompletedProcess[str]:
    """The real command in its own process, with PostgreSQL away."""
    environment = os.environ | {
        "DATABASE_URL": GONE,
        "VALKEY_URL": valkey,
        "SLUICE_VAR": str(folder),
    }
    command = [sys.executable, "manage.py", "switch", *arguments]
    return subprocess.run(
        command,
        env=environment,
        cwd=live_settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def flip_without_postgres(verb: switches.Verb = "engage") -> offline.Reached:
    return offline.flip(
        verb, "all_ml", by=SHELL, reason="Everything is on fire", until=None, files=None
    )


def test_the_command_flips_through_the_same_function_and_says_who_acked(first, valkey) -> None:
    publish.rebuild()
    beat(valkey, status("d01"))
    ack(valkey, 2, "d01", applied_at=time.time(), last_old_decision_at=time.time())
    said = switch("all_ml", "--engage", "--reason", "Scores look wrong", "--for", "2h", "--wait")
    assert "“All ML” is engaged until" in said
    assert "The fallback limiter will decide" in said
    assert "local d01: acked" in said
    assert "All 1 deciders acked." in said
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.actor_role, entry.config_version_id) == (
        "switch.engage",
        "Shell",
        2,
    )
    assert "is cleared, config 3" in switch("all_ml", "--clear", "--reason", "It was the feed")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["all_ml", "--engage", "--reason", "x"], "Say when it ends"),
        (["all_ml", "--engage", "--reason", "x", "--for", "2 fortnights"], "not a length of time"),
        (["all_ml", "--engage", "--reason", "x", "--for", "0h"], "not a length of time"),
        (["all_ml", "--engage", "--reason", "x", "--for", "99999d"], "more than 90 days"),
        (["all_ml", "--engage", "--until-cleared"], "A reason is needed"),
        (["all_ml", "--clear", "--reason", "x"], "is clear already"),
        (["no_such", "--clear", "--reason", "x"], "There is no switch “no_such”"),
        (["--clear", "--reason", "x"], "Name the switch"),
        (["all_ml", "--clear", "--reason", "x", "--by", "nobody@example.org"], "There is no user"),
        (
            [
                "all_ml",
                "--engage",
                "--reason",
                "x",
                "--until-cleared",
                "--file",
                "no/such/place/*/switch.bin",
            ],
            "no node directory",
        ),
    ],
)
def test_a_wrong_command_is_told_so_in_a_sentence(first, arguments, says) -> None:
    with pytest.raises(CommandError, match=says):
        switch(*arguments)
    assert ConfigVersion.objects.count() == 1


def test_with_postgres_down_the_command_signs_publishes_and_journals_and_is_taken_in_later(
    first, published, installation
) -> None:
    publish.rebuild()
    done = switch_elsewhere(
        installation,
        "all_ml",
        "--engage",
        "--reason",
        "Everything is on fire",
        "--for",
        "2h",
        valkey=live_settings.VALKEY_URL,
    )
    assert done.returncode == 0, done.stderr
    assert "PostgreSQL does not answer. The flip is journalled in" in done.stdout
    assert (published().version, [s.name for s in published().switches]) == (2, ["all_ml"])
    assert "Imported config 2" in switch("--reconcile")
    row, entry = ConfigVersion.objects.get(version=2), AuditEntry.objects.first()
    assert bytes(row.signed) == publish.held()[1]
    assert (entry.action, entry.reason) == ("switch.engage", "Everything is on fire")
    assert entry.summary.endswith("while PostgreSQL was down")
    assert switches.engaged()["all_ml"].engaged_version_id == 2
    assert (offline_journal.waiting(), chain.verify().broken) == ([], None)
    assert (publish.pending(), publish.pending()) == ("published config 2", "")
    assert "The journal is empty" in switch("--reconcile")


def test_with_both_down_the_signed_document_goes_into_every_nodes_directory(
    first, installation
) -> None:
    for node in ("d01", "d02"):
        (installation / "nodes" / node).mkdir(parents=True)
    (installation / "nodes" / "d01" / "config.bin").write_bytes(bytes(first.signed))
    pattern = str(installation / "nodes" / "*" / "switch.bin")
    arguments = [
        "all_ml",
        "--engage",
        "--reason",
        "Everything is on fire",
        "--until-cleared",
        "--file",
        pattern,
    ]
    done = switch_elsewhere(installation, *arguments, valkey="redis://127.0.0.1:1/0")
    assert done.returncode == 0, done.stderr
    assert "Acks come through Valkey" in done.stdout
    trusted = keys.load_public_keys(live_settings.SLUICE_KEYS)
    for node in ("d01", "d02"):
        document = config.verify(
            (installation / "nodes" / node / "switch.bin").read_bytes(), trusted
        )
        assert (document.version, [s.name for s in document.switches]) == (2, ["all_ml"])
    assert offline.reconcile()[0].startswith("Imported config 2")
    again = switch_elsewhere(installation, *arguments[:-2], valkey="redis://127.0.0.1:1/0")
    assert (again.returncode, "engaged already" in again.stderr, "Traceback" in again.stderr) == (
        1,
        True,
        False,
    )


def test_with_valkey_down_alone_the_file_carries_the_committed_version(
    first, installation, settings
) -> None:
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    (installation / "nodes" / "d01").mkdir(parents=True)
    switch("all_ml", "--engage", "--reason", "Valkey is gone", "--until-cleared", "--file")
    assert (installation / "nodes" / "d01" / "switch.bin").read_bytes() == bytes(
        ConfigVersion.objects.get(version=2).signed
    )
    assert ConfigVersion.objects.get(version=2).published_at is None


def test_a_flip_whose_number_was_taken_meanwhile_is_made_again_on_top(
    first, published, django_capture_on_commit_callbacks
) -> None:
    publish.rebuild()
    flip_without_postgres()
    changes.make_version(
        by=DELE,
        reason="Unrelated",
        action="config.test",
        subject="nodes",
        summary="x",
        edit=lambda c: msgspec.structs.replace(c, nodes=12),
    )
    with django_capture_on_commit_callbacks(execute=True):
        (said,) = offline.reconcile()
    assert said == "Config 2 was taken by another change; made the flip again as config 3."
    assert (published().version, published().nodes, [s.name for s in published().switches]) == (
        3,
        12,
        ["all_ml"],
    )
    assert switches.engaged()["all_ml"].engaged_version_id == 3


def test_a_flip_that_no_longer_applies_is_recorded_as_such(first) -> None:
    publish.rebuild()
    flip_without_postgres()
    switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
    said = offline.reconcile()
    assert "no longer applies" in said[0]
    assert AuditEntry.objects.filter(action="switch.superseded").count() == 1
    assert list(switches.engaged()) == ["all_ml"]


def test_a_document_found_in_the_store_without_a_journal_is_taken_over(first, published) -> None:
    publish.rebuild()
    flip_without_postgres()
    for path in offline_journal.waiting():
        path.unlink()
    assert offline.reconcile() == ["Took over config 2 from the config store."]
    assert list(switches.engaged()) == ["all_ml"]
    assert AuditEntry.objects.first().action == "config.adopt"
    assert offline.reconcile() == []


def test_two_flips_in_a_row_without_postgres_are_taken_in_in_order(first) -> None:
    publish.rebuild()
    flip_without_postgres("engage")
    flip_without_postgres("clear")
    assert len(offline.reconcile()) == 2
    (flip,) = switches.ended(timezone.now() - timedelta(hours=1))
    assert (changes.latest().version, switches.engaged(), flip.ended_version_id) == (3, {}, 3)
    assert chain.verify().broken is None


def test_a_crash_between_commit_and_moving_the_journal_takes_it_in_once(first, monkeypatch) -> None:
    publish.rebuild()
    flip_without_postgres()
    with monkeypatch.context() as crash:
        crash.setattr(
            offline_journal, "settle", lambda path: (_ for _ in ()).throw(OSError("killed"))
        )
        with pytest.raises(OSError, match="killed"):
            offline.reconcile()
    assert offline.reconcile() == ["Config 2 was imported already."]
    assert ConfigVersion.objects.count() == 2


def test_a_forged_journal_entry_is_not_taken_in(first, tmp_path) -> None:
    publish.rebuild()
    flip_without_postgres()
    (path,) = offline_journal.waiting()
    entry = offline_journal.read_entry(path)
    other = tmp_path / "other"
    keys.ensure(other)
    forged = config.sign(defaults.config(2, 1.0), keys.load_signing_key(other))
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(entry, signed=forged)))
    with pytest.raises(ControlError, match="cannot be verified"):
        offline.reconcile()
    path.write_bytes(b"{nonsense")
    with pytest.raises(ControlError, match="cannot be read"):
        offline.reconcile()
    assert ConfigVersion.objects.count() == 1


def test_a_journal_that_cannot_be_read_does_not_hold_up_publishing(
    first, published, valkey, caplog
) -> None:
    offline_journal.directory().mkdir()
    (offline_journal.directory() / "000000000002-x.json").write_bytes(b"{nonsense")
    valkey.flushdb()
    tasks.publish_pending()
    assert published().version == 1
    assert "the journal cannot be imported" in caplog.text


def test_nothing_to_begin_from_is_said_in_a_sentence(installation) -> None:
    with pytest.raises(ControlError, match="No config document signed with our key was found"):
        flip_without_postgres()


def test_a_blank_reason_is_refused_without_postgres_too(first) -> None:
    publish.rebuild()
    with pytest.raises(Refused, match="A reason is needed"):
        offline.flip("engage", "all_ml", by=SHELL, reason=" ", until=None, files=None)
