"""The pages of approvals, and the switches that ask for a second person."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from msgspec.structs import replace

from console.frame import roles
from console.tasks import settle_requests
from control.approvals import mode, requests
from control.approvals.lifecycle import State
from control.approvals.models import Request, Review
from control.audit.actors import SYSTEM, Actor
from control.config import changes, requested
from control.config.gate import NeedsSecondPerson
from control.models import AuditEntry, Look
from control.switches import offline, switches
from decider.contracts.vocabulary import Action, Tier
from decisions.counts.estimate import Estimate
from decisions.preview import Example, Preview
from tests.control.approvals.conftest import approve, engage, make_person, turn_on
from tests.control.approvals.test_requests import ask_for_burst, later, raise_burst
from tests.pages import shown as page_of

pytestmark = pytest.mark.django_db
GOOD = {"reason": "Scores are well again, INC-7", "confirm": "all ml"}
CLEAR = ("switch-flip", ("all_ml", "clear"))


@pytest.fixture(autouse=True)
def installation(settings, tmp_path: Path, keys: Path, valkey) -> None:
    settings.SLUICE_VAR, settings.SLUICE_KEYS = tmp_path, keys
    settings.SLUICE_MODELS = tmp_path / "models"
    roles.ensure()
    changes.first(by=SYSTEM, reason="A new installation")


@pytest.fixture
def dele() -> User:
    return make_person("dele", "sre")


@pytest.fixture
def noor() -> User:
    return make_person("noor", "sre")


@pytest.fixture
def priya() -> User:
    return make_person("priya", "policy_admin")


@pytest.fixture
def on(dele, priya) -> None:
    turn_on(dele, priya)


def client(user: User) -> Client:
    made = Client()
    made.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return made


def shown(response, status: int = 200) -> str:
    """The page, its status checked."""
    assert response.status_code == status
    return page_of(response)


def at(name: str, *args: object) -> str:
    return reverse(name, args=args)


def decide(user: User, row: Request, do: str, **more: str):
    given = {"do": do, "digest": row.digest, "reason": "I looked at it."}
    return client(user).post(at("approval", row.pk), given | more)


@pytest.fixture
def burst(on, dele) -> Request:
    return ask_for_burst(dele)


def test_a_new_installation_says_that_one_person_decides(dele) -> None:
    page = shown(client(dele).get(at("approvals")))
    assert "<h1>Nothing waits for a second person</h1>" in page
    assert "One person decides here." in page
    assert "Ask to turn it on" in page
    assert "Before you turn it on: fewer than two people may decide" in page
    assert ">One person<" in shown(client(dele).get(at("ui-strip"))).replace("\n", "")


def test_two_people_turn_it_on_over_the_page(dele, priya) -> None:
    assert client(make_person("mara", "support")).get(at("approvals-mode")).status_code == 403
    assert client(dele).post(at("approvals-mode"), {"on": "yes"}).status_code == 422
    done = client(dele).post(at("approvals-mode"), {"on": "yes", "reason": "Two are here"})
    row = Request.objects.get()
    assert (done.status_code, done["Location"]) == (302, at("approval", row.pk))
    again = client(priya).post(at("approvals-mode"), {"on": "yes", "reason": "x"})
    assert "asked for the same change" in shown(again, 422)
    assert not mode.is_on()
    assert decide(priya, row, "approve").status_code == 302
    assert mode.is_on()
    assert "Four eyes" in shown(client(dele).get(at("ui-strip")))


def test_the_list_has_first_what_this_person_decides(burst, dele, noor, priya) -> None:
    engage(dele)
    with pytest.MonkeyPatch.context() as patch:
        later(patch, 11)
        flip = client(noor).post(reverse(*CLEAR[:1], args=CLEAR[1]), GOOD)
    asked = Request.objects.get(action="switch.clear")
    assert (flip.status_code, flip["Location"]) == (302, at("approval", asked.pk))
    page = shown(client(priya).get(at("approvals")))
    assert "<h1>2 changes wait for a second person, 1 of them for you</h1>" in page
    assert page.index("Raise standard tier, burst") < page.index("Clear the switch")
    assert page.index("Needs you") < page.index("Not yours")
    own = shown(client(dele).get(at("approvals")))
    assert own.index("Clear the switch") < own.index("Raise standard tier")
    assert "You asked for this, so someone else must decide." in own
    assert 'aria-current="page"' in own
    assert '1<span class="sr">' in own.replace("\n", "").replace(" ", "").replace(
        "spanclass", "span class"
    )


def test_the_proposer_sees_withdraw_and_never_approve(burst, dele, priya) -> None:
    own = shown(client(dele).get(at("approval", burst.pk)))
    assert 'value="withdraw"' in own
    assert 'value="approve"' not in own
    theirs = shown(client(priya).get(at("approval", burst.pk)))
    assert 'value="approve"' in theirs
    assert 'value="withdraw"' not in theirs
    assert "Standard tier, burst (requests): 300." in theirs


def test_an_approval_makes_the_change(burst, dele, priya) -> None:
    done = decide(priya, burst, "approve")
    assert (done.status_code, done["Location"]) == (302, at("approvals"))
    assert changes.current().tiers[1].burst == 600
    page = shown(client(priya).get(at("approvals")))
    assert "<h1>Nothing waits. 2 were decided today</h1>" in page
    assert "Approved by Priya." in page
    assert AuditEntry.objects.first().actor == "Dele"


def test_a_session_that_is_old_gives_its_password_again_before_it_approves(
    burst, priya, settings
) -> None:
    settings.REAUTHENTICATION_S = -1
    page = shown(client(priya).get(at("approval", burst.pk)))
    assert "Give your password again to approve" in page and 'value="approve"' not in page
    refused = shown(decide(priya, burst, "approve"), 422)
    assert "Give your password again first, then approve." in refused
    burst.refresh_from_db()
    assert (burst.state, burst.votes.count()) == (State.OPEN, 0)
    # to say no is safe at any time
    decide(priya, burst, "veto")
    burst.refresh_from_db()
    assert burst.state == State.VETOED


@pytest.mark.parametrize("role", ["support", "auditor", "sre", "ml_owner"])
def test_another_role_may_neither_approve_nor_veto_and_the_log_says_who_tried(burst, role) -> None:
    other = make_person("tom", role)
    for do in ("approve", "veto"):
        assert decide(other, burst, do).status_code == 403
    tried = AuditEntry.objects.filter(action="access.denied", actor_login=other.username)
    assert tried.count() == 2
    burst.refresh_from_db()
    assert (burst.state, burst.votes.count()) == (State.OPEN, 0)
    assert client(make_person("x")).get(at("approvals")).status_code == 403


def test_ones_own_request_is_refused_and_the_log_says_who_tried(burst, dele) -> None:
    dele.groups.add(*make_person("both", "policy_admin").groups.all())
    assert "someone else must decide" in shown(decide(dele, burst, "approve"), 422)
    assert AuditEntry.objects.filter(action="access.denied", actor="Dele").exists()


@pytest.mark.parametrize(
    ("do", "more", "says"),
    [
        ("approve", {"reason": ""}, "Say why."),
        ("approve", {"digest": "0" * 64}, "other content than you have read"),
        ("withdraw", {}, "Only dele@example.org can withdraw"),
        ("rebase", {}, "has changed, so it stands as it is"),
        ("no", {}, "do: Select a valid choice. no is not one"),
    ],
)
def test_what_does_not_fit_comes_back_and_changes_nothing(burst, priya, do, more, says) -> None:
    assert says in shown(decide(priya, burst, do, **more), 422)
    burst.refresh_from_db()
    assert burst.state == State.OPEN


def test_what_is_closed_stays_so(burst, dele, priya) -> None:
    assert decide(priya, burst, "veto", reason="Wants too much").status_code == 302
    page = shown(client(dele).get(at("approvals")))
    assert "Wants too much" in page
    for do in ("approve", "veto", "rebase"):
        assert decide(priya, burst, do).status_code == 422
    assert decide(dele, burst, "withdraw").status_code == 422
    assert client(dele).get(at("approval", 10**9)).status_code == 404
    assert client(dele).delete(at("approval", burst.pk)).status_code == 405


def test_an_overtaken_request_says_by_whom_and_offers_rebase(burst, dele, priya) -> None:
    other = ask_for_burst(make_person("marit", "policy_admin"), 1.1)
    decide(priya, other, "approve")
    page = shown(client(priya).get(at("approvals")))
    assert "Marit changed the same at" in page
    assert "Overtaken" in page
    assert "Rebase the request before anyone decides" in shown(decide(priya, burst, "approve"), 422)
    done = decide(dele, burst, "rebase")
    new = Request.objects.order_by("-pk")[0]
    assert (done["Location"], new.state) == (at("approval", new.pk), State.OPEN)
    assert "(requests): 330." in shown(client(priya).get(at("approval", new.pk)))


def test_the_sheet_of_a_switch_says_that_it_asks(on, dele, noor) -> None:
    engage(dele)
    mine = shown(client(dele).get(reverse(CLEAR[0], args=CLEAR[1])))
    theirs = shown(client(noor).get(reverse(CLEAR[0], args=CLEAR[1]), HTTP_HX_REQUEST="true"))
    assert "Ask to clear All ML" in " ".join(theirs.split())
    assert "Ask to" not in mine
    done = client(noor).post(reverse(CLEAR[0], args=CLEAR[1]), GOOD, HTTP_HX_REQUEST="true")
    assert done["HX-Redirect"] == at("approval", Request.objects.order_by("-pk")[0].pk)
    assert len(changes.current().switches) == 1


def test_who_would_notice_is_counted_where_a_preview_can(on, dele, noor, burst) -> None:
    engage(dele)
    client(noor).post(reverse(CLEAR[0], args=CLEAR[1]), GOOD)
    asked = Request.objects.get(action="switch.clear")
    assert "No decision was stored in the last hour" in shown(
        client(dele).get(at("approval-noticed", asked.pk))
    )
    assert "No decision was stored in the last hour" in shown(
        client(dele).get(at("approval-noticed", burst.pk))
    )
    with pytest.raises(NeedsSecondPerson) as held:
        raise_burst(dele, edit=lambda config: replace(config, ml_time_limit_ms=9.0))
    limit = requested.ask(held.value, by=dele, reason="x")
    assert "cannot be counted" in shown(client(dele).get(at("approval-noticed", limit.pk)))
    assert "cannot be counted" in shown(client(dele).get(at("approval", limit.pk)))


def test_the_apps_of_its_examples_are_looks(on, dele, noor, monkeypatch) -> None:
    engage(dele)
    client(noor).post(reverse(CLEAR[0], args=CLEAR[1]), GOOD)
    asked = Request.objects.get(action="switch.clear")
    example = Example("dec_" + "0" * 32, "app_hit", Tier.FREE, Action.DEFER, Action.ADMIT, 0.1)
    seen = Preview(1, 1, 0, 1.0, Estimate(1.0, 1.0, 1), (), (), 0.0, (example,))
    monkeypatch.setattr("console.pages.switches.flip_preview.preview_all_ml", lambda turn: seen)
    assert "free," in shown(client(dele).get(at("approval-noticed", asked.pk)))
    assert Look.objects.get().app == "app_hit"


def test_the_command_asks_in_the_name_of_someone(on, dele, noor) -> None:
    engage(dele)
    with pytest.raises(CommandError, match="Say who asks for it"):
        call_command("switch", "all_ml", "--clear", "--reason", "x")
    said = StringIO()
    call_command(
        *("switch", "all_ml", "--clear", "--reason", "x", "--by", noor.username), stdout=said
    )
    row = Request.objects.get(action="switch.clear")
    assert f"Asked for it: request {row.pk}" in said.getvalue()
    assert row.requested_by == noor
    assert len(changes.current().switches) == 1


def test_a_flip_made_offline_waits_for_someone_to_look_at_it(on, dele, noor, valkey) -> None:
    engage(dele)
    changes.publish_now(changes.latest())
    offline.flip(
        "clear", "all_ml", by=Actor.at_shell(noor.username), reason="INC-8", until=None, files=None
    )
    (said,) = offline.reconcile()
    assert said.startswith("Imported config")
    row, version = Review.objects.get(), changes.latest()
    assert (version.loosens, version.review, changes.current().switches) == (True, row, [])
    page = shown(client(dele).get(at("approvals")))
    assert "In force" in page
    here = at("approvals-review", row.pk)
    assert "Became" in shown(client(dele).get(here))
    assert client(make_person("tom", "auditor")).post(here, {"reason": "x"}).status_code == 403
    assert "someone else must look" in shown(client(noor).post(here, {"reason": "x"}), 422)
    assert client(dele).post(here, {"reason": ""}).status_code == 422
    assert client(dele).post(here, {"reason": "The model was well"}).status_code == 302
    assert "Closed by" in shown(client(dele).get(here))
    assert "closed this review already" in shown(client(dele).post(here, {"reason": "x"}), 422)
    assert client(dele).get(at("approvals-review", 10**9)).status_code == 404
    out = StringIO()
    call_command("audit", "anchor", stdout=out)
    call_command("audit", "verify", stdout=out)
    assert "config versions needed the people that it says" in out.getvalue()


def test_going_safe_offline_opens_no_review(on, dele, valkey) -> None:
    changes.publish_now(changes.latest())
    offline.flip("engage", "all_ml", by=Actor.at_shell(), reason="x", until=None, files=None)
    offline.reconcile()
    assert changes.latest().loosens is False
    assert not Review.objects.exists()


def test_the_task_ends_and_makes_what_is_due(burst, dele, priya, monkeypatch) -> None:
    approve(burst, priya)
    assert settle_requests() == {"ended": 0, "made": 1}
    again = ask_for_burst(dele, 3.0)
    later(monkeypatch, requests.WAITS / timedelta(minutes=1) + 1)
    with monkeypatch.context() as patch:
        patch.setattr("control.approvals.requests._close", lambda *given: None)
        assert settle_requests() == {"ended": 1, "made": 0}
    assert again.pk


def test_verify_names_a_version_that_lies(on, dele, monkeypatch) -> None:
    fake = type("V", (), {"needs": (), "digest": ""})()
    with monkeypatch.context() as patch:
        patch.setattr("control.config.gate.second_person", lambda *given: fake)
        raise_burst(dele)
    with pytest.raises(CommandError, match="says that it did not: it raises standard tier, burst"):
        call_command("audit", "verify")


def test_one_person_marks_show_in_the_log(dele) -> None:
    engage(dele)
    switches.clear("all_ml", by=Actor("Noor", "noor", "SRE"), reason="x")
    assert AuditEntry.objects.first().summary == "cleared the switch “All ML” (one person)"
    assert timezone.now() > AuditEntry.objects.first().at - timedelta(seconds=5)
