"""Saying that a refusal was wrong, the queue, and the verdict, as pages for every role, with script
and without.
"""

from __future__ import annotations

import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.frame import roles
from control.audit.actors import Actor
from control.models import AuditEntry, Look
from decider.contracts.ids import format_decision_id
from decisions.models import Decision, Dispute, Outcome
from decisions.outcomes import disputes
from tests.decisions.factory import event, unranked
from tests.pages import shown

pytestmark = pytest.mark.django_db
HTMX = {"HTTP_HX_REQUEST": "true"}
CLAIM = {"reason": "The customer announced this batch", "ticket": "SUP-48121"}
FOUND = {"verdict": "uphold", "reason": "It was announced on Monday"}


@pytest.fixture(autouse=True)
def groups(db) -> None:
    roles.ensure()


def signed_in(role: str, name: str = "Mara Lindqvist") -> Client:
    first, _, last = name.partition(" ")
    user, _ = User.objects.get_or_create(
        username=f"{first.lower()}@example.org", first_name=first, last_name=last
    )
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def refused(stored) -> str:
    """The id of a stored refusal."""
    made = event(inclusion_probability=0.25)
    stored([made])
    return format_decision_id(made.id)


def opened(decision: str, **fields) -> Dispute:
    d = Decision.objects.get(id=uuid.UUID(decision.removeprefix("dec_")))
    made = disputes.open_dispute(
        d,
        by=Actor("Olu Ade", "olu@example.org", "Support"),
        reason="<b>It was</b> announced",
        ticket="SUP-1",
    )
    Dispute.objects.filter(pk=made.pk).update(**fields)
    return made


def body(response) -> str:
    return shown(response)


def test_support_opens_a_dispute_from_the_sheet(refused) -> None:
    support = signed_in("support")
    page = body(support.get(reverse("decision", args=[refused])))
    assert re.search(r'<a class="btn btn-primary"[^>]*data-key="f"[^>]*>', page)
    sheet = support.get(reverse("dispute-open", args=[refused]), **HTMX)
    assert (sheet.status_code, "<html" in body(sheet), sheet["Vary"]) == (
        200,
        False,
        "HX-Request, Cookie",
    )
    done = support.post(reverse("dispute-open", args=[refused]), CLAIM, **HTMX)
    assert done["HX-Redirect"] == reverse("decision", args=[refused])
    assert Dispute.objects.get().claim == CLAIM["reason"]
    assert AuditEntry.objects.get(action="dispute.open").actor_role == "Support"
    assert Look.objects.filter(what__contains="to dispute it").count() == 1
    page = body(support.get(reverse("decision", args=[refused])))
    assert "The dispute is open. A second person decides it." in page
    assert "Mara Lindqvist: The customer announced this batch" in page
    assert "This was wrong" not in page.partition("What came later")[0]


def test_without_script_the_dispute_is_a_page_of_its_own(refused) -> None:
    support = signed_in("support")
    assert "<h1>Say that this refusal was wrong</h1>" in body(
        support.get(reverse("dispute-open", args=[refused]))
    )
    done = support.post(reverse("dispute-open", args=[refused]), CLAIM)
    assert (done.status_code, done["Location"]) == (302, reverse("decision", args=[refused]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reason": " "}, "Say how you know that it was wrong"),
        ({"reason": "x" * 1001}, "at most 1000 characters"),
        ({"ticket": "x" * 101}, "at most 100 characters"),
    ],
)
def test_a_wrong_answer_comes_back_in_the_sheet_escaped(refused, change, says) -> None:
    back = signed_in("support").post(
        reverse("dispute-open", args=[refused]), CLAIM | {"ticket": '"><script>'} | change, **HTMX
    )
    assert (back.status_code, says in body(back), "<script>" in body(back)) == (422, True, False)
    assert not Dispute.objects.exists()


def test_a_second_dispute_about_the_same_refusal_is_told_of_the_first(refused) -> None:
    opened(refused)
    back = signed_in("support").post(reverse("dispute-open", args=[refused]), CLAIM, **HTMX)
    assert (back.status_code, "Olu Ade has opened a dispute" in body(back)) == (422, True)


def test_the_auditor_reads_and_opens_nothing(refused) -> None:
    auditor = signed_in("auditor")
    page = body(auditor.get(reverse("decision", args=[refused])))
    assert re.search(
        r'<button class="btn" type="button" disabled aria-describedby="who-disputes">', page
    )
    assert "Support, SRE, ML owner or Policy admin can do this" in page
    url = reverse("dispute-open", args=[refused])
    assert (auditor.get(url).status_code, auditor.post(url, CLAIM).status_code) == (403, 403)
    number = opened(refused).pk
    assert auditor.get(reverse("dispute", args=[number])).status_code == 200
    assert auditor.post(reverse("dispute", args=[number]), FOUND).status_code == 403
    assert not Outcome.objects.exists()


def test_an_admit_offers_no_dispute(stored) -> None:
    made = unranked()
    stored([made])
    url = reverse("dispute-open", args=[format_decision_id(made.id)])
    page = body(signed_in("support").get(reverse("decision", args=[format_decision_id(made.id)])))
    assert "This was wrong" not in page
    assert "there is no refusal to dispute" in body(signed_in("support").post(url, CLAIM))


def test_a_second_person_decides_and_the_verdict_is_on_the_page_of_the_decision(refused) -> None:
    number = opened(refused).pk
    admin = signed_in("policy_admin", "Priya Raman")
    queue = body(admin.get(reverse("disputes")))
    assert re.search(
        r"<h1>1 dispute waits for a second person, the oldest for [\d.]+ s</h1>", queue
    )
    assert "&lt;b&gt;It was&lt;/b&gt; announced" in queue
    assert re.search(rf'href="/disputes/{number}"[^>]*>Read and decide</a>', queue)
    assert '1<span class="sr"> open</span>' in queue
    page = body(admin.get(reverse("dispute", args=[number])))
    assert "Keep the verdict" in page
    done = admin.post(reverse("dispute", args=[number]), FOUND)
    assert done["Location"] == reverse("disputes")
    assert Outcome.objects.get().weight == 4.0
    assert "The verdict is kept: upheld: false throttle." in body(admin.get(reverse("disputes")))
    page = body(admin.get(reverse("decision", args=[refused])))
    assert "Priya Raman: It was announced on Monday" in page
    assert "False throttle, this decision" not in page
    assert "Keep the verdict" not in body(admin.get(reverse("dispute", args=[number])))
    assert "A refusal of app_7q2m4kx9 was found wrong" in body(
        admin.get(reverse("dispute", args=[number]))
    )


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("support", False),
        ("sre", True),
        ("ml_owner", True),
        ("policy_admin", True),
        ("auditor", False),
    ],
)
def test_who_may_decide_is_the_same_for_the_button_and_the_endpoint(
    refused, role: str, may: bool
) -> None:
    number = opened(refused).pk
    client = signed_in(role)
    assert ("Read and decide" in body(client.get(reverse("disputes")))) is may
    assert ("Keep the verdict" in body(client.get(reverse("dispute", args=[number])))) is may
    assert client.post(reverse("dispute", args=[number]), FOUND).status_code == (
        302 if may else 403
    )
    assert Outcome.objects.exists() is may


def test_the_opener_is_told_that_someone_else_decides(refused) -> None:
    admin = signed_in("policy_admin", "Priya Raman")
    admin.post(reverse("dispute-open", args=[refused]), CLAIM)
    url = reverse("dispute", args=[Dispute.objects.get().pk])
    page = body(admin.get(url))
    assert "You opened it, so someone else decides it." in page
    assert "Keep the verdict" not in page
    assert "Read and decide" not in body(admin.get(reverse("disputes")))
    back = admin.post(url, FOUND)
    assert (back.status_code, "You opened this dispute" in body(back)) == (422, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verdict": ""}, "Say whether it was wrong"),
        ({"verdict": "maybe"}, "Say whether"),
        ({"reason": ""}, "Say what you found"),
    ],
)
def test_a_verdict_without_its_parts_comes_back(refused, change, says) -> None:
    number = opened(refused).pk
    back = signed_in("sre").post(reverse("dispute", args=[number]), FOUND | change)
    assert (back.status_code, says in body(back)) == (422, True)
    assert Dispute.objects.get().is_open


def test_the_second_verdict_is_told_of_the_first(refused) -> None:
    number = opened(refused).pk
    signed_in("policy_admin", "Priya Raman").post(reverse("dispute", args=[number]), FOUND)
    back = signed_in("sre", "Dele Okafor").post(
        reverse("dispute", args=[number]), FOUND | {"verdict": "decline"}
    )
    assert (back.status_code, "was decided by Priya Raman: upheld" in body(back)) == (422, True)
    assert Outcome.objects.count() == 1


def test_the_queue_has_ages_filters_counts_and_pages(stored, monkeypatch) -> None:
    events = [event() for _ in range(3)]
    stored(events)
    first, *_ = (opened(format_decision_id(e.id)) for e in events)
    Dispute.objects.filter(pk=first.pk).update(opened_at=timezone.now() - timedelta(hours=27))
    sre = signed_in("sre")
    page = body(sre.get(reverse("disputes")))
    assert "3 disputes wait for a second person, the oldest for 1 d 3 h" in page
    assert page.count("over a day") == 1
    assert page.index("over a day") < page.index("SUP-1")
    monkeypatch.setattr("console.pages.disputes.views.ROWS", 2)
    assert "After" in body(sre.get(reverse("disputes")))
    assert "Before" in body(sre.get(reverse("disputes") + "?page=2"))
    assert "None has been decided yet." in body(sre.get(reverse("disputes") + "?show=decided"))
    assert "You have not opened or decided any." in body(
        sre.get(reverse("disputes") + "?show=mine")
    )
    sre.post(reverse("dispute", args=[first.pk]), FOUND)
    assert "Upheld" in body(sre.get(reverse("disputes") + "?show=decided"))
    assert sre.get(reverse("disputes") + "?show=nonsense").status_code == 400
    assert sre.get(reverse("disputes") + "?page=nonsense").status_code == 200


def test_an_empty_queue_says_what_to_do() -> None:
    page = body(signed_in("support").get(reverse("disputes")))
    assert "<h1>No dispute waits for a verdict</h1>" in page
    assert "No dispute is open." in page


def test_home_asks_for_attention_after_a_day(refused) -> None:
    made = opened(refused)
    assert "waited longer than a day" not in body(signed_in("sre").get("/"))
    Dispute.objects.filter(pk=made.pk).update(opened_at=timezone.now() - timedelta(hours=27))
    page = body(signed_in("sre").get("/"))
    assert re.search(r'href="/disputes">1 dispute has waited longer than a day</a>', page)


def test_what_is_not_there_is_not_found_and_wrong_methods_are_refused(refused) -> None:
    sre = signed_in("sre")
    assert sre.get(reverse("dispute", args=[999])).status_code == 404
    assert sre.get(reverse("dispute-open", args=["dec_12"])).status_code == 404
    assert (
        sre.get(
            reverse("dispute-open", args=["dec_" + "0" * 12 + "7" + "0" * 3 + "8" + "0" * 15])
        ).status_code
        == 404
    )
    assert sre.post(reverse("disputes")).status_code == 405
    assert sre.delete(reverse("dispute-open", args=[refused])).status_code == 405


@pytest.mark.parametrize("name", ["disputes", "outcomes"])
def test_without_a_role_there_is_nothing_and_signed_out_less(name: str) -> None:
    assert signed_in("", "Nobody Here").get(reverse(name)).status_code == 403
    assert Client().get(reverse(name))["Location"].startswith("/login")


def test_a_dispute_without_the_csrf_token_is_refused(refused) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = signed_in("support").cookies
    assert strict.post(reverse("dispute-open", args=[refused]), CLAIM).status_code == 403
