from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.urls import reverse

from console.frame import roles
from control.audit.actors import SYSTEM
from control.people import accounts
from tests.database import as_owner
from tests.pages import shown


def test_every_permission_of_every_role_exists(db) -> None:
    assert roles.ensure() == []


def test_migrating_makes_the_roles(db) -> None:
    assert set(Group.objects.values_list("name", flat=True)) == set(roles.PERMISSIONS)
    assert Group.objects.get(name="sre").permissions.filter(codename="engage_switch").exists()


def test_a_role_has_exactly_its_permissions(db) -> None:
    auditor = Group.objects.get(name="auditor")
    with as_owner():
        auditor.permissions.add(Permission.objects.get(codename="engage_switch"))
        roles.ensure()
    assert not auditor.permissions.filter(codename="engage_switch").exists()


def test_the_auditor_changes_nothing(db) -> None:
    names = {name.partition(".")[2] for name in roles.PERMISSIONS["auditor"]}
    assert all(name.startswith("view_") for name in names)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("support", False),
        ("sre", True),
        ("ml_owner", False),
        ("policy_admin", True),
        ("auditor", False),
        ("administrator", False),
    ],
)
def test_who_may_flip_a_switch(person, role: str, may: bool) -> None:
    assert person(role).has_perm("control.engage_switch") is may


def test_a_disabled_button_names_who_can() -> None:
    assert roles.who_can("control.engage_switch") == "SRE or Policy admin can do this"
    assert roles.who_can("control.launch_rocket") == "No role can do this"


def test_the_administrator_may_do_nothing_but_manage_people(person) -> None:
    assert person("administrator").get_all_permissions() == {
        "control.manage_people",
        "control.view_people",
        "control.review_access",
    }


def test_the_administrators_home_is_the_page_of_people(signed_in) -> None:
    client = signed_in("administrator")
    assert client.get(reverse("home"))["Location"] == reverse("people")
    assert client.get(reverse("lookup")).status_code == 403
    assert "Lookup" not in shown(client.get(reverse("people"))).split("<main")[0]


@pytest.mark.parametrize("role", [one for one in roles.PERMISSIONS if one != "administrator"])
def test_every_role_reads_home(signed_in, role: str) -> None:
    page = signed_in(role).get(reverse("home"))
    assert page.status_code == 200
    assert f"Mara Lindqvist, {roles.ROLE_LABELS[role]}" in shown(page)


@pytest.mark.parametrize("name", ["home", "ui-home-mix"])
def test_someone_without_a_role_is_told_so(signed_in, name: str) -> None:
    answer = signed_in("").get(reverse(name))
    assert answer.status_code == 403
    assert "Not for your role" in shown(answer)


@pytest.mark.parametrize("name", ["home", "ui-home-mix", "ui-strip", "lookup", "switches"])
def test_every_page_requires_sign_in(client, db, name: str) -> None:
    assert client.get(reverse(name))["Location"].startswith("/login?next=")


def test_only_those_who_may_are_offered_to_flip_a_switch(signed_in) -> None:
    assert "Engage or clear a kill switch" in shown(signed_in("sre").get("/"))
    assert "Engage or clear a kill switch" not in shown(signed_in("auditor").get("/"))


def test_the_demo_has_one_person_per_role_and_one_password(db, installation) -> None:
    out = StringIO()
    call_command("demo_users", stdout=out)
    call_command("demo_users", stdout=out)
    password = (installation / "keys" / "demo-password").read_text().strip()
    assert User.objects.count() == len(roles.PERMISSIONS)
    assert out.getvalue().count(password) == 2
    for person in roles.DEMO_PEOPLE:
        user = User.objects.get(username=person.email)
        assert user.check_password(password)
        assert [group.name for group in user.groups.all()] == [person.role]
    assert (installation / "keys" / "demo-password").stat().st_mode & 0o77 == 0


def test_the_demo_leaves_somebody_who_was_deactivated_alone(db, installation) -> None:
    call_command("demo_users", stdout=StringIO())
    user = User.objects.get(username=roles.DEMO_PEOPLE[0].email)
    accounts.deactivate(by=SYSTEM, person=user, reason="Real people sign in now.")
    call_command("demo_users", stdout=StringIO())
    user.refresh_from_db()
    assert not user.is_active
    assert not user.has_usable_password()
