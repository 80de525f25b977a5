"""People and roles: what the functions do, and what the database refuses without them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from console.frame import roles
from control.audit import tokens
from control.audit.actors import Actor
from control.errors import Refused
from control.models import AuditEntry, Grant
from control.people import accounts, grants, review

SHELL = Actor("root", "root", "Shell")


def made(first: str = "Ada", *roles_given: str) -> User:
    user = accounts.make(
        by=SHELL,
        email=f"{first.lower()}@example.org",
        first=first,
        last="Byron",
        reason="Joins the team.",
    )
    for role in roles_given:
        grants.give(by=SHELL, person=user, role=role, reason="Joins the team.")
    return user


@pytest.fixture(autouse=True)
def there_are_roles(db) -> None:
    roles.ensure()


def last() -> AuditEntry:
    return AuditEntry.objects.order_by("-seq")[0]


def test_a_person_is_made_without_role_and_password() -> None:
    user = made()
    assert (user.username, user.email) == ("ada@example.org", "ada@example.org")
    assert not user.has_usable_password()
    assert user.get_all_permissions() == set()
    assert (last().action, last().actor_login) == ("person.make", "root")


@pytest.mark.parametrize(
    ("email", "first"),
    [
        ("ADA@example.org ", "Ada"),
        ("no address", "Ada"),
        ("x" * 150 + "@a.org", "Ada"),
        ("b@a.org", " "),
    ],
)
def test_nobody_is_made_twice_or_without_name_and_address(email: str, first: str) -> None:
    made()
    with pytest.raises(Refused):
        accounts.make(by=SHELL, email=email, first=first, last="Byron", reason="x")
    assert User.objects.count() == 1


def test_a_role_is_given_and_taken_and_both_are_kept() -> None:
    boss, user = made("Bea", "administrator"), made()
    grants.give(by=boss, person=user, role="sre", reason="On call from Monday.")
    assert user.has_perm("control.engage_switch")
    grants.take(by=boss, person=user, role="sre", reason="Changed teams.")
    assert not User.objects.get(pk=user.pk).has_perm("control.engage_switch")
    kept = Grant.objects.get(person=user)
    assert (kept.granted_by, kept.by, kept.reason) == (boss, "Bea Byron", "On call from Monday.")
    assert kept.taken_by == "Bea Byron"
    assert (last().action, last().reason) == ("role.take", "Changed teams.")


def test_nobody_gives_a_role_twice_takes_one_that_is_not_there_or_names_an_unknown_one() -> None:
    user = made("Ada", "sre")
    for do, role in ((grants.give, "sre"), (grants.take, "auditor"), (grants.give, "king")):
        before = AuditEntry.objects.count()
        with pytest.raises(Refused):
            do(by=SHELL, person=user, role=role, reason="x")
        assert AuditEntry.objects.count() == before


def test_nobody_changes_their_own_account() -> None:
    boss = made("Bea", "administrator")
    for change in (
        lambda: grants.give(by=boss, person=boss, role="sre", reason="x"),
        lambda: grants.take(by=boss, person=boss, role="administrator", reason="x"),
        lambda: accounts.deactivate(by=boss, person=boss, reason="x"),
        lambda: accounts.invite(by=boss, person=boss, reason="x"),
    ):
        with pytest.raises(Refused, match="your own account"):
            change()


def test_who_was_given_a_role_lately_by_whom_is_known() -> None:
    boss, user, other = made("Bea", "administrator"), made(), made("Cleo")
    now = timezone.now()
    grants.give(by=boss, person=user, role="sre", reason="x")
    grants.take(by=boss, person=user, role="sre", reason="taken again at once")
    assert grants.granted_within(boss, user, 24)
    assert not grants.granted_within(user, boss, 24)
    assert not grants.granted_within(boss, other, 24)
    assert not grants.granted_within(boss, user, 24, now + timedelta(hours=25))
    assert grants.granted_within(boss, user, 24, now + timedelta(hours=23))


def test_a_deactivated_person_loses_tokens_and_password_and_keeps_roles() -> None:
    user = made("Ada", "sre")
    user.set_password("a-password-for-tests")
    user.save()
    tokens.create(by=user, days=1, reason="x")
    accounts.deactivate(by=SHELL, person=user, reason="Left.")
    user = User.objects.get(pk=user.pk)
    assert not user.is_active
    assert not user.has_usable_password()
    assert not tokens.living(user).exists()
    assert [held.role for held in review.one(user).roles] == ["sre"]
    with pytest.raises(Refused, match="deactivated"):
        grants.give(by=SHELL, person=user, role="auditor", reason="x")
    accounts.activate(by=SHELL, person=user, reason="Came back.")
    assert User.objects.get(pk=user.pk).is_active


def test_a_link_sets_a_password_once() -> None:
    user = made()
    link = accounts.invite(by=SHELL, person=user, reason="x")
    assert accounts.invited(link) == user
    with pytest.raises(Refused, match="too short"):
        accounts.choose_password(link, "short")
    accounts.choose_password(link, "four-words-in-a-row")
    assert User.objects.get(pk=user.pk).check_password("four-words-in-a-row")
    assert (last().action, last().actor_login) == ("person.password", "ada@example.org")
    assert accounts.invited(link) is None
    with pytest.raises(Refused, match="does not work"):
        accounts.choose_password(link, "other-words-in-a-row")


@pytest.mark.parametrize("person", ["", "x", "MQ" * 40, "LTE", "//", "é"])
def test_a_made_up_link_is_for_nobody(person: str) -> None:
    made()
    assert accounts.invited(accounts.Invitation(person, "a-b")) is None


def test_a_link_does_not_outlive_its_person() -> None:
    user = made()
    link = accounts.invite(by=SHELL, person=user, reason="x")
    accounts.deactivate(by=SHELL, person=user, reason="Left.")
    assert accounts.invited(link) is None


def test_a_review_keeps_what_was_seen() -> None:
    boss = made("Bea", "administrator")
    made("Ada", "sre", "auditor")
    entry = review.record(by=boss, reason="All still here.")
    assert review.last() == entry
    assert entry.after["people"][0] == {
        "login": "ada@example.org",
        "active": True,
        "everything": False,
        "roles": ["sre", "auditor"],
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "change",
    [
        lambda user: User.objects.create(username="eve@example.org"),
        lambda user: User.objects.filter(pk=user.pk).update(is_superuser=True),
        lambda user: User.objects.filter(pk=user.pk).update(is_staff=True),
        lambda user: User.objects.filter(pk=user.pk).update(is_active=False),
        lambda user: User.objects.filter(pk=user.pk).update(username="eve@example.org"),
        lambda user: user.groups.add(Group.objects.get(name="policy_admin")),
        lambda user: user.groups.clear(),
        lambda user: user.user_permissions.add(Permission.objects.get(codename="engage_switch")),
        lambda user: _sql("UPDATE auth_user_groups SET group_id = group_id + 1"),
        lambda user: _sql("UPDATE control_grant SET taken_at = now() WHERE taken_at IS NULL"),
        lambda user: _sql(
            "INSERT INTO control_grant (person_id, role, by, by_login, at, reason, taken_by,"
            " taken_login) SELECT id, 'king', '', '', now(), 'x', '', '' FROM auth_user LIMIT 1"
        ),
    ],
)
def test_no_change_of_people_or_roles_commits_without_an_entry(change) -> None:
    roles.ensure()
    user = made("Ada", "sre")
    with pytest.raises(IntegrityError, match="no entry in the audit log"):
        change(user)


@pytest.mark.django_db(transaction=True)
def test_what_django_writes_at_sign_in_needs_no_entry() -> None:
    roles.ensure()
    user = made("Ada", "sre")
    user.last_login = timezone.now()
    user.save(update_fields=["last_login"])
    user.set_password("hashed-anew")
    user.save(update_fields=["password"])
    assert User.objects.get(pk=user.pk).check_password("hashed-anew")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE control_grant SET granted_by_id = person_id",
        "UPDATE control_grant SET at = now() - interval '2 days'",
        "UPDATE control_grant SET taken_at = now(), role = 'auditor'",
        "DELETE FROM control_grant",
        "TRUNCATE control_grant",
        "TRUNCATE auth_user_groups",
        "TRUNCATE auth_user CASCADE",
    ],
)
def test_a_grant_is_fixed_even_with_an_entry(sql: str) -> None:
    made("Ada", "sre")
    with pytest.raises(DatabaseError), transaction.atomic():
        _sql(sql)


def test_a_taken_grant_is_not_opened_again() -> None:
    user = made("Ada", "sre")
    grants.take(by=SHELL, person=user, role="sre", reason="x")
    with pytest.raises(DatabaseError, match="is fixed"), transaction.atomic():
        _sql("UPDATE control_grant SET taken_at = NULL")


def _sql(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)
