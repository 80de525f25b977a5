"""The page of an app: how it is, and what became of its refusals."""

from __future__ import annotations

import re
import time
import uuid
from datetime import timedelta

import msgspec
import pytest
from django.db import connection
from django.utils import timezone

from console import tasks
from control.audit.actors import Actor
from control.deciders import profiles
from control.errors import StoreUnavailable
from control.models import App
from decider.contracts.sealed import profiles as sealed_profiles
from decider.contracts.store import PROFILE_PREFIX, Profile
from decider.contracts.vocabulary import Stage
from decider.store_users.roles import Role
from decisions.models import Decision
from decisions.outcomes import disputes, reports
from tests.console.one_app import APP, ROLES, text_of, url
from tests.database import without_triggers
from tests.decisions.factory import event, unranked
from tests.decisions.outcome_rows import stored_outcome, stored_verdict
from tests.pages import shown
from tests.servers import store_url
from tests.told import token_key

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("known")]


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
        r"by ML in the worst hour, from \d\d:00: 0.5 , no limit that always holds for its tier"
        r" About 30 more were refused in that hour",
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
        r" no limit that always holds for its tier",
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
    days = [timedelta(days=d) for d in (1, 2, 40)]
    for ago in days:
        stored_verdict(APP, now - ago)
    stored_outcome(app=APP, kind="chargeback", occurred_at=now - days[0])
    stored_outcome(app=APP, kind="churn", occurred_at=now - days[0], matured_at=now + days[0])
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
    *, days: int = 1, decision: uuid.UUID | None = None, settles: int = 0, app: str = APP
) -> None:
    now = timezone.now()
    stored_verdict(
        app,
        now - timedelta(days=days),
        decision=decision,
        matured_at=now + timedelta(days=settles),
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
    stored_verdict(APP, timezone.now() - timedelta(days=1), decision=which, wrong=False)
    wrong(decision=which)
    wrong()
    wrong(days=91)
    wrong(settles=1)
    wrong(app="app_other")
    App.objects.filter(id=APP).update(false_throttle_history=4)
    text = text_of(signed_in("support").get(url()))
    assert "Refusals found wrong, 90 d 2 Found wrong before it was registered here 4" in text
    assert reports.found_wrong(time.time()) == {APP: 2, "app_other": 1}


@pytest.fixture
def as_worker(settings) -> None:
    """The worker tells deciders; the console may not write profiles."""
    settings.VALKEY_URL = store_url(Role.WORKER)


def profile_of(valkey) -> Profile:
    """The app's profile as deciders read it."""
    data = valkey.get(PROFILE_PREFIX + APP)
    return sealed_profiles.unseal(data, sealed_profiles.derive_key(token_key()))


def test_the_deciders_are_told_of_it_once_and_of_its_end(
    as_worker, valkey, signed_in, stored
) -> None:
    App.objects.filter(id=APP).update(false_throttle_history=4)
    wrong()
    wrong(app="app_nobody_registered")
    assert (tasks.tell_found_wrong(), tasks.tell_found_wrong()) == (1, 0)
    assert profile_of(valkey).false_throttle_history == 5
    with without_triggers(), connection.cursor() as cursor:  # 90 days later
        cursor.execute(
            "UPDATE decisions_outcome SET occurred_at = occurred_at - interval '90 days'"
        )
    assert tasks.tell_found_wrong() == 1
    assert profile_of(valkey).false_throttle_history == 4


def test_what_could_not_be_told_is_told_the_next_time(
    as_worker, valkey, signed_in, stored, monkeypatch
) -> None:
    def away(apps):
        raise StoreUnavailable("away")

    wrong()
    with monkeypatch.context() as patch:
        patch.setattr(profiles.publish, "push_profiles", away)
        assert tasks.tell_found_wrong() == 0
    assert App.objects.get(id=APP).found_wrong == 0
    assert tasks.tell_found_wrong() == 1


def test_ingest_that_is_behind_is_said(signed_in, beat, valkey) -> None:
    from decider.contracts import store

    beat()
    valkey.set(
        store.INGEST_STATUS_KEY,
        msgspec.msgpack.encode(store.IngestStatus(time.time(), 240.0, 10, 0)),
    )
    assert "Ingest is 4 m behind." in text_of(signed_in("support").get(url()))
