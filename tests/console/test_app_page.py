"""The page of an app for every role: finding, buckets, policy, notes, resets, and who looked."""

from __future__ import annotations

import html
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import redis
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console import tasks
from console.frame import roles
from console.pages.app import gauges
from control.audit.actors import SYSTEM, Actor
from control.config import changes
from control.deciders import buckets, profiles
from control.directory import notes
from control.errors import StoreUnavailable
from control.models import App, AppNote, AuditEntry, Tenant
from decider.contracts.ids import format_decision_id
from decider.contracts.store import PROFILE_PREFIX, Profile
from decider.contracts.vocabulary import Stage
from decider.engine.memory import app_state
from decider.node.commands import Spending, View
from decisions.models import Decision, Outcome
from decisions.outcomes import disputes, reports
from tests.control.played import Played
from tests.decisions.factory import event, unranked
from tests.pages import shown

pytestmark = pytest.mark.django_db
APP = "app_7q2m4kx9"
HTMX = {"HTTP_HX_REQUEST": "true"}
ROLES = ("support", "sre", "ml_owner", "policy_admin", "auditor")


def text_of(response) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown(response))))


def url(name: str = "app", *before: str, app: str = APP) -> str:
    return reverse(name, args=[*before, app])


@pytest.fixture(autouse=True)
def known(installation, settings, tmp_path) -> App:
    """Order sync of Tidewell Retail, in an installation with a first config."""
    settings.SLUICE_MODELS = tmp_path / "models"
    changes.first(by=SYSTEM, reason="A new installation")
    tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
    return App.objects.create(id=APP, name="Order sync", tenant=tenant, tier=1)


@pytest.fixture
def decider(valkey: redis.Redis, keys: Path, beat) -> Iterator[Callable[..., Played]]:
    running: list[Played] = []

    def start(node: str = "d01") -> Played:
        running.append(Played(valkey, keys, node))
        beat(node)
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.mark.parametrize("role", ROLES)
def test_every_role_sees_how_the_app_is(signed_in, stored, decider, role: str) -> None:
    now = time.time()
    stored(
        [event(at=now - 40 * 60 - k) for k in range(6)]
        + [unranked(inclusion_probability=0.02, at=now - 60)]
    )
    decider().track(APP, 32)
    page = signed_in(role).get(url())
    text = text_of(page)
    assert re.search(
        r'<h1 title="\d+ to \d+, 95%">Order sync is well now; its worst half hour began at'
        r" \d\d:\d\d with about \d+ refused</h1>",
        shown(page),
    )
    assert (
        "About 12 of 62 requests in the last 24 h were not admitted, 19.35%. Estimated from 7 kept"
        " decisions: between 7 and " in text
    )
    assert "Admitted today 32 of 2,000,000" in text
    assert "of 300 tokens" in text
    assert "d01 decides for it, cfg 1. Looking takes nothing out." in text
    assert "Daily quota 2,000,000 requests, hard Standard tier cfg 1" in text
    assert "None. Standard tier applies." in text
    assert "Burst: about" in text
    assert "cfg 1: System made the first config document" in text


def test_one_that_is_refused_now_says_so_first(signed_in, stored) -> None:
    stored([event() for _ in range(4)])
    assert (
        '<h1 title="4 to 16 of 4 to 16, 95%">Order sync is being refused now: about 8 of 8 in the'
        " last 10 min</h1>" in shown(signed_in("support").get(url()))
    )


def test_what_is_estimated_stands_beside_its_interval(signed_in, stored) -> None:
    stored([event() for _ in range(4)])
    page = signed_in("support").get(url())
    text = text_of(page)
    assert "between 4 and 16 were not, of 4 to 16 (95%)." in text
    assert "In the last 10 min, between 4 and 16 were not admitted (95%)." in text
    assert "Defer 8 100.0% , 4 to 16" in text
    assert "/v2/orders/{id} orders-read 8 4 to 16 0.0% 8 4 to 16" in text


def test_what_was_counted_whole_has_no_interval(signed_in, stored) -> None:
    stored([event(inclusion_probability=1.0) for _ in range(4)])
    page = signed_in("support").get(url())
    assert "(95%)" not in text_of(page)
    assert ", 95%" not in shown(page)


def test_refusals_for_bursts_are_told_apart_from_those_of_ml(signed_in, stored) -> None:
    at = time.time() // 3_600 * 3_600 - 1_800
    stored([event(at=at, risk=0.5, inclusion_probability=1.0)])
    stored(
        [
            event(at=at + k, risk=0.1, stage=int(Stage.TRIAGE), inclusion_probability=0.1)
            for k in range(3)
        ]
    )
    text = text_of(signed_in("support").get(url()))
    assert re.search(
        r"by ML in the worst hour, from \d\d:00: 0.5 , no limit for its tier About 30 more were"
        r" refused in that hour",
        text,
    )
    assert "for bursts beyond the plan" in text


def test_a_new_credential_is_put_beside_the_burst(signed_in, stored) -> None:
    now = time.time()
    stored(
        [
            event(at=now - 3 * 86_400, token_digest="aa" * 32),
            event(at=now - 7_200, token_digest="aa" * 32),
        ]
    )
    stored([event(at=now - 3_600, token_digest="bb" * 32)])
    page = signed_in("support").get(url())
    assert text_of(page).count("A credential was seen for the first time") == 1
    assert "new credential</text>" in shown(page)
    assert "bb" * 32 not in shown(page)


def test_a_model_that_took_over_is_put_beside_the_burst(signed_in, stored) -> None:
    now = time.time()
    stored(
        [event(at=now - 7_200, model="aaaa1111" * 8), event(at=now - 3_600, model="bbbb2222" * 8)]
    )
    text = text_of(signed_in("support").get(url()))
    assert "Model bbbb2222 began to score it" in text
    assert "Model aaaa1111" not in text


def test_expected_false_throttles_stand_next_to_their_limit(signed_in, stored) -> None:
    at = time.time() // 3_600 * 3_600 - 1_800
    stored([event(at=at + k, risk=0.5, inclusion_probability=0.1) for k in range(3)])
    text = text_of(signed_in("support").get(url()))
    assert re.search(
        r"Expected false throttles by ML in the worst hour, from \d\d:00: 15.0 \(5.4 to 41.9\),"
        r" no limit for its tier",
        text,
    )


def test_an_enterprise_apps_expected_false_throttles_stand_next_to_what_its_requests_allow(
    signed_in, stored
) -> None:
    App.objects.filter(id=APP).update(tier=3)
    at = time.time() // 3_600 * 3_600 - 1_800
    stored([event(at=at, risk=0.5, inclusion_probability=1.0)])
    stored([event(at=at + k, risk=0.1, action=0, inclusion_probability=0.001) for k in range(9)])
    text = text_of(signed_in("support").get(url()))
    assert re.search(r"from \d\d:00: 0.5 , limit 0.90 for its requests of that hour Inside", text)


def test_what_became_of_it_is_shown_matured_and_settling(signed_in, stored) -> None:
    now = timezone.now()
    base = {"app": APP, "source": "csv", "by": "x", "digest": "", "reported_at": now}
    days = [timedelta(days=d) for d in (1, 2, 40)]
    for k, ago in enumerate(days):
        Outcome.objects.create(
            key=f"f{k}", kind="false_throttle", occurred_at=now - ago, matured_at=now, **base
        )
    Outcome.objects.create(
        key="c", kind="chargeback", occurred_at=now - days[0], matured_at=now, **base
    )
    Outcome.objects.create(
        key="s", kind="churn", occurred_at=now - days[0], matured_at=now + days[0], **base
    )
    one = event()
    stored([one])
    d = Decision.objects.get(id=uuid.UUID(bytes=one.id))
    disputes.open_dispute(
        d, by=Actor("Olu Ade", "olu@example.org", "Support"), reason="It was announced"
    )
    text = text_of(signed_in("support").get(url()))
    assert "Chargeback 1 False throttle 2 Refusal found correct 0 Still settling 1" in text
    assert "Fraud confirmed 0" in text
    assert "1 open dispute" in text


def wrong(
    key: str, *, days: int = 1, decision: uuid.UUID | None = None, settles: int = 0, app: str = APP
) -> None:
    now = timezone.now()
    Outcome.objects.create(
        key=key,
        kind="false_throttle",
        occurred_at=now - timedelta(days=days),
        reported_at=now,
        decision=decision,
        app=app,
        matured_at=now + timedelta(days=settles),
        source="csv",
        by="x",
        digest="",
    )


def test_an_upheld_dispute_counts_among_the_refusals_found_wrong(signed_in, stored) -> None:
    one = event()
    stored([one])
    d = Decision.objects.get(id=uuid.UUID(bytes=one.id))
    assert "Refusals found wrong, 90 d 0" in text_of(signed_in("support").get(url()))
    opened = disputes.open_dispute(
        d, by=Actor("Olu Ade", "olu@example.org", "Support"), reason="It was announced"
    )
    disputes.adjudicate(
        opened.pk,
        "uphold",
        by=Actor("Priya Raman", "priya@example.org", "Admin"),
        reason="It was announced",
    )
    assert "Refusals found wrong, 90 d 1" in text_of(signed_in("sre").get(url()))


def test_each_refusal_is_found_wrong_once_when_it_is_settled_and_recent(signed_in, stored) -> None:
    which = uuid.uuid4()
    wrong("a", decision=which)
    wrong("b", decision=which)
    wrong("c")
    wrong("d", days=91)
    wrong("e", settles=1)
    wrong("f", app="app_other")
    App.objects.filter(id=APP).update(false_throttle_history=4)
    text = text_of(signed_in("support").get(url()))
    assert "Refusals found wrong, 90 d 2 Found wrong before it was registered here 4" in text
    assert reports.found_wrong(time.time()) == {APP: 2, "app_other": 1}


def test_the_deciders_are_told_of_it_once_and_of_its_end(valkey, signed_in, stored) -> None:
    App.objects.filter(id=APP).update(false_throttle_history=4)
    wrong("a")
    wrong("b", app="app_nobody_registered")
    assert (tasks.tell_found_wrong(), tasks.tell_found_wrong()) == (1, 0)
    assert (
        msgspec.msgpack.decode(
            valkey.get(PROFILE_PREFIX + APP), type=Profile
        ).false_throttle_history
        == 5
    )
    with connection.cursor() as cursor:  # 90 days later
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "UPDATE decisions_outcome SET occurred_at = occurred_at - interval '90 days'"
        )
        cursor.execute("SET LOCAL session_replication_role = origin")
    assert tasks.tell_found_wrong() == 1
    assert (
        msgspec.msgpack.decode(
            valkey.get(PROFILE_PREFIX + APP), type=Profile
        ).false_throttle_history
        == 4
    )


def test_what_could_not_be_told_is_told_the_next_time(
    valkey, signed_in, stored, monkeypatch
) -> None:
    def away(apps):
        raise StoreUnavailable("away")

    wrong("a")
    with monkeypatch.context() as patch:
        patch.setattr(profiles.publish, "push_profiles", away)
        assert tasks.tell_found_wrong() == 0
    assert App.objects.get(id=APP).found_wrong == 0
    assert tasks.tell_found_wrong() == 1


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
    monkeypatch.setattr(buckets, "WAIT_S", 0.2)
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
        app_state.note_ml_refused(one.engine.state, slot, 0.98)
    text = text_of(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "False throttles left 0.00 of 0.10 that its requests of the last hour allow" in text
    assert "Hour 1,000 5 0.10 0.10 0.00 Day 1,000 5 0.10 0.10 0.00" in text
    assert (
        "Nothing is left of this hour’s error budget. ML refused it about 5 times in the last hour,"
        " at risks around 0.98. That is all that 1 in 10,000 of its requests allows. Until the"
        " window moves on or more requests come, ML admits its requests, unless its burst and"
        " headroom are used up." in text
    )


def test_an_app_of_a_tier_without_an_error_budget_is_told_so(signed_in, decider) -> None:
    decider().track(APP, 3)
    text = text_of(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "False throttles left – no limit Its tier has no error budget." in text
    assert "Error budget, last" not in text


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


def test_ingest_that_is_behind_is_said(signed_in, beat, valkey) -> None:
    import msgspec

    from decider.contracts import store

    beat()
    valkey.set(
        store.INGEST_STATUS_KEY,
        msgspec.msgpack.encode(store.IngestStatus(time.time(), 240.0, 10, 0)),
    )
    assert "Ingest is 4 m behind." in text_of(signed_in("support").get(url()))


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
    said = "its tier has no false-throttle budget, so there was nothing to forget"
    assert said in text_of(client.get(url()))


def test_a_bucket_that_does_not_exist_is_not_found(signed_in) -> None:
    assert signed_in("sre").get(url("app-reset", "quota")).status_code == 404


def test_a_reset_that_reaches_nobody_says_so(signed_in, beat, monkeypatch) -> None:
    monkeypatch.setattr(buckets, "WAIT_S", 0.1)
    beat("d01")
    done = signed_in("sre").post(url("app-reset", "burst"), {"reason": "SUP-1"}, follow=True)
    assert "Burst bucket: no decider filled it." in text_of(done)
    assert "d01: did not answer, so it is not known whether it filled the bucket." in text_of(done)


def test_a_note_is_added_and_stays(signed_in) -> None:
    client = signed_in("support")
    done = client.post(
        url("app-note"),
        {"text": "They replay their queue. https://example.org/SUP-1 <script>alert(1)</script>"},
        follow=True,
    )
    page = shown(done)
    assert "They replay their queue." in page
    assert "Mara Lindqvist, Support" in page
    assert "<script>alert" not in page


def test_a_note_that_says_nothing_is_refused(signed_in) -> None:
    assert "The note is empty." in text_of(
        signed_in("support").post(url("app-note"), {"text": "  "}, follow=True)
    )
    assert not AppNote.objects.exists()


def test_the_auditor_adds_no_note_and_is_told_who_can(signed_in) -> None:
    client = signed_in("auditor")
    assert client.post(url("app-note"), {"text": "x"}).status_code == 403
    assert 'disabled aria-describedby="who-notes"' in shown(client.get(url()))
    assert "Support, SRE, ML owner or Policy admin can do this." in text_of(client.get(url()))


@pytest.mark.parametrize("role", ROLES)
def test_who_sees_who_looked(signed_in, role: str) -> None:
    client = signed_in(role)
    sees = role in ("policy_admin", "auditor")
    assert ("Who looked at this app" in shown(client.get(url()))) is sees
    answer = client.get(url("app-looks"))
    assert answer.status_code == (200 if sees else 403)
    if sees:
        assert "Mara Lindqvist looked at Order sync last" in text_of(answer)


def test_nobody_looked_is_said(signed_in) -> None:
    assert "Nobody has looked at app_none" in text_of(
        signed_in("auditor").get(url("app-looks", app="app_none"))
    )


def test_polling_is_one_look(signed_in, stored) -> None:
    (one,) = [event()]
    stored([one])
    client = signed_in("support")
    name = format_decision_id(one.id)
    for _ in range(4):
        client.get(url())
        client.get(url("app-gauges"), **HTMX)
        client.get(reverse("decision", args=[name]))
    rows = AuditEntry.objects.filter(action="app.look").order_by("seq")
    assert [row.after["what"] for row in rows] == ["the page", "the buckets", f"decision {name}"]
    assert {row.subject for row in rows} == {APP}


def test_a_look_is_written_down_with_the_ticket_someone_works_on(signed_in) -> None:
    client = signed_in("support")
    kept = client.post(reverse("ticket"), {"ticket": " SUP-48119 ", "next": url()})
    assert kept["Location"] == url()
    page = shown(client.get(url()))
    assert 'value="SUP-48119"' in page
    assert AuditEntry.objects.get(action="app.look").reason == "Ticket SUP-48119"
    client.post(reverse("ticket"), {"ticket": "", "next": url()})
    client.get(url())
    assert AuditEntry.objects.filter(action="app.look").first().reason == "No ticket named"


def test_what_is_no_ticket_is_refused_and_the_old_one_stays(signed_in) -> None:
    client = signed_in("support")
    client.post(reverse("ticket"), {"ticket": "SUP-1"})
    page = client.post(reverse("ticket"), {"ticket": "<b>", "next": url()}, follow=True)
    assert "A ticket is letters, digits" in text_of(page)
    assert 'value="SUP-1"' in shown(page)


def test_nothing_is_shown_that_cannot_be_written_down(signed_in, monkeypatch) -> None:
    from control.audit import app_looks

    def full(*_: object, **__: object) -> None:
        raise OSError("no space")

    client = signed_in("support")
    monkeypatch.setattr(app_looks, "record_all", full)
    with pytest.raises(OSError, match="no space"):
        client.get(url())


@pytest.mark.parametrize("name", ["app", "app-gauges", "app-looks"])
def test_nobody_else_may(signed_in, name: str) -> None:
    assert signed_in("").get(url(name)).status_code == 403
    assert Client().get(url(name)).status_code == 302
    assert not AuditEntry.objects.filter(action="app.look").exists()


@pytest.mark.parametrize(("name", "before"), [("app-note", ()), ("ticket", None)])
def test_changes_are_posted(signed_in, name: str, before) -> None:
    there = reverse(name) if before is None else url(name, *before)
    assert signed_in("support").get(there).status_code == 405


@pytest.mark.parametrize(
    "app", ["a/b/../c", "a\x00b", '"><script>alert(1)</script>', "x" * 3_000, "ü ñ"]
)
def test_hostile_names_are_shown_and_not_run(signed_in, decider, app: str) -> None:
    decider()
    client = signed_in("policy_admin")
    for name in ("app", "app-gauges", "app-looks"):
        answer = client.get(url(name, app=app))
        assert answer.status_code == 200
        assert "<script>alert" not in shown(answer)


def test_everyone_who_may_reset_or_note_is_named_by_the_roles() -> None:
    assert roles.who_can(buckets.PERMISSION) == "SRE or Policy admin can do this"
    assert roles.who_can(notes.PERMISSION) == "Support, SRE, ML owner or Policy admin can do this"


def test_a_gauge_never_leaves_its_bar() -> None:
    assert gauges._bar(-1) == 0
    assert gauges._bar(7) == 100
