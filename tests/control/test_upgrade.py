"""An installation of before is upgraded with its looks, and cannot go back once it has new ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import DatabaseError
from django.utils import timezone

from console.frame import roles
from control.audit import app_looks, chain, look_months
from control.models import AuditEntry, Grant
from control.people import grants, review
from tests.control.conftest import DELE
from tests.database import as_owner

pytestmark = pytest.mark.django_db(transaction=True)
BEFORE = "0003_found_wrong"


def migrate(*to: str) -> None:
    with as_owner():
        call_command("migrate", "control", *to, verbosity=0)


@pytest.fixture
def present() -> Iterator[None]:
    """Leaves the tables as they are now, also when only some of the migrations were undone."""
    yield
    migrate()


@pytest.fixture
def before(present) -> None:
    migrate(BEFORE)


def old_look(seq: int, prev: str) -> str:
    """Store a look as the version before did, by a plain insert; return its hash."""
    entry = AuditEntry(
        seq=seq,
        at=timezone.now(),
        actor=DELE.name,
        actor_login=DELE.login,
        actor_role=DELE.role,
        action=app_looks.ACTION,
        subject="app_1",
        summary="looked at the page of app app_1",
        reason="Ticket SUP-7",
        after={"what": f"decision {seq}", "ticket": "SUP-7"},
        prev_hash=prev,
    )
    entry.hash = chain.digest(entry)
    entry.save(force_insert=True)
    return entry.hash


@pytest.mark.usefixtures("before")
def test_looks_of_before_are_checked_and_shown_after_the_upgrade() -> None:
    with as_owner():
        old_look(2, old_look(1, chain.FIRST_PREV))
    migrate()
    app_looks.record_all([("app_1", "the page")], by=DELE)
    chain.append(by=DELE, reason="New", action="test.act", subject="x", summary="x")
    assert (chain.verify().entries, chain.verify().broken) == (3, None)
    assert (look_months.verify().entries, look_months.verify().broken) == (1, None)
    assert [x.what for x in app_looks.latest_looks("app_1")] == [
        "the page",
        "decision 2",
        "decision 1",
    ]


@pytest.mark.usefixtures("present")
def test_a_database_with_new_looks_does_not_go_back_to_a_version_that_would_hide_them() -> None:
    app_looks.record_all([("app_1", "the page")], by=DELE)
    with pytest.raises(DatabaseError, match="an older version would not show"):
        migrate(BEFORE)
    # what went back before the refusal
    migrate()
    assert look_months.verify().entries == 1


def test_roles_of_before_are_grants_of_nobody_known_after_the_upgrade() -> None:
    migrate("0006_audited")
    try:
        # as Django's own commands made people before
        with as_owner():
            roles.ensure()
            user = User.objects.create_superuser("mara@example.org", password="for-tests-only")
            user.groups.add(Group.objects.get(name="sre"))
    finally:
        migrate()
    access = review.one(user)
    assert [(held.role, held.by) for held in access.roles] == [("sre", "Unknown")]
    assert access.everything
    grants.take(by=DELE, person=user, role="sre", reason="Changed teams.")
    assert Grant.objects.get().taken_by == DELE.name
