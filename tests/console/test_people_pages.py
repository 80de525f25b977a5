"""The pages and the REST operations of people and roles, the command, and the link."""

from __future__ import annotations

import csv
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from control.models import AuditEntry, Grant
from tests.console.conftest import PASSWORD
from tests.pages import shown


@pytest.fixture
def boss(signed_in) -> Client:
    """A browser signed in as an administrator."""
    return signed_in("administrator")


def make(boss: Client, **fields: str):
    given = {"email": "ada@example.org", "first": "Ada", "last": "Byron", "reason": "New on call."}
    return boss.post(reverse("people"), given | fields)


def change(boss: Client, user: User, what: str, role: str = "", reason: str = "As agreed."):
    given = {"what": what, "role": role, "reason": reason}
    return boss.post(reverse("person-change", args=[user.pk]), given)


def test_an_administrator_makes_a_person_and_gives_a_role(boss) -> None:
    answer = make(boss)
    ada = User.objects.get(username="ada@example.org")
    assert answer["Location"] == reverse("person", args=[ada.pk])
    assert "Ada Byron has no role" in shown(boss.get(answer["Location"]))
    assert change(boss, ada, "give", "sre").status_code == 302
    page = shown(boss.get(answer["Location"]))
    assert "Ada Byron is SRE" in page
    assert "As agreed." in page
    assert Grant.objects.get().granted_by.username == "administrator@example.org"
    assert "Mara Lindqvist" in shown(boss.get(reverse("people")))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"email": "nonsense"}, "That is no email address."),
        ({"email": "administrator@example.org"}, "Somebody signs in as"),
        ({"first": ""}, "Give a first name."),
        ({"reason": ""}, "Say why they need an account."),
    ],
)
def test_a_wrong_field_is_explained_and_nobody_is_made(boss, fields, said: str) -> None:
    answer = make(boss, **fields)
    assert answer.status_code == 422
    assert said in shown(answer)
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    ("what", "role", "reason", "said"),
    [
        ("give", "", "x", "Choose a role."),
        ("give", "king", "x", "Select a valid choice"),
        ("give", "sre", "", "Give a reason"),
        ("take", "sre", "x", "does not have the role"),
        ("activate", "", "x", "is active"),
        ("crown", "", "x", ""),
    ],
)
def test_a_change_that_is_not_possible_says_why(boss, person, what, role, reason, said) -> None:
    user = person("support")
    before = AuditEntry.objects.count()
    answer = change(boss, user, what, role, reason)
    assert answer.status_code == 422
    assert said in shown(answer)
    assert AuditEntry.objects.count() == before


@pytest.mark.parametrize("role", ["support", "sre", "ml_owner"])
def test_other_roles_see_nobody(signed_in, role: str) -> None:
    client = signed_in(role)
    for name in ("people", "people-export", "api-people"):
        assert client.get(reverse(name)).status_code == 403


@pytest.mark.parametrize("role", ["auditor", "policy_admin"])
def test_those_who_review_see_everyone_and_change_nobody(signed_in, person, role: str) -> None:
    client, user = signed_in(role), person("support")
    assert client.get(reverse("people")).status_code == 200
    assert "Administrator can do this" in shown(client.get(reverse("person", args=[user.pk])))
    assert make(client).status_code == 403
    assert change(client, user, "give", "sre").status_code == 403
    review = client.post(reverse("people-review"), {"reason": "Looked."})
    assert review.status_code == (302 if role == "policy_admin" else 403)


def test_an_administrator_cannot_raise_themself(boss) -> None:
    me = User.objects.get()
    assert "your own account" in shown(boss.get(reverse("person", args=[me.pk])))
    answer = change(boss, me, "give", "policy_admin")
    assert answer.status_code == 422
    assert not User.objects.get().has_perm("control.engage_switch")


def test_deactivating_ends_a_session_at_once_and_for_good(boss, signed_in) -> None:
    theirs = signed_in("sre")
    user = User.objects.get(username="sre@example.org")
    assert theirs.get(reverse("home")).status_code == 200
    change(boss, user, "deactivate")
    assert theirs.get(reverse("home"))["Location"].startswith("/login")
    assert "is deactivated" in shown(boss.get(reverse("person", args=[user.pk])))
    change(boss, user, "activate")
    assert theirs.get(reverse("home"))["Location"].startswith("/login")


def test_a_link_is_shown_once_and_leads_to_a_password(boss, caplog) -> None:
    make(boss)
    ada = User.objects.get(username="ada@example.org")
    page = shown(change(boss, ada, "link"))
    link = page.split('id="new-link"')[1].split("http://testserver")[1].split("<")[0]
    assert link not in shown(boss.get(reverse("person", args=[ada.pk])))
    stranger = Client()
    here = stranger.get(link)["Location"]
    assert "Choose a password" in shown(stranger.get(here))
    wrong = stranger.post(here, {"password": PASSWORD, "again": "other"})
    assert (wrong.status_code, "not the same" in shown(wrong)) == (422, True)
    assert stranger.post(here, {"password": "short", "again": "short"}).status_code == 422
    long = "x" * 2_000
    assert stranger.post(here, {"password": long, "again": long}).status_code == 422
    assert here in caplog.text
    assert link not in caplog.text
    done = stranger.post(here, {"password": PASSWORD, "again": PASSWORD})
    assert done["Location"] == reverse("login")
    assert "Your password is set." in shown(stranger.get(reverse("login")))
    assert stranger.get(here).status_code == 404
    again = stranger.get(link)
    assert (again.status_code, "does not work" in shown(again)) == (404, True)
    signed = stranger.post(reverse("login"), {"email": "ada@example.org", "password": PASSWORD})
    assert signed.status_code == 302


def test_a_review_is_recorded_and_shown(boss) -> None:
    assert "Nobody has reviewed" in shown(boss.get(reverse("people")))
    boss.post(reverse("people-review"), {"reason": "All still work here."})
    page = shown(boss.get(reverse("people")))
    assert "Last reviewed by Mara Lindqvist" in page
    assert "All still work here." in page
    boss.post(reverse("people-review"), {"reason": " "})
    assert AuditEntry.objects.filter(action="access.review").count() == 1


def test_the_export_names_who_gave_each_role(boss, person) -> None:
    change(boss, person("support"), "give", "sre", reason="=HYPERLINK(1)")
    answer = boss.get(reverse("people-export"))
    rows = list(csv.DictReader(StringIO(answer.content.decode())))
    given = next(row for row in rows if row["role"] == "sre")
    assert given["login"] == "support@example.org"
    assert given["given by"] == "Mara Lindqvist"
    assert given["reason"] == "'=HYPERLINK(1)"
    assert AuditEntry.objects.filter(action="access.export").count() == 1


def test_a_person_who_does_not_exist_is_not_found(boss) -> None:
    for number in (999_999, 1 << 80):
        assert boss.get(reverse("person", args=[number])).status_code == 404
        assert boss.get(reverse("api-person", args=[number])).status_code == 404


def test_everything_is_possible_over_rest(boss) -> None:
    def post(name: str, *args: int, **body: str):
        return boss.post(reverse(name, args=args), body, content_type="application/json")

    made = post("api-people", email="a@example.org", first="Ada", last="Byron", reason="New.")
    assert made.status_code == 201
    number = made.json()["number"]
    given = post("api-role-give", number, role="sre", reason="On call.")
    assert [held["role"] for held in given.json()["roles"]] == ["sre"]
    assert given.json()["roles"][0]["by"] == "Mara Lindqvist"
    assert post("api-role-give", number, role="sre", reason="Again.").status_code == 409
    assert post("api-role-take", number, role="sre", reason="Over.").json()["roles"] == []
    assert post("api-person-deactivate", number, reason="Left.").json()["active"] is False
    assert post("api-person-activate", number, reason="Back.").json()["active"] is True
    assert boss.get(reverse("api-person", args=[number])).json()["name"] == "Ada Byron"
    assert len(boss.get(reverse("api-people")).json()) == 2


def run(*words: str) -> str:
    out = StringIO()
    call_command("person", *words, stdout=out)
    return out.getvalue()


def test_the_command_makes_the_first_person(db) -> None:
    said = run(
        *(
            "make",
            "Ada@example.org",
            "--first",
            "Ada",
            "--last",
            "Byron",
            "--role",
            "administrator",
        ),
        *("--reason", "First person", "--console", "https://console.example/"),
    )
    link = said.split("https://console.example")[1].strip()
    stranger = Client()
    here = stranger.get(link)["Location"]
    assert stranger.post(here, {"password": PASSWORD, "again": PASSWORD}).status_code == 302
    ada = {"email": "ada@example.org", "password": PASSWORD}
    assert stranger.post(reverse("login"), ada).status_code == 302
    assert stranger.get(reverse("people")).status_code == 200
    assert AuditEntry.objects.get(action="role.give").actor_role == "Shell"


def test_the_command_changes_and_lists_people(person) -> None:
    user = person("support")
    run("give", user.username, "sre", "--reason", "On call")
    run("take", user.username, "support", "--reason", "Changed teams")
    assert "support@example.org  Mara Lindqvist: SRE; last sign-in never" in run("list")
    run("deactivate", user.username, "--reason", "Left")
    assert "SRE, deactivated" in run("list")
    run("activate", user.username, "--reason", "Back")
    assert "/invitation/" in run("link", user.username, "--reason", "Forgot it")


def test_the_command_says_what_is_wrong(person) -> None:
    with pytest.raises(CommandError, match="Nobody signs in as"):
        run("give", "nobody@example.org", "sre", "--reason", "x")
    person("support")
    with pytest.raises(CommandError, match="has the role Support already"):
        run("give", "support@example.org", "support", "--reason", "x")
