"""No change of a table that people decide in is committed without an entry in the audit log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from knox.models import AuthToken

from control.approvals.models import Mode, Request, Review, Vote
from control.audit import chain
from control.models import (
    App,
    AppliedFile,
    AppNote,
    AuditEntry,
    Grant,
    Installation,
    SwitchFlip,
    Tenant,
)
from decisions.models import Dispute, Outcome
from rollouts.models import ModelVersion
from tests.audited import append_entry
from tests.control.conftest import DELE
from tests.database import as_owner

pytestmark = pytest.mark.django_db(transaction=True)
NO_ENTRY = "has no entry in the audit log"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def say(summary: str = "did it") -> None:
    chain.append(by=DELE, reason="A test", action="test.act", subject="x", summary=summary)


@pytest.fixture
def an_app() -> App:
    with chain.changing():
        tenant = Tenant.objects.create(id="ten_a", name="A")
        app = App.objects.create(id="app_a", name="Sync", tenant=tenant, tier=0)
        say()
    return app


def an_outcome() -> Outcome:
    return Outcome(
        key="k",
        kind="churn",
        occurred_at=AT,
        reported_at=AT,
        matured_at=AT,
        source="api",
        app="app_a",
        by="x",
        digest="d",
    )


def make_user() -> User:
    return User.objects.create(username="mara")


def delete_app() -> None:
    # no program does
    with as_owner():
        App.objects.filter(pk="app_a").delete()


MADE = {
    "tenant": lambda: Tenant.objects.create(id="ten_b", name="B"),
    "app": lambda: App.objects.create(id="app_b", name="B", tenant_id="ten_a", tier=0),
    "apps in bulk": lambda: App.objects.bulk_create(
        App(id=f"app_{k}", name="B", tenant_id="ten_a", tier=0) for k in range(3)
    ),
    "note": lambda: AppNote.objects.create(app="app_a", text="x", by="x", by_role="x"),
    "outcome": lambda: an_outcome().save(),
    "dispute": lambda: Dispute.objects.create(
        decision="01a2229b-ceac-7001-a71d-e2cff5c2811d",
        at=AT,
        app="app_a",
        action=1,
        reason_code=1,
        weight=1.0,
        claim="x",
        opened_by="x",
        opened_name="X",
        opened_at=AT,
    ),
    "model": lambda: ModelVersion.objects.create(
        name="risk",
        version=1,
        digest="d" * 64,
        feature_schema="s",
        card={},
        registered_at=AT,
        by="x",
    ),
    "token": lambda: AuthToken.objects.create(user=make_user(), expiry=timedelta(days=1)),
    "tier": lambda: App.objects.filter(pk="app_a").update(tier=3),
    "tenant's name": lambda: Tenant.objects.filter(pk="ten_a").update(name="Z"),
    "app's end": delete_app,
}


@pytest.mark.parametrize("what", MADE)
def test_a_change_without_an_entry_is_refused_and_with_one_is_kept(an_app, what: str) -> None:
    entries = AuditEntry.objects.count()
    with pytest.raises(DatabaseError, match=NO_ENTRY), transaction.atomic():
        MADE[what]()
    assert AuditEntry.objects.count() == entries
    assert App.objects.get().tier == 0
    with chain.changing():
        MADE[what]()
        say()
    assert AuditEntry.objects.count() == entries + 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE control_app SET tier = 3",
        "UPDATE control_app SET found_wrong = 2, verified = true",
        "DELETE FROM control_app",
        "INSERT INTO control_tenant VALUES ('ten_b', 'B')",
        "UPDATE control_tenant SET name = 'Z'",
    ],
)
def test_raw_sql_is_held_to_it_too(an_app, statement: str) -> None:
    with pytest.raises(DatabaseError, match=NO_ENTRY), as_owner(), connection.cursor() as cursor:
        cursor.execute(statement)
    # an entry of a transaction before, and one that a savepoint undid, are none of this one
    say()
    with pytest.raises(DatabaseError, match=NO_ENTRY), transaction.atomic():
        with pytest.raises(ValueError, match="undone"), transaction.atomic():
            append_entry()
            raise ValueError("undone")
        with as_owner(), connection.cursor() as cursor:
            cursor.execute(statement)


def test_what_is_counted_by_itself_needs_no_entry(an_app) -> None:
    App.objects.filter(pk="app_a").update(found_wrong=2)
    assert App.objects.get().found_wrong == 2
    with chain.changing():
        token, _ = AuthToken.objects.create(user=make_user(), expiry=timedelta(days=-1))
        say()
    token.delete()
    assert not AuthToken.objects.exists()


@pytest.mark.parametrize(
    "table",
    [
        *("control_tenant", "control_app", "control_switchflip", "control_appnote"),
        *("decisions_outcome", "decisions_dispute", "rollouts_modelversion"),
    ],
)
def test_no_such_table_can_be_emptied_at_once(table: str) -> None:
    with (
        pytest.raises(DatabaseError, match="append-only"),
        as_owner(),
        connection.cursor() as cursor,
    ):
        cursor.execute(f"TRUNCATE {table} CASCADE")


def test_every_table_of_these_rooms_that_people_decide_in_is_held(an_app) -> None:
    """A new model must be added to the triggers, or to those that need none, with its reason."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE '%%_audited'"
            " AND tgrelid <> 'control_change'::regclass"
        )
        held = {table for (table,) in cursor.fetchall()}
    free = {
        "control_auditentry",  # the log itself
        "control_look",  # the other log
        "control_signintry",  # wrong passwords, which nobody decides
        "control_anchorreport",  # how a task went
        "control_appimport",  # how far an import is told; the import itself has its entry
    }
    tables = {
        model._meta.db_table
        for model in (
            *(App, AppNote, Tenant, SwitchFlip, Outcome, Dispute, ModelVersion, AuthToken),
            *(
                AppliedFile,
                Installation,
                Grant,
                User,
                User.groups.through,
                User.user_permissions.through,
            ),
            *(Mode, Request, Review, Vote),
        )
    }
    assert held == tables | {"control_configversion"}
    from django.apps import apps

    assert {m._meta.db_table for m in apps.get_app_config("control").get_models()} <= held | free
