from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InternalError, connection, transaction

from control.audit import chain
from control.audit.actors import SYSTEM
from control.models import AuditEntry, ConfigVersion
from control.switches import switches
from tests.control.conftest import DELE
from tests.database import as_owner, without_triggers

pytestmark = pytest.mark.django_db


def three_entries() -> None:
    for k in range(3):
        chain.append(
            by=DELE,
            reason=f"Because {k}",
            action="test.act",
            subject="x",
            summary=f"did {k}",
            before={"n": k, "x": 0.25},
            after={"big": 1e20},
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE control_auditentry SET reason = 'another' WHERE seq = 1",
        "DELETE FROM control_auditentry",
        "TRUNCATE control_auditentry",
        "DELETE FROM control_configversion",
        "TRUNCATE control_configversion CASCADE",
        "UPDATE control_configversion SET payload = 'x'",
    ],
)
def test_the_database_refuses_to_rewrite_what_was_done(
    first: ConfigVersion, statement: str
) -> None:
    with (
        pytest.raises(DatabaseError, match=r"append-only|is fixed"),
        transaction.atomic(),
        # whom no missing privilege holds back
        as_owner(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(statement)


def test_an_entry_that_does_not_continue_the_chain_is_refused_by_the_database() -> None:
    three_entries()
    last = AuditEntry.objects.first()
    for seq, prev in ((5, last.hash), (4, "f" * 64)):
        with (
            pytest.raises(DatabaseError, match="does not continue"),
            transaction.atomic(),
            as_owner(),
        ):
            AuditEntry(
                seq=seq,
                at=last.at,
                actor="x",
                actor_role="x",
                action="x",
                subject="x",
                summary="x",
                reason="x",
                prev_hash=prev,
            ).save()


def test_an_untouched_chain_verifies() -> None:
    three_entries()
    state = chain.verify()
    assert (state.entries, state.broken) == (3, None)
    assert state.head == AuditEntry.objects.first().hash
    out = io.StringIO()
    call_command("audit", "anchor")
    call_command("audit", "verify", stdout=out)
    assert "intact: 3 entries" in out.getvalue()


@pytest.mark.parametrize(
    ("statement", "seq", "why"),
    [
        (
            "UPDATE control_auditentry SET reason = 'another' WHERE seq = 2",
            2,
            "not what was written",
        ),
        ("UPDATE control_auditentry SET after = '{}' WHERE seq = 3", 3, "not what was written"),
        ("DELETE FROM control_auditentry WHERE seq = 2", 3, "entry 2 is missing"),
        (
            "UPDATE control_auditentry SET prev_hash = repeat('a', 64) WHERE seq = 2",
            2,
            "does not continue",
        ),
    ],
)
def test_a_row_changed_behind_the_triggers_back_is_found(
    statement: str, seq: int, why: str
) -> None:
    three_entries()
    with without_triggers(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(statement)
    broken = chain.verify().broken
    assert broken is not None
    assert (broken.seq, why in broken.why) == (seq, True)
    with pytest.raises(CommandError, match=f"breaks at entry {seq}"):
        call_command("audit", "verify")


def test_a_config_version_without_its_audit_row_cannot_be_committed(first: ConfigVersion) -> None:
    with (
        pytest.raises(DatabaseError, match="config version 2 has no audit row"),
        transaction.atomic(),
    ):
        ConfigVersion.objects.create(
            version=2,
            payload=b"x",
            signed=b"x",
            made_at=first.made_at,
            by="x",
            reason="x",
            loosens=False,
        )
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # as the commit does


def test_an_audit_row_for_a_config_version_that_is_not_there_cannot_be_committed() -> None:
    entry = chain.append(by=SYSTEM, reason="First", action="x", subject="x", summary="x")
    other = AuditEntry(
        seq=2,
        at=entry.at,
        actor="x",
        actor_role="x",
        action="x",
        subject="x",
        summary="x",
        reason="x",
        prev_hash=entry.hash,
        config_version_id=9,
    )
    with pytest.raises(DatabaseError, match="foreign key"), transaction.atomic(), as_owner():
        other.save(force_insert=True)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_second_open_flip_of_a_switch_is_refused_by_the_database(first: ConfigVersion) -> None:
    switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
    with (
        pytest.raises((DatabaseError, InternalError), match="one_open_flip_per_switch"),
        transaction.atomic(),
    ):
        switches.SwitchFlip.objects.create(
            name="all_ml", reason="x", by="x", engaged_at=first.made_at, engaged_version=first
        )
