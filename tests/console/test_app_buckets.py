"""The buckets of an app as its deciders report them, and their resets."""

from __future__ import annotations

import re

import pytest

from console.frame import roles
from console.pages.app import gauges
from control.deciders import buckets
from control.directory import notes
from control.models import App, AuditEntry
from decider.engine.memory import error_budget
from decider.node.commands import Spending, View
from tests.console.one_app import APP, HTMX, ROLES, text_of, url
from tests.decisions.factory import event
from tests.pages import shown

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("known")]


def test_an_app_nobody_tracks_finds_full_buckets(signed_in, decider) -> None:
    decider()
    text = text_of(signed_in("sre").get(url()))
    assert (
        "No decider tracks this app now. Its next request finds a full bucket of 300 and 15"
        " requests a second." in text
    )
    assert "Order sync: nothing is known of the last 24 h" in text


def test_without_a_decider_there_is_no_bucket(signed_in) -> None:
    assert "No decider runs." in text_of(signed_in("sre").get(url()))


def test_a_decider_that_does_not_answer_is_named(signed_in, decider, beat, monkeypatch) -> None:
    monkeypatch.setattr(buckets, "WAIT_S", 1.0)
    decider("d01").track(APP, 3)
    beat("d02")
    text = text_of(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "d02 did not answer. What is shown leaves it out." in text
    assert "Admitted today 3 of" in text


def test_two_that_track_it_are_both_shown(signed_in, decider) -> None:
    decider("d01").track(APP, 3)
    decider("d02").track(APP, 5)
    text = text_of(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "Admitted today 8 of 2,000,000" in text
    assert "2 deciders track it" in text


def test_an_app_with_an_error_budget_shows_its_hour_and_day_and_why_it_is_spent(
    signed_in, decider
) -> None:
    App.objects.filter(id=APP).update(tier=3)
    one = decider()
    one.track(APP, 1_000, tier=3)
    slot = one.engine.slot_of(APP)
    for _ in range(5):
        error_budget.note_ml_refused(one.engine.state, slot, 0.98)
    text = text_of(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "False throttles left 0.00 of 0.10 that its requests of the last hour allow" in text
    assert "Hour 1,000 5 0.10 0.10 0.00 Day 1,000 5 0.10 0.10 0.00" in text
    assert (
        "Nothing is left of this hour’s error budget. ML refused it about 5 times in the last hour,"
        " at risks around 0.98. That is all that 1 in 10,000 of its requests allows. Until the"
        " window moves on or more requests come, ML admits its requests, unless its burst and"
        " headroom are used up." in text
    )


def test_below_enterprise_the_budget_is_said_not_to_hold_under_load(signed_in, decider) -> None:
    decider().track(APP, 3)
    text = text_of(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "False throttles left 0.15 of 0.15 that its requests of the last hour allow" in text
    assert "It does not hold while its service is far short of room." in text


def test_an_app_of_a_tier_without_an_error_budget_is_told_so() -> None:
    fixed = dict.fromkeys(View.__struct_fields__, 0)
    tile = gauges._errors(View(**(fixed | {"error_budget": 1.0, "spending": ()})))
    assert (tile.value, tile.note) == ("–", "Its tier has no error budget.")


def spent(left: float, **of: float) -> str:
    """What is said of an hour of 10,000 requests, of which 1 may be refused wrongly."""
    one = Spending(3_600.0, **({"requests": 10_000, "refusals": 0, "spent": 0.0} | of), left=left)
    fixed = dict.fromkeys(View.__struct_fields__, 0)
    view = View(**(fixed | {"error_budget": 0.0001, "spending": (one, one)}))
    return gauges._rows(view)[0].why


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"left": 0.4, "refusals": 6, "spent": 0.6}, ""),
        ({"left": 0.0}, "It has sent too few in the present hour for a refusal by ML to fit 1 in"),
        ({"left": 0.0, "refusals": 20, "spent": 1.0}, "about 20 times in the last hour, at risks"),
        ({"left": 0.0, "refusals": 1, "spent": 1.0}, "about 1 time in the last hour"),
        ({"left": 0.0, "refusals": 20, "spent": 1.0}, "around 0.95. That is all that 1 in 10,000"),
        ({"left": 0.0, "refusals": 90, "spent": 40.0}, "That is more than 1 in 10,000 of its"),
        ({"left": 0.0, "refusals": 9, "spent": 0.5}, "of the present hour alone do not allow more"),
        # the last refusal is about to leave the window
        ({"left": 0.0, "refusals": 0.01, "spent": 0.006}, "about 1 time in the last hour"),
    ],
)
def test_a_spent_error_budget_is_explained(seen: dict[str, float], words: str) -> None:
    assert words in spent(**seen)
    assert bool(spent(**seen)) == bool(words)


def test_a_decider_of_an_older_version_is_not_taken_to_have_no_limit() -> None:
    fixed = dict.fromkeys(View.__struct_fields__, 0)
    found = gauges._errors(View(**(fixed | {"spending": ()})))
    assert (found.value, found.note) == ("?", "Its decider is of an older version.")


def test_without_valkey_the_page_stands_and_says_what_is_not_known(
    signed_in, stored, settings
) -> None:
    stored([event()])
    client = signed_in("support")
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    text = text_of(client.get(url()))
    assert "The buckets are not known. Valkey does not answer" in text
    assert "Policy that holds for it" in text


def test_the_gauges_are_a_fragment_that_asks_again(signed_in, decider) -> None:
    decider().track(APP, 1)
    part = shown(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "<html" not in part
    assert 'hx-trigger="every 5s, refresh"' in part


@pytest.mark.parametrize("role", ROLES)
def test_who_may_reset_and_what_the_others_are_told(signed_in, decider, role: str) -> None:
    decider().track(APP, 1)
    client = signed_in(role)
    page = shown(client.get(url()))
    if role in ("sre", "policy_admin"):
        assert f'hx-get="{url("app-reset", "burst")}"' in page
        assert client.get(url("app-reset", "burst")).status_code == 200
    else:
        assert page.count('disabled aria-describedby="who-resets"') == 2
        assert "SRE or Policy admin can do this." in page
        assert client.get(url("app-reset", "burst")).status_code == 403
        assert client.post(url("app-reset", "burst"), {"reason": "SUP-1"}).status_code == 403
        assert not AuditEntry.objects.filter(action="bucket.reset").exists()


def test_a_reset_says_what_will_happen_then_what_each_decider_did(signed_in, decider) -> None:
    decider("d01").track(APP, 310)
    decider("d02")
    client = signed_in("sre")
    asked = text_of(client.get(url("app-reset", "burst")))
    assert re.search(r"\d+ of 300 tokens now", asked)
    assert "Its burst bucket becomes full on every decider that tracks it" in asked
    done = client.post(url("app-reset", "burst"), {"reason": "SUP-48119"}, follow=True)
    text = text_of(done)
    assert re.search(r"d01: filled the burst bucket, \d+ to 300 tokens\.", text)
    assert "d02: this node does not track the app, so there is nothing to fill." in text
    assert "300 of 300 tokens" in text
    row = AuditEntry.objects.get(action="bucket.reset")
    assert (row.actor, row.reason, row.subject) == ("Mara Lindqvist", "SUP-48119", APP)


def test_the_sheet_shows_its_error_and_then_goes_back_to_the_page(signed_in, decider) -> None:
    decider().track(APP, 310)
    client = signed_in("policy_admin")
    sheet = client.get(url("app-reset", "errors"), **HTMX)
    assert "<html" not in shown(sheet)
    refused = client.post(url("app-reset", "errors"), {"reason": " "}, **HTMX)
    assert (refused.status_code, "A reason is needed" in text_of(refused)) == (422, True)
    done = client.post(url("app-reset", "errors"), {"reason": "SUP-1"}, **HTMX)
    assert done["HX-Redirect"] == url()
    said = "forgot what was spent of the false-throttle budget, 15.50 to 15.50 left"
    assert said in text_of(client.get(url()))


def test_a_bucket_that_does_not_exist_is_not_found(signed_in) -> None:
    assert signed_in("sre").get(url("app-reset", "quota")).status_code == 404


def test_a_reset_that_reaches_nobody_says_so(signed_in, beat, monkeypatch) -> None:
    monkeypatch.setattr(buckets, "WAIT_S", 0.1)
    beat("d01")
    done = signed_in("sre").post(url("app-reset", "burst"), {"reason": "SUP-1"}, follow=True)
    assert "Burst bucket: no decider filled it." in text_of(done)
    assert "d01: did not answer, so it is not known whether it filled the bucket." in text_of(done)


def test_everyone_who_may_reset_or_note_is_named_by_the_roles() -> None:
    assert roles.who_can(buckets.PERMISSION) == "SRE or Policy admin can do this"
    assert roles.who_can(notes.PERMISSION) == "Support, SRE, ML owner or Policy admin can do this"


def test_a_gauge_never_leaves_its_bar() -> None:
    assert gauges._bar(-1) == 0
    assert gauges._bar(7) == 100
