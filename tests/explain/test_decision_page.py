"""The decision page answers for every kind of decision and every kind of reader."""

from __future__ import annotations

import html
import json
import math
import re
import time
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from console.pages.decision import replay_panels
from console.pages.decision import views as decision_views
from control.audit.actors import Actor
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action, MlState, Reason, Stage
from decisions.outcomes import reports
from explain import tasks
from explain.models import Explanation
from explain.shap import backlog
from tests.database import as_owner
from tests.decisions.factory import id_at
from tests.explain import world
from tests.pages import shown

pytestmark = pytest.mark.django_db
ROLES = ("support", "sre", "ml_owner", "policy_admin", "auditor")


def address(event) -> str:
    return reverse("decision", args=[format_decision_id(event.id)])


def text_of(response) -> str:
    found = re.sub(r"<(script|style|svg).*?</\1>", " ", shown(response), flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found)))


@pytest.fixture
def events(models, document, store) -> list:
    """Decisions of every stage, explained."""
    rows = world.rows(120, seed=22, missing=False)
    quiet = world.rows(400, seed=3, missing=False)
    found = [world.decided(row, document=document) for row in rows]
    found += [world.decided(row, document=document, seen_tokens=100.0) for row in quiet]
    found += [
        world.decided(
            row,
            document=document,
            seen_service_price=1.1,
            seen_service_utilisation=0.97,
            seen_tenant_usage=9.9,
            seen_tenant_fair_share=10.0,
        )
        for row in rows[:60]
    ]
    found.append(
        world.decided(rows[0], document=document, seen_quota_left=0.0, seen_quota_reset=3600.0)
    )
    found.append(
        world.decided(
            rows[0],
            document=document,
            seen_quota_left=0.0,
            seen_quota_reset=3600.0,
            seen_lease_due=2.0,
        )
    )
    found.append(world.decided(rows[0], document=document, seen_list_verdict=2.0))
    found.append(
        world.decided(quiet[0], document=document, seen_override_action=float(Action.SHED))
    )
    found.append(world.decided(rows[0], document=document, ml_state=MlState.SWITCHED_OFF))
    found.append(world.decided(rows[0], document=document, ml_state=MlState.DECIDER_LATE))
    store(found)
    backlog.explain_since(0.0)
    return found


def first(events: list, **wanted):
    return next(e for e in events if all(getattr(e, k) == v for k, v in wanted.items()))


@pytest.mark.parametrize("part", ["decision", "decision-print", "ui-explanation", "ui-around"])
def test_a_page_and_its_fragments_look_their_decision_up_once(part, events, browser) -> None:
    refused = first(events, reason=Reason.RISK_HIGH, action=Action.DEFER)
    client = browser()
    with CaptureQueriesContext(connection) as queries:
        response = client.get(reverse(part, args=[format_decision_id(refused.id)]))
    assert response.status_code == 200
    assert sum('"decisions_decision"."id" = ' in q["sql"] for q in queries) == 1


def test_a_decision_by_risk_says_what_was_done_and_why_and_adds_up(events, browser) -> None:
    refused = first(events, reason=Reason.RISK_HIGH, action=Action.DEFER)
    response = browser().get(address(refused))
    text = text_of(response)
    assert response.status_code == 200
    assert re.search(r"was asked to wait \d+ seconds? because (it|its|the) ", text)
    assert f"risk {refused.risk:.2f}, at or above the" in text
    assert "Replay verified" in text
    assert re.search(r"[A-Z0-9_]+_(HIGH|LOW) · [^·]+, usual ", text)
    assert "How the score adds up Each bar starts where the last one ended" in text
    assert "Decided: defer" in text
    base, total, score = re.search(r"adds up: ([\d.]+) [+−] ([\d.]+) = (\d\.\d+)", text).groups()
    assert float(score) == round(refused.risk, 2)
    assert abs(float(score) - float(base)) == pytest.approx(float(total))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"reason": Reason.QUOTA_EXHAUSTED}, "its daily quota of 2,000,000 requests is used up"),
        (
            {"reason": Reason.LEASE_AWAITED},
            "this decider’s part of its daily quota of 2,000,000 requests is used up, and no more",
        ),
        ({"reason": Reason.BLOCK_LISTED}, "was blocked because it is on the block list"),
        ({"stage": Stage.OVERRIDE}, "an operator override refuses it"),
        ({"reason": Reason.HARMLESS}, "was admitted because it is within its plan"),
        (
            {"stage": Stage.FALLBACK},
            "ML was switched off by the switch “All ML”, so token buckets by tier decided",
        ),
        (
            {"ml_state": MlState.DECIDER_LATE},
            "the decider was late and had no time to ask the model, so token buckets by tier",
        ),
        ({"reason": Reason.SERVICE_OVERLOADED}, "orders-read was at 97% of its capacity"),
        (
            {"reason": Reason.RISK_LOW, "action": Action.ADMIT},
            "was admitted because its risk is low enough",
        ),
        ({"action": Action.BLOCK, "reason": Reason.RISK_HIGH}, "was blocked because"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_stage_tells_its_own_story(events, browser, wanted, said) -> None:
    response = browser().get(address(first(events, **wanted)))
    assert response.status_code == 200
    assert said in text_of(response)


def test_a_decision_without_a_score_says_which_stage_decided(events, browser) -> None:
    text = text_of(browser().get(address(first(events, stage=Stage.GUARD))))
    assert "There is no score. Guard decided" in text


@pytest.mark.parametrize("role", ROLES)
def test_every_role_may_read_it(events, browser, role) -> None:
    refused = first(events, reason=Reason.RISK_HIGH)
    text = shown(browser(role).get(address(refused)))
    assert (refused.token_digest in text) == (role in ("support", "auditor"))


def test_someone_without_a_role_may_not(events, browser) -> None:
    assert browser("").get(address(events[0])).status_code == 403


def test_someone_signed_out_is_asked_to_sign_in(events) -> None:
    response = Client().get(address(events[0]))
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("login"))


def test_a_decision_that_was_not_kept_says_so(document, browser) -> None:
    response = browser().get(
        reverse("decision", args=[format_decision_id(id_at(time.time() - 3_600))])
    )
    assert response.status_code == 404
    assert "This decision was not kept" in text_of(response)


@pytest.mark.parametrize("wrong", ["nonsense", "dec_12", "dec_" + "z" * 32, "x" * 5000])
def test_what_is_no_decision_id_is_not_found(browser, wrong) -> None:
    assert browser().get(reverse("decision", args=[wrong])).status_code == 404


def test_an_id_in_another_form_leads_to_the_one_address(events, browser) -> None:
    response = browser().get(reverse("decision", args=[events[0].id.hex().upper()]))
    assert response.status_code == 301
    assert response["Location"] == address(events[0])


def test_hostile_texts_are_shown_and_not_run(document, models, store, browser) -> None:
    bad = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ d }}'
    row = world.rows(1, missing=False)[0]
    (event,) = store(
        [
            world.decided(
                row,
                document=document,
                app=bad,
                request_id=bad,
                endpoint=bad,
                tenant=bad,
                node=bad,
                service=bad,
            )
        ]
    )
    response = browser().get(address(event))
    assert response.status_code == 200
    assert "<img src=x" not in shown(response)
    assert "<script>alert" not in shown(response)
    assert bad in html.unescape(shown(response))


def test_while_the_explanation_waits_the_panel_asks_again_and_then_stops(
    models, document, store, browser, monkeypatch
) -> None:
    monkeypatch.setattr(decision_views, "_ask_for", lambda found: None)
    event = next(
        e
        for e in store([world.decided(r, document=document) for r in world.rows(30, seed=2)])
        if e.reason == Reason.RISK_HIGH
    )
    client, panel = browser(), reverse("ui-explanation", args=[format_decision_id(event.id)])
    page = shown(client.get(address(event)))
    assert f'hx-get="{panel}?n=0"' in page
    waiting = shown(client.get(panel + "?n=0"))
    assert f'hx-get="{panel}?n=1"' in waiting
    assert "hx-get" not in shown(client.get(f"{panel}?n={decision_views.POLLS}"))
    backlog.explain_since(0.0)
    ready = shown(client.get(panel + "?n=3"))
    assert "hx-get" not in ready
    assert "How the score adds up" in ready
    assert 'id="why" hx-swap-oob="true"' in ready
    assert 'id="h-verdict" hx-swap-oob="true"' in ready


def test_opening_a_page_asks_for_its_explanation(
    models, document, store, browser, monkeypatch
) -> None:
    asked = []
    monkeypatch.setattr(
        decision_views.current_app,
        "send_task",
        lambda name, arguments, **_: asked.append((name, arguments)),
    )
    event = next(
        e
        for e in store([world.decided(r, document=document) for r in world.rows(30, seed=2)])
        if e.raw_risk is not None
    )
    browser().get(reverse("ui-explanation", args=[format_decision_id(event.id)]))
    ((name, (text,)),) = asked
    assert name == tasks.explain_one.name
    assert tasks.explain_one(text) == 1


def test_without_a_broker_the_page_still_works(
    models, document, store, browser, monkeypatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise decision_views.BrokerError("away")

    monkeypatch.setattr(decision_views.current_app, "send_task", away)
    event = next(
        e
        for e in store([world.decided(r, document=document) for r in world.rows(30, seed=2)])
        if e.raw_risk is not None
    )
    assert (
        browser().get(reverse("ui-explanation", args=[format_decision_id(event.id)])).status_code
        == 200
    )


def test_values_that_do_not_add_up_are_shown_with_a_warning(events, browser) -> None:
    refused = first(events, reason=Reason.RISK_HIGH)
    with as_owner():
        Explanation.objects.filter(decision=refused.id.hex()).update(mismatch=True, sum_error=0.25)
    assert "do not add up to the score that was used" in text_of(browser().get(address(refused)))


def test_a_record_that_decides_otherwise_is_called_different(
    models, document, store, browser
) -> None:
    row = world.rows(1, seed=8, missing=False)[0]
    (event,) = store([world.decided(row, document=document, risk=0.123456789)])
    text = text_of(browser().get(address(event)))
    assert "Replay differs" in text
    assert "0.123456789" in text


def test_with_the_model_file_gone_the_page_says_what_it_cannot_show(
    models, document, store, browser
) -> None:
    from tests.explain.conftest import forget

    event = next(
        e
        for e in store([world.decided(r, document=document) for r in world.rows(30, seed=2)])
        if e.raw_risk is not None
    )
    next(models.iterdir()).unlink()
    forget()
    text = text_of(browser().get(address(event)))
    assert "The score cannot be explained here" in text
    assert "Policy verified" in text


def test_an_unknown_config_version_is_said(models, store, browser) -> None:
    (event,) = store([world.decided(world.rows(1)[0], config_version=77)])
    text = text_of(browser().get(address(event)))
    assert "config 77 is not kept here" in text


def test_a_record_of_another_feature_schema_still_has_a_page(
    models, document, store, browser
) -> None:
    row = world.rows(1, missing=False)[0]
    (event,) = store(
        [
            world.decided(
                row,
                document=document,
                feature_schema="0123456789abcdef",
                features=np.zeros(3, "<f4").tobytes(),
            )
        ]
    )
    text = text_of(browser().get(address(event)))
    assert "recorded under feature schema" in text


def test_it_can_be_decided_now_with_and_without_script(events, browser) -> None:
    refused, client = first(events, reason=Reason.RISK_HIGH, action=Action.DEFER), browser()
    where = reverse("ui-decided-now", args=[format_decision_id(refused.id)])
    fragment = text_of(client.post(where, headers={"hx-request": "true"}))
    assert "As decided now, config 1 Defer" in fragment
    assert "no change" in fragment
    assert "<html" in shown(client.post(where))
    assert client.get(where).status_code == 405


def test_newer_and_older_decisions_of_the_app_are_a_key_away(events, browser) -> None:
    page = shown(browser().get(address(events[5])))
    assert f'href="{address(events[6])}" data-key="k"' in page
    assert f'href="{address(events[4])}" data-key="j"' in page


def test_the_page_says_what_the_customer_may_be_told_in_three_forms(events, browser) -> None:
    refused = first(events, reason=Reason.RISK_HIGH)
    page = shown(browser().get(address(refused)))
    reply = html.unescape(re.search(r'id="say-text">(.*?)</p>', page, re.S)[1])
    assert reply.endswith(f"Reference: {format_decision_id(refused.id)}")
    assert "was not served (HTTP 429, Retry-After" in reply
    body = json.loads(
        html.unescape(re.search(r'id="say-body" tabindex="0">(.*?)</pre>', page, re.S)[1])
    )
    assert body["detail"] == html.unescape(re.search(r'id="say-line">(.*?)</p>', page, re.S)[1])
    assert 'data-copy="#say-text" data-key="c"' in page
    assert f"{refused.risk:.2f}" not in reply


def test_the_text_for_the_customer_follows_when_the_reasons_arrive(
    models, document, store, browser
) -> None:
    row = world.rows(1, seed=22, missing=False)[0]
    made = store(
        [
            world.decided(
                row,
                document=document,
                stage=int(Stage.RANK),
                reason=int(Reason.RISK_HIGH),
                action=int(Action.DEFER),
            )
        ]
    )[0]
    backlog.explain_since(made.at - 60)
    swapped = shown(browser().get(reverse("ui-explanation", args=[format_decision_id(made.id)])))
    assert (
        '<section class="panel no-print say" id="say" aria-labelledby="h-say" hx-swap-oob="true">'
        in swapped
    )


def test_the_print_view_has_verdict_facts_reasons_and_the_reply_and_no_frame(
    events, browser
) -> None:
    refused = first(events, reason=Reason.RISK_HIGH)
    response = browser().get(reverse("decision-print", args=[format_decision_id(refused.id)]))
    page, text = shown(response), text_of(response)
    assert response.status_code == 200
    assert page.count("<h1") == 1
    for there in (
        "because",
        "raised its risk",
        "Safe to tell the customer",
        "Reference: dec_",
        "Internal: only",
    ):
        assert there in text
    for frame in ('class="topbar"', 'class="strip"', 'class="nav"'):
        assert frame not in page
    assert address(refused) in text
    assert (
        browser("")
        .get(reverse("decision-print", args=[format_decision_id(refused.id)]))
        .status_code
        == 403
    )


def test_outcomes_that_came_later_are_on_the_page(events, browser) -> None:
    refused = first(events, reason=Reason.RISK_HIGH)
    assert "Nothing has been reported." in text_of(browser().get(address(refused)))
    told = reports.Report(
        "cb-1",
        "chargeback",
        datetime.now(UTC),
        decision=uuid.UUID(bytes=refused.id),
        note="<b>PAY-812</b>",
    )
    reports.report_all(
        [told], by=Actor("Priya Raman", "p", "Policy admin"), reason="By hand", source="api"
    )
    page = browser("sre").get(address(refused))
    assert "Chargeback, this decision Counts" in text_of(page)
    assert "<b>PAY-812" not in shown(page)


def test_a_wait_that_was_told_before_is_said_to_stand(models, document, store, browser) -> None:
    """It would seem to follow from what refused this request: a bucket that refills in seconds."""
    row = world.rows(1, seed=3, missing=False)[0]
    at = time.time() - 600.0
    made = [world.decided(row, document=document, seen_tokens=-2.0) for _ in range(4)]
    ends = (900.0, 900.0, 40.0, 905.0)
    for k, (e, end) in enumerate(zip(made, ends, strict=True)):
        e.at, e.app = at + k, f"app_{'b' if k == 3 else 'a'}"
        e.id, e.action, e.stage = id_at(e.at), int(Action.DEFER), int(Stage.TRIAGE)
        e.reason, e.retry_after = int(Reason.BURST_EXHAUSTED), end - k
    first, again, shorter, other = store(made)
    told = "An earlier response told it to wait until"
    client = browser()
    until = datetime.fromtimestamp(math.ceil(at + 900.0), UTC)
    assert f"{told} {until:%H:%M:%S} UTC, and that stands." in text_of(client.get(address(again)))
    for e in (first, shorter, other):
        assert told not in text_of(client.get(address(e)))


@pytest.mark.parametrize("helps", [True, False])
def test_a_batch_that_would_have_been_refused_as_well_is_told_beside_the_verdict(
    helps, models, document, store, browser, monkeypatch
) -> None:
    rows = world.rows(60, seed=22, missing=False)
    asked = [world.decided(row, document=document, seen_batchable=1.0) for row in rows]
    found = store([next(e for e in asked if e.action == Action.BATCH)])[0]
    monkeypatch.setattr(replay_panels, "batch_helps", lambda d, known: helps)
    page = browser().get(address(found)).content.decode()
    lead = re.search(r'<p class="lead">(.*?)</p>', page, re.S)[1]
    assert ("A batch would have been refused as well" in lead) != helps
