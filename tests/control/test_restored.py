"""A database that was restored from a backup: every decider follows it again."""

from __future__ import annotations

import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from control.audit.actors import SYSTEM
from control.config import changes, restored
from control.models import AuditEntry
from decider.contracts.config import EPOCH, next_epoch
from tests.control.conftest import ack, beat, status

pytestmark = pytest.mark.django_db(transaction=True)
WHY = {"by": SYSTEM, "reason": "restored the backup of 03:00"}


def test_its_config_gets_a_version_above_all_that_deciders_follow(first, valkey, published) -> None:
    beat(valkey, status("d01", config_version=9))
    row = restored.follow_database(**WHY, now=time.time())
    assert row is not None
    assert row.version == EPOCH + 1
    assert published().version == row.version
    assert AuditEntry.objects.first().action == "config.restored"
    # changes go on from there
    beat(valkey, status("d01", config_version=row.version))
    assert restored.follow_database(**WHY, now=time.time()) is None


def test_a_second_restore_begins_another_epoch(first, valkey, published) -> None:
    beat(valkey, status("d01", config_version=EPOCH + 77))
    row = restored.follow_database(**WHY, now=time.time())
    assert row is not None
    assert row.version == next_epoch(EPOCH + 77)


def test_another_document_of_the_same_version_is_left_behind_too(first, valkey) -> None:
    newest = changes.latest()
    beat(valkey, status("d01", config_version=newest.version + 1))
    ack(valkey, newest.version, "d01", ok=False, error="another document of that version")
    row = restored.follow_database(**WHY, now=time.time())
    assert row is not None
    assert row.version == next_epoch(newest.version + 1)


def test_a_heartbeat_that_claims_too_much_uses_no_epoch_up(first, valkey) -> None:
    beat(valkey, status("d01", config_version=2**60))
    assert restored.newest_followed(time.time()) == changes.latest().version


def test_the_command_says_who_does_not_follow(first, valkey, monkeypatch) -> None:
    from control.management.commands import restored as command

    monkeypatch.setattr(command, "WAIT_S", 0.3)
    beat(valkey, status("d01", config_version=9))
    with pytest.raises(CommandError, match="Not every decider follows yet: d01"):
        call_command("restored", reason="restored the backup of 03:00", stdout=StringIO())
    beat(valkey, status("d01", config_version=changes.latest().version))
    said = StringIO()
    call_command("restored", reason="restored the backup of 03:00", stdout=said)
    assert "All 1 deciders follow it." in said.getvalue()


def test_it_wants_a_reason(first, valkey) -> None:
    with pytest.raises(CommandError):
        call_command("restored", stdout=StringIO())
