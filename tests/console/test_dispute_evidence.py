"""The page of a dispute shows the evidence before anyone gives a verdict that cannot be changed."""

from __future__ import annotations

import re
import time
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from console.pages.decision import page as decision_page
from control.audit.actors import Actor
from control.models import Look
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import REASONS, Action, Reason, Stage
from decisions.models import Decision, Dispute, DroppedDay, Outcome
from decisions.outcomes import disputes
from tests.database import as_owner
from tests.decisions.factory import event
from tests.decisions.outcome_rows import stored_outcome, stored_verdict
from tests.pages import shown

APP = "app_7q2m4kx9"
FOUND = {"verdict": "uphold", "reason": "It was announced on Monday"}
NASTY = "</p><script>alert(1)</script><img src=x onerror=alert(2)>"
pytestmark = pytest.mark.django_db


@pytest.fixture
def decision(stored) -> Decision:
    """A stored refusal that was kept 1 in 4."""
    made = event(inclusion_probability=0.25, at=time.time() - 600)
    stored([made])
    return Decision.objects.get(id=uuid.UUID(bytes=made.id))


def opened(d: Decision, **more: str) -> Dispute:
    usual = {"reason": "The batch was announced", "ticket": "SUP-1"}
    return disputes.open_dispute(
        d, by=Actor("Olu Ade", "olu@example.org", "Support"), **(usual | more)
    )


def page_of(client: Client, dispute: Dispute) -> str:
    answer = client.get(reverse("dispute", args=[dispute.pk]))
    assert answer.status_code == 200
    return shown(answer)


def headings(page: str) -> list[str]:
    """The headings in the order of the page, as a screen reader lists them."""
    found = re.findall(r"<h([1-3])[^>]*>(.*?)</h\1>", page, re.DOTALL)
    return [re.sub(r"<[^>]+>|\s+", " ", text).strip() for _, text in found]


def test_everything_that_a_judge_needs_stands_above_the_verdict(signed_in, known, decision) -> None:
    page = page_of(signed_in("sre"), opened(decision))
    found = headings(page)
    order = [
        "Olu Ade says that a refusal of Order sync was wrong",
        "What happened",
        "What is claimed",
        "Why",
        "What would have changed it",
        "Order sync, two minutes either side",
        "How often Order sync was refused",
        "Other disputes of Order sync",
        "What was reported about Order sync",
        "Compared with peers of that hour",
        "Verdict",
    ]
    assert [text for text in found if text in order] == order
    assert page.index('id="h-judge"') < page.index('id="verdict-form"')
    assert page.count("<h1") == 1
    assert "HTTP 429" in page
    assert "The batch was announced" in page
    assert "ticket SUP-1" in page
    assert f'href="{reverse("decision", args=[decision.name])}"' in page
    assert Look.objects.filter(app=APP, what__startswith="dispute ").exists()


def test_an_explanation_that_is_not_there_yet_is_asked_for(
    signed_in, decision, monkeypatch
) -> None:
    monkeypatch.setattr(decision_page, "explained", lambda _: decision_page.Explained("pending"))
    shown_page = page_of(signed_in("sre"), opened(decision))
    assert f'hx-get="{reverse("ui-explanation", args=[decision.name])}?n=0"' in shown_page
    # what comes back puts itself into these
    assert 'id="why"' in shown_page
    assert 'id="shap"' in shown_page


def test_the_consequence_stands_beside_the_button(signed_in, decision) -> None:
    page = page_of(signed_in("sre"), opened(decision))
    assert 'aria-describedby="ve-means"' in page
    means = page.partition('id="ve-means"')[2].partition("</p>")[0]
    assert "A verdict can never be changed" in means
    assert "counts as 4 refusals in the false-throttle rate" in re.sub(r"\s+", " ", means)
    assert "90 days" in means


@pytest.mark.parametrize(
    ("role", "decides"),
    [
        ("support", False),
        ("sre", True),
        ("ml_owner", True),
        ("policy_admin", True),
        ("auditor", False),
    ],
)
def test_every_role_reads_the_evidence_and_three_decide(signed_in, decision, role, decides) -> None:
    dispute, client = opened(decision), signed_in(role)
    page = page_of(client, dispute)
    assert "What would have changed it" in page
    assert ('id="verdict-form"' in page, "Keep the verdict" in page) == (decides, decides)
    assert ("SRE, ML owner or Policy admin can do this." in page) is not decides
    done = client.post(reverse("dispute", args=[dispute.pk]), FOUND)
    assert done.status_code == (302 if decides else 403)
    assert Outcome.objects.exists() is decides


def test_who_opened_it_reads_why_they_may_not_judge(signed_in, decision) -> None:
    admin = signed_in("policy_admin")
    url = reverse("dispute-open", args=[decision.name])
    admin.post(url, {"reason": "The batch was announced", "ticket": ""})
    page = page_of(admin, Dispute.objects.get())
    assert "You opened it, so someone else decides it." in page
    assert 'id="verdict-form"' not in page
    assert "What would have changed it" in page


def test_a_decided_dispute_shows_its_verdict_and_no_form(signed_in, decision) -> None:
    dispute, client = opened(decision), signed_in("sre")
    client.post(reverse("dispute", args=[dispute.pk]), FOUND)
    page = page_of(client, dispute)
    assert "Upheld: false throttle, by Mara Lindqvist" in page
    assert "It was announced on Monday" in page
    assert 'id="verdict-form"' not in page
    assert "What would have changed it" in page


def test_a_record_that_was_dropped_says_when_and_what_is_left(signed_in, decision) -> None:
    dispute = opened(decision)
    with as_owner():
        Decision.objects.all().delete()
        DroppedDay.objects.create(
            name=f"decisions_decision_{decision.at:%Y%m%d}",
            day=decision.at.date(),
            rows=1,
            size=1,
            why="age",
            dropped_at=timezone.now(),
        )
    page = page_of(signed_in("sre"), dispute)
    assert "was dropped on" in page
    assert "for its age" in page
    assert "What would have changed it" not in page
    assert f"<dd>{escape(REASONS[Reason.RISK_HIGH].text)}</dd>" in page
    assert "The batch was announced" in page
    # the verdict is still possible: the dispute kept what counts
    assert 'id="verdict-form"' in page


def test_a_record_that_is_nowhere_says_so(signed_in, decision) -> None:
    dispute = opened(decision)
    with as_owner():
        Decision.objects.all().delete()
    page = page_of(signed_in("sre"), dispute)
    assert "The record of this decision is not stored" in page
    assert f'href="{reverse("decision", args=[decision.name])}"' not in page


def test_the_history_counts_refusals_by_cause_and_time(signed_in, stored) -> None:
    now = time.time()
    burst = {"reason": int(Reason.BURST_EXHAUSTED), "stage": int(Stage.TRIAGE)}
    made = event(at=now - 5 * 86_400, inclusion_probability=1.0)
    stored(
        [
            made,
            event(at=now - 5 * 86_400 - 60, inclusion_probability=1.0),
            event(at=now - 60, inclusion_probability=1.0, **burst),
            event(at=now - 60, inclusion_probability=1.0, action=int(Action.ADMIT)),
            event(at=now - 60, inclusion_probability=1.0, observed=True),
            event(at=now - 60, inclusion_probability=1.0, app="app_other"),
            event(at=now - 9 * 86_400, inclusion_probability=1.0),
        ]
    )
    d = Decision.objects.get(id=uuid.UUID(bytes=made.id))
    page = page_of(signed_in("sre"), opened(d))
    rows = re.findall(r'<tr role="row">\s*<td role="cell">(.*?)</tr>', page, re.DOTALL)
    said = [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).split() for row in rows]
    assert [words[-3:] for words in said] == [["2", "0", "2"], ["0", "1", "1"]]
    assert "Risk too high" in " ".join(said[0])
    assert "Burst used up" in " ".join(said[1])


def test_the_history_shows_the_apps_other_disputes_and_outcomes(
    signed_in, stored, decision
) -> None:
    ago = timezone.now() - timedelta(days=1)
    stored_verdict(APP, ago)
    stored_outcome(app=APP, kind="fraud_confirmed", occurred_at=ago, note="PAY-812")
    stored_outcome(app="app_other", kind="chargeback", occurred_at=ago, note="PAY-999")
    page = page_of(signed_in("sre"), opened(decision))
    assert re.search(r"1 in all, 1\s+refusal found wrong in 90 d", page)
    assert "Fraud confirmed" in page
    assert "PAY-812" in page
    assert "PAY-999" not in page


def test_an_app_of_which_nothing_else_is_known(signed_in, decision) -> None:
    dispute = opened(decision)
    with as_owner():
        Decision.objects.all().delete()
    page = page_of(signed_in("sre"), dispute)
    assert "None is stored" in page
    assert "This is its only dispute." in page
    assert "No fraud, chargeback, incident or verdict." in page


def test_words_of_people_are_text(signed_in, decision) -> None:
    dispute = opened(decision, reason=NASTY, ticket="<b>T</b>")
    stored_outcome(app=APP, note=NASTY)
    page = page_of(signed_in("sre"), dispute)
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "<b>T</b>" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 2
    back = signed_in_again(dispute, {"verdict": NASTY, "reason": NASTY})
    assert "<script>alert(1)" not in shown(back)


def signed_in_again(dispute: Dispute, given: dict[str, str]):
    """Post a verdict as another person who may decide."""
    from django.contrib.auth.models import Group, User

    user = User.objects.create(username="dele@example.org")
    user.groups.add(Group.objects.get(name="sre"))
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client.post(reverse("dispute", args=[dispute.pk]), given)


def test_a_verdict_with_mistakes_comes_back_with_all_the_evidence(signed_in, decision) -> None:
    dispute = opened(decision)
    back = signed_in("sre").post(
        reverse("dispute", args=[dispute.pk]), {"verdict": "uphold", "reason": ""}
    )
    page = shown(back)
    assert back.status_code == 422
    assert "Say what you found" in page
    assert "What would have changed it" in page
    assert re.search(r'value="uphold"\s+checked', page)


def test_the_old_sheet_leads_to_the_page(signed_in, decision) -> None:
    url = reverse("dispute", args=[opened(decision).pk])
    answer = signed_in("sre").get(url, HTTP_HX_REQUEST="true")
    assert answer["HX-Redirect"] == url


def test_who_may_see_disputes_but_no_decisions_sees_no_evidence(person, decision) -> None:
    user = person("")
    user.user_permissions.add(Permission.objects.get(codename="view_dispute"))
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    page = page_of(client, opened(decision))
    assert "You may not see decisions." in page
    for hidden in ("What would have changed it", "How often", "What was reported about"):
        assert hidden not in page


def test_the_api_leads_from_a_dispute_to_its_evidence(signed_in, decision) -> None:
    client = signed_in("sre")
    links = client.get(f"/api/v1/disputes/{opened(decision).pk}").json()["links"]
    assert set(links) == {"decision", "explanation", "counterfactual", "app"}
    assert links["decision"] == f"/api/v1/decisions/{format_decision_id(decision.id.bytes)}"
    assert {name: client.get(address).status_code for name, address in links.items()} == {
        "decision": 200,
        "explanation": 200,
        "counterfactual": 200,
        "app": 200,
    }
