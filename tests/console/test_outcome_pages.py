"""Uploading outcomes: stored as a whole or refused line by line, by role, bounded, and shown
afterwards.
"""

from __future__ import annotations

import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from console.frame import uploads
from control.models import AuditEntry
from decisions.models import Outcome, OutcomeTie
from tests.decisions.factory import event
from tests.pages import shown

pytestmark = pytest.mark.django_db
GOOD = (
    "key,kind,occurred_at,app,note\n"
    "cb-1,chargeback,2026-01-14T09:30:00Z,app_1,<i>x</i>\n"
    "cb-2,churn,2026-01-15T09:30:00Z,app_1,\n"
)
URL = "/outcomes"


def send(client, text: str | bytes = GOOD, **fields):
    data = text if isinstance(text, bytes) else text.encode()
    return client.post(
        URL,
        {"file": SimpleUploadedFile("x.csv", data, "text/csv"), "reason": "October, PAY-812"}
        | fields,
    )


def test_an_upload_is_stored_audited_shown_and_may_be_repeated(signed_in) -> None:
    owner = signed_in("ml_owner")
    assert "None is stored." in shown(owner.get(URL))
    assert send(owner)["Location"] == reverse("outcomes")
    page = shown(owner.get(URL))
    assert "2 outcomes stored." in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert AuditEntry.objects.get().summary == "reported 2 outcomes: 1 chargeback, 1 churn"
    send(owner)
    assert "0 outcomes stored, 2 known already." in shown(owner.get(URL))
    assert Outcome.objects.count() == 2


def test_what_cannot_be_tied_is_counted_listed_and_explained(signed_in, stored) -> None:
    owner = signed_in("ml_owner")
    assert "Every outcome is tied to an app." in shown(owner.get(URL))
    stored([event(app="app_a", request_id="both"), event(app="app_b", request_id="both")])
    header = "key,kind,occurred_at,app,request_id\n"
    when = "2026-01-14T09:30:00Z"
    send(
        owner,
        header
        + f"a,churn,{when},app_1,\nb,churn,{when},,nowhere\nc,churn,{when},,gone\n"
        + f"d,churn,{when},,both\n",
    )
    OutcomeTie.objects.filter(outcome__key="c").update(next_at=None)
    page = re.sub(r"\s+", " ", shown(owner.get(URL)))
    assert "3 outcomes</p>" in page
    assert "Mara Lindqvist, csv" in page
    assert "1 tried again, 1 not found in 30 days, 1 with several apps" in page
    listed = re.sub(r"\s+", " ", shown(owner.get(URL + "?show=unknown")))
    assert "The request is tried again" in listed
    assert "The request was not found in 30 days and stays unknown" in listed
    assert "Not one app alone fits what was reported; tried again" in listed
    assert "/apps/app_1" not in listed.partition("<tbody")[2].partition("</tbody>")[0]
    assert "/apps/app_1" in page
    assert owner.get(URL + "?show=nonsense").status_code == 400


def test_a_reported_verdict_is_refused_in_its_line(signed_in) -> None:
    text = "key,kind,occurred_at,app\na,false_throttle,2026-01-14T09:30:00Z,app_1\n"
    page = shown(send(signed_in("ml_owner"), text))
    assert "Line 2, kind: Only a dispute tells whether a refusal was wrong" in page
    assert not Outcome.objects.exists()


def test_the_page_of_an_app_shows_what_came_later(signed_in) -> None:
    owner = signed_in("ml_owner")
    assert "No fraud, chargeback, incident or wrong refusal was reported" in shown(
        owner.get("/apps/app_1")
    )
    send(owner)
    page = shown(owner.get("/apps/app_1"))
    assert "Chargeback</span>" in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert owner.get("/apps/a%00b").status_code in (200, 404)


def test_a_bad_line_is_named_escaped_and_nothing_is_stored(signed_in) -> None:
    back = send(signed_in("policy_admin"), GOOD + "cb-3,<script>,<b>soon</b>,app_1,=x\n")
    page = shown(back)
    assert back.status_code == 422
    assert "Nothing was stored.</b> 2 things to put right" in page
    assert "Line 4, occurred_at: “&lt;b&gt;soon" in page
    assert "Line 4, note: It begins with “=”" in page
    assert not Outcome.objects.exists()


def test_many_bad_lines_are_counted_and_the_first_shown(signed_in) -> None:
    page = shown(send(signed_in("ml_owner"), GOOD + "x\n" * 120))
    assert "120 things to put right, the first 50 here" in page


def test_a_file_and_a_reason_are_needed(signed_in) -> None:
    owner = signed_in("ml_owner")
    assert "Choose a file." in shown(owner.post(URL, {"reason": "x"}))
    assert "Say where these outcomes are from." in shown(send(owner, reason=""))
    assert "The header lacks key" in shown(send(owner, b""))
    assert not Outcome.objects.exists()


def test_a_file_over_the_bound_is_refused_before_it_is_read(signed_in) -> None:
    owner = signed_in("ml_owner")
    assert "the limit is 2,000,000" in shown(send(owner, b"x" * 2_000_001))
    assert "The file has 3,456,789 bytes" in shown(send(owner, b"x" * 3_456_789))
    over = send(owner, b"x" * 5_000_000)
    assert over.status_code == 400
    size = int(over.wsgi_request.META["CONTENT_LENGTH"])
    assert f"has {size:,} bytes; the limit is {uploads.LARGEST:,}" in shown(over)


@pytest.mark.parametrize("role", ["support", "sre", "auditor"])
def test_who_may_not_report_is_told_who_can(signed_in, role: str) -> None:
    client = signed_in(role)
    page = shown(client.get(URL))
    assert "ML owner or Policy admin can do this" in page
    assert '<input class="input" type="file"' not in page
    assert send(client).status_code == 403
    assert not Outcome.objects.exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "false_throttle", "source": "csv"}, "Does not count"),
        ({"kind": "false_throttle", "source": "dispute"}, "Counts"),
        ({"kind": "churn", "source": "csv"}, "Counts"),
    ],
)
def test_a_verdict_that_no_dispute_gave_is_shown_as_one_that_does_not_count(fields, says) -> None:
    now = timezone.now()
    one = Outcome(key="k", occurred_at=now, reported_at=now, matured_at=now, **fields)
    one.tie = OutcomeTie(app="app_1", state="tied", how="app")
    page = render_to_string("decisions/outcome_state.html", {"outcome": one})
    assert re.sub(r"<[^>]+>|\s+", " ", page).strip() == says
