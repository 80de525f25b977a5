from __future__ import annotations

import re
import time
import uuid
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.frame import roles
from console.pages.switches import flip_preview
from control.audit.actors import SYSTEM, Actor
from control.config import changes
from control.models import AuditEntry, Look, SwitchFlip
from control.switches import switches
from decider.contracts.event import Event
from decider.contracts.vocabulary import Action, MlState, Stage, Tier
from decisions.models import Decision, utc
from decisions.store import partitions
from tests.control.conftest import ack, beat, status
from tests.decisions.factory import event, signal_vector, unranked
from tests.pages import shown

pytestmark = pytest.mark.django_db
HTMX = {"HTTP_HX_REQUEST": "true"}
GOOD = {"reason": "Scores look wrong, INC-7", "ends": "2h", "confirm": "all ml"}
ENGAGE = ("all_ml", "engage")


@pytest.fixture(autouse=True)
def installation(settings, tmp_path: Path, keys: Path, valkey) -> None:
    settings.SLUICE_VAR, settings.SLUICE_KEYS, settings.SLUICE_MODELS = (
        tmp_path,
        keys,
        tmp_path / "models",
    )
    roles.ensure()
    changes.first(by=SYSTEM, reason="A new installation")


def signed_in(role: str) -> Client:
    user = get_user_model().objects.create_user(
        f"{role}@demo.sluice.example", first_name="Dele", last_name="Okafor"
    )
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def sre() -> Client:
    return signed_in("sre")


def flip_url(*which: str) -> str:
    return reverse("switch-flip", args=which or ENGAGE)


def test_the_page_says_first_that_all_is_clear(sre) -> None:
    page = shown(sre.get(reverse("switches")))
    assert "<h1>All kill switches are clear</h1>" in page
    assert f'hx-get="{flip_url()}"' in page
    assert "No decider was heard of" in page


def test_an_sre_engages_from_the_sheet_and_the_page_shows_it_on_top(
    sre, django_capture_on_commit_callbacks
) -> None:
    sheet = sre.get(flip_url(), **HTMX)
    assert (sheet.status_code, "<html" in shown(sheet), sheet["Vary"]) == (
        200,
        False,
        "HX-Request, Cookie",
    )
    with django_capture_on_commit_callbacks(execute=True):
        done = sre.post(flip_url(), GOOD, **HTMX)
    assert (done.status_code, done["HX-Redirect"]) == (200, reverse("switches"))
    page = shown(sre.get(reverse("switches")))
    assert "<h1>1 kill switch engaged</h1>" in page
    assert "Scores look wrong, INC-7" in page
    assert "ends in 2 h" in page
    entry = AuditEntry.objects.first()
    assert (entry.actor, entry.actor_role, entry.action) == ("Dele Okafor", "SRE", "switch.engage")
    assert [s.name for s in changes.current().switches] == ["all_ml"]


def test_without_script_the_flip_is_a_page_of_its_own(sre) -> None:
    page = shown(sre.get(flip_url()))
    assert "<h1>Engage: All ML</h1>" in page
    assert "No decision was stored in the last hour" in page
    assert not re.search(r'id="fl-go"[^>]*disabled', page)
    done = sre.post(flip_url(), GOOD | {"ends": "open"})
    assert (done.status_code, done["Location"]) == (302, reverse("switches"))
    assert SwitchFlip.objects.get().until is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reason": " "}, "Say what is wrong"),
        ({"confirm": "ml"}, "Type all ml to confirm"),
        ({"ends": "at", "at": ""}, "Pick a time after"),
        ({"ends": "at", "at": "2020-01-01T00:00"}, "Pick a time after"),
        ({"ends": "at", "at": "soon"}, "not a date and time"),
        ({"ends": "at", "at": "2999-01-01T00:00"}, "more than 90 days ahead"),
        ({"ends": "9h"}, "9h is not one of"),
        ({"ends": ""}, "Say when it ends"),
        ({"reason": "x" * 1001}, "at most 1000 characters"),
    ],
)
def test_a_wrong_answer_comes_back_in_the_sheet_and_changes_nothing(sre, change, says) -> None:
    back = sre.post(flip_url(), GOOD | change, **HTMX)
    assert (back.status_code, says in shown(back)) == (422, True), shown(back)
    assert not SwitchFlip.objects.exists()


def test_what_was_typed_is_escaped_when_it_comes_back(sre) -> None:
    page = shown(
        sre.post(
            flip_url(),
            GOOD | {"reason": "</textarea><script>alert(1)</script>", "confirm": '"><b>'},
            **HTMX,
        )
    )
    assert "<script>" not in page
    assert '"><b>' not in page


def test_a_picked_time_is_utc(sre) -> None:
    at = (timezone.now() + timedelta(hours=5)).replace(second=0, microsecond=0)
    sre.post(flip_url(), GOOD | {"ends": "at", "at": f"{at:%Y-%m-%dT%H:%M}"})
    assert SwitchFlip.objects.get().until == at


def test_a_second_flip_is_told_that_it_is_engaged_already(sre) -> None:
    sre.post(flip_url(), GOOD)
    again = sre.post(flip_url(), GOOD, **HTMX)
    assert (again.status_code, "is engaged already" in shown(again)) == (422, True)
    assert SwitchFlip.objects.count() == 1


def test_an_engaged_switch_is_extended_and_cleared_from_the_page(sre) -> None:
    sre.post(flip_url(), GOOD)
    assert "It stays engaged past" in shown(sre.get(flip_url("all_ml", "extend"), **HTMX))
    sre.post(flip_url("all_ml", "extend"), GOOD | {"ends": "8h"})
    assert switches.engaged()["all_ml"].until > timezone.now() + timedelta(hours=7)
    sre.post(flip_url("all_ml", "clear"), {"reason": "It was the feed", "confirm": "all ml"})
    page = shown(sre.get(reverse("switches")))
    assert "All kill switches are clear" in page
    assert "Cleared by Dele Okafor" in page


@pytest.mark.parametrize("role", ["support", "ml_owner", "auditor"])
def test_who_may_not_flip_sees_the_button_disabled_and_who_can(role: str) -> None:
    client = signed_in(role)
    page = shown(client.get(reverse("switches")))
    assert re.search(
        r'<button class="btn btn-s" type="button" disabled aria-describedby="who-can">', page
    )
    assert re.search(r'id="who-can">[^<]*SRE', page)
    for answer in (
        client.get(flip_url()),
        client.post(flip_url(), GOOD),
        client.get(reverse("switch-preview", args=ENGAGE)),
    ):
        assert answer.status_code == 403
    assert not SwitchFlip.objects.exists()


def test_a_visitor_is_sent_to_sign_in() -> None:
    for name, args in (("switches", ()), ("switch-flip", ENGAGE), ("propagation", ())):
        assert Client().get(reverse(name, args=args))["Location"].startswith(reverse("login"))


def test_a_wrong_method_and_an_unknown_switch_are_refused(sre) -> None:
    assert sre.post(reverse("switches")).status_code == 405
    assert sre.put(flip_url()).status_code == 405
    assert sre.get(flip_url("nothing", "engage")).status_code == 404
    assert sre.get(flip_url("all_ml", "explode")).status_code == 404


def test_a_flip_without_the_csrf_token_is_refused(sre) -> None:
    strict = Client(enforce_csrf_checks=True, headers={})
    strict.cookies = sre.cookies
    assert strict.post(flip_url(), GOOD).status_code == 403
    assert not SwitchFlip.objects.exists()


def test_the_propagation_panel_polls_fast_until_all_have_acked_then_slowly(sre, valkey) -> None:
    made = changes.latest().made_at.timestamp()
    for node in ("d01", "d02"):
        beat(valkey, status(node, config_version=0))
    ack(valkey, 1, "d01", last_old_decision_at=made + 0.031)
    panel = shown(sre.get(reverse("propagation")))
    assert "Config 1 reached 1 of 2" in panel
    assert 'hx-trigger="every 1s' in panel
    assert "d02 still runs 0." in panel
    ack(valkey, 1, "d02", last_old_decision_at=made + 0.012)
    panel = shown(sre.get(reverse("propagation")))
    assert "Config 1 reached 2 of 2" in panel
    assert 'hx-trigger="every 15s' in panel
    assert "31 ms after the change" in panel


def test_a_refusing_and_a_silent_decider_are_named(sre, valkey) -> None:
    beat(valkey, status("d01", config_version=0))
    ack(valkey, 1, "d01", ok=False, error="the signature does not match")
    valkey.zadd("sluice:nodes", {"d02": time.time() - 90})
    panel = shown(sre.get(reverse("propagation")))
    assert "d01 refused it:</b> the signature does not match." in panel
    assert "d02 is silent." in panel


def test_with_valkey_down_the_page_stays_and_says_so(sre, settings) -> None:
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    page = sre.get(reverse("switches"))
    assert page.status_code == 200
    assert "Valkey does not answer, so acks cannot be read. Config 1 is committed" in shown(page)


def a_ranked_block(**fields) -> Event:
    return event(
        **(
            {"action": int(Action.BLOCK), "risk": 0.97, "inclusion_probability": 0.25, "tier": 3}
            | fields
        )
    )


def test_the_preview_weighs_scales_and_shows_who_is_affected() -> None:
    events = [a_ranked_block() for _ in range(3)] + [
        unranked(inclusion_probability=0.5, signals=signal_vector()) for _ in range(6)
    ]
    seen = flip_preview.compare_decisions(events, 18, changes.current(), "engage", None)
    assert seen.looked_at == 9
    assert seen.total == pytest.approx((3 * 4 + 6 * 2) * 2)
    assert sum(change.by for change in seen.actions) == pytest.approx(0)
    assert seen.changed.count == pytest.approx(sum(tier.count.count for tier in seen.tiers))
    assert seen.changed.low < seen.changed.count < seen.changed.high
    assert {change.action: change.by for change in seen.actions}[Action.BLOCK] == pytest.approx(-24)
    assert (seen.tiers[0].tier, seen.tiers[0].count.count) == (Tier.ENTERPRISE, pytest.approx(24))
    assert {example.before for example in seen.examples} == {Action.BLOCK}


def test_decisions_of_another_feature_schema_are_counted_and_left_out() -> None:
    seen = flip_preview.compare_decisions(
        [a_ranked_block(feature_schema="old"), unranked()], 2, changes.current(), "engage", None
    )
    assert (seen.unreadable, seen.looked_at) == (1, 2)


def test_the_preview_uses_the_stored_decisions_of_the_last_hour(sre, stored_decisions) -> None:
    stored_decisions(
        [a_ranked_block(app="app_hit") for _ in range(4)] + [a_ranked_block(at=time.time() - 3700)]
    )
    page = shown(sre.get(reverse("switch-preview", args=ENGAGE)))
    assert "100.0% of the last hour’s decisions would change" in page
    assert re.search(r"About 16 \(\d+ to \d+\) of about 16, weighted from 4 stored decisions", page)
    assert "of the newly admitted carry risk 0.90 or more" in page or "Admit" in page
    look = Look.objects.get()
    assert (look.app, look.what) == ("app_hit", "an example of what a switch would change")


@pytest.fixture
def stored_decisions():
    """Stores events as rows of the partitioned table."""
    partitions.ensure(partitions.DECISIONS, today=(timezone.now() - timedelta(days=1)).date())

    def store(events: list[Event]) -> None:
        for each in events:
            fields = msgspec.structs.asdict(each)
            Decision.objects.create(
                **(fields | {"id": uuid.UUID(bytes=each.id), "at": utc(each.at)})
            )

    return store


def test_after_the_flip_the_policy_function_itself_says_that_ml_is_off() -> None:
    switches.engage("all_ml", by=Actor("x", "x", "SRE"), reason="A try", until=None)
    switched_off = a_ranked_block(
        ml_state=int(MlState.SWITCHED_OFF),
        stage=int(Stage.FALLBACK),
        action=int(Action.ADMIT),
        risk=None,
        value=None,
    )
    seen = flip_preview.compare_decisions([switched_off], 1, changes.current(), "clear", None)
    assert seen.looked_at == 1
    assert msgspec.structs.asdict(switched_off)["risk"] is None
