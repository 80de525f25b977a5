from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from console.pages.home import mix
from console.pages.home import page as home_page
from control.audit.actors import SYSTEM, Actor
from control.config import changes
from control.errors import Refused
from control.models import AnchorReport
from decider.contracts.config import Switch
from decider.contracts.vocabulary import Action, MlState
from decisions.models import Decision, utc
from decisions.models.outcome import OutcomeKind
from decisions.outcomes import disputes, reports
from decisions.outcomes.reports import Report
from tests.console.conftest import MODEL, load
from tests.decisions.factory import event, unranked
from tests.pages import shown


def compose(person, role: str = "sre", asked: str = "") -> home_page.Home:
    return home_page.home_page(person(role), asked)


def traffic() -> list:
    now = time.time() - 20
    refused = [event(at=now - k, inclusion_probability=0.5, tier=3) for k in range(3)]
    return [
        *refused,
        *(unranked(at=now - k) for k in range(4)),
        event(at=now, action=int(Action.SHED), inclusion_probability=0.5),
    ]


def test_a_fresh_installation_says_what_is_true(person, publish) -> None:
    page = compose(person)
    assert page.headline == "Ready. No decider has reported yet"
    assert page.chart is None
    assert page.span.key == "15m"


def test_a_calm_day_reads_as_one(person, publish, beat, stored) -> None:
    publish(model=MODEL)
    beat("d01")
    beat("d02")
    stored([unranked(at=time.time() - 20) for _ in range(6)])
    page = compose(person)
    assert page.headline == "Running normally"
    assert (
        page.lead
        == "100.0% of about 300 requests a minute are admitted. ML decides on all 2 deciders, with"
        " risk v1."
    )
    assert page.attention == ()


def test_the_headline_counts_what_to_look_at(person, publish, beat, stored) -> None:
    publish(model=MODEL)
    beat("d01")
    beat("d02", ago=40)
    stored(traffic())
    page = compose(person)
    assert page.headline == f"Running, degraded, {len(page.attention)} things to look at"
    assert page.attention[0].item.title == "d02 has stopped reporting"
    assert page.attention[0].href == "/switches#propagation"


@pytest.mark.parametrize(
    ("switch", "says"),
    [
        ("all_ml", "ML is off, the fallback limiter decides"),
        ("observe_only", "Observing only, everything is admitted"),
    ],
)
def test_a_switch_is_the_headline(person, publish, beat, switch: str, says: str) -> None:
    publish(model=MODEL, switches=[Switch(switch)])
    beat(ml_state=int(MlState.SWITCHED_OFF if switch == "all_ml" else MlState.LIVE))
    assert compose(person).headline.startswith(says)


def test_counts_are_weighted(person, stored) -> None:
    stored(traffic())
    chart = compose(person).chart
    assert chart is not None
    shown = {now.action: now.rate for now in chart.now}
    assert shown == {
        Action.ADMIT: 200,
        Action.DEFER: 6,
        Action.BATCH: 0,
        Action.SHED: 2,
        Action.BLOCK: 0,
    }
    assert chart.refused_rate == pytest.approx(8)
    assert chart.decided_by == (("ML ranking", 8.0),)


def test_guardrails_show_their_limit_and_admit_what_is_not_measured(
    person, stored, publish, beat, gateway
) -> None:
    publish(model=MODEL)
    beat(latency_p99_us=3_600.0)
    gateway(recent_asked=1_000, recent_unasked=240, recent_p99_ms=16.2)
    stored(traffic())
    throttle, shed, enterprise, added, unasked = compose(person).tiles
    assert (throttle.figure, throttle.verdict.word) == ("–", "Not measured")
    assert (shed.figure, shed.limit, shed.verdict.word) == ("0.96%", "limit 1.00%", "Close")
    assert (enterprise.figure, enterprise.verdict.word) == ("100.00%", "Over")
    assert (added.label, added.figure, added.verdict.word) == ("Time added, p99", "16.2 ms", "Over")
    assert added.finding.endswith("Deciders’ own work, p99: d01 3.6 ms.")
    assert (unasked.figure, unasked.verdict.word) == ("24.00%", "Over")
    assert unasked.finding.startswith("240 of 1,000 requests in the last minute.")


def test_without_a_gateway_that_tells_nothing_stands_for_its_time(
    person, stored, publish, beat
) -> None:
    publish(model=MODEL)
    beat(latency_p99_us=900.0)
    stored(traffic())
    *_, added, unasked = compose(person).tiles
    assert (added.figure, added.verdict.word) == ("–", "Not measured")
    assert "0.9" in added.finding
    assert (unasked.figure, unasked.verdict.word) == ("–", "Not measured")


def test_unanswered_checks_degrade_the_headline_and_have_one_row(
    person, stored, publish, beat, gateway
) -> None:
    publish(model=MODEL)
    beat()
    gateway(recent_asked=1_000, recent_unasked=240, recent_p99_ms=8.0)
    stored(traffic())
    home = compose(person)
    assert home.headline.startswith("Running, degraded")
    rows = [row.item.title for row in home.attention if "24.0" in row.item.title]
    assert rows == ["24.0% of requests got no decision in time"]


def test_services_are_ordered_by_pressure_and_a_late_feed_says_so(
    person, publish, beat, stored
) -> None:
    publish(model=MODEL)
    beat(
        services=[
            load("orders-read", 0.5),
            load("ledger-write", 0.93),
            load("auth", 0.2, feedback_age_s=400),
        ]
    )
    stored(
        [
            event(
                at=time.time() - 20,
                service="ledger-write",
                action=int(Action.SHED),
                inclusion_probability=0.5,
            )
        ]
    )
    rows = compose(person).services
    assert [(row.name, row.word) for row in rows] == [
        ("ledger-write", "Shedding"),
        ("orders-read", "Fine"),
        ("auth", "Late feed"),
    ]
    assert (rows[0].shed, rows[0].bar, rows[0].look) == (2, 93, "bad")


def test_operator_actions_are_shown_to_those_who_may_read_the_audit_log(person, publish) -> None:
    changes.first(by=SYSTEM, reason="A new installation")
    assert [entry.actor for entry in compose(person, "auditor").actions] == ["System"]
    assert compose(person, "").actions == ()


@pytest.mark.parametrize("asked", list(mix.RANGES))
def test_every_range_draws(signed_in, stored, publish, beat, asked: str) -> None:
    publish(model=MODEL)
    beat()
    stored(traffic())
    page = shown(signed_in("sre").get(reverse("home"), {"range": asked}))
    assert 'role="img" aria-label="Decisions a minute by action' in page
    assert f'?range={asked}" aria-current="true"' in page


def test_a_range_that_does_not_exist_falls_back(signed_in) -> None:
    assert signed_in("sre").get(reverse("home"), {"range": "'; DROP TABLE"}).status_code == 200


def test_the_live_part_is_the_same_without_the_frame(signed_in, publish) -> None:
    part = shown(signed_in("sre").get(reverse("ui-home-mix"), {"range": "1h"}))
    assert "<h1>" in part
    assert "<html" not in part


def test_without_valkey_the_page_stands_and_says_what_is_missing(
    signed_in, settings, stored
) -> None:
    stored(traffic())
    client = signed_in("sre")
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    page = client.get(reverse("home"))
    text = shown(page)
    assert page.status_code == 200
    assert "Status unknown: Valkey does not answer" in text
    assert "what deciders report of the services is not known" in text
    assert "Not admitted: 8 a minute" in text


def test_names_from_traffic_are_escaped(signed_in, publish, beat, stored) -> None:
    publish(model=MODEL)
    beat("<img src=x>", services=[load("<script>alert(1)</script>", 1.2)])
    stored(traffic())
    page = shown(signed_in("sre").get(reverse("home")))
    assert "<script>alert" not in page
    assert "<img src=x>" not in page


def test_a_refusal_found_wrong_is_a_lower_bound_of_the_false_throttle_rate(stored, person) -> None:
    now = time.time()
    made = [event(at=now - 200, inclusion_probability=0.5) for _ in range(10)]
    stored(made)
    assert "No refusal of this time" in compose(person, "auditor").tiles[0].finding
    with pytest.raises(Refused, match="Only a dispute tells"):
        reports.report_all(
            [Report("c-1", OutcomeKind.FALSE_THROTTLE, utc(now - 200), app=made[0].app)],
            by=SYSTEM,
            reason="found wrong",
            source="api",
        )
    assert "No refusal of this time" in compose(person, "policy_admin").tiles[0].finding
    d = Decision.objects.get(id=uuid.UUID(bytes=made[0].id))
    opened = disputes.open_dispute(
        d, by=Actor("Olu Ade", "olu@example.org", "Support"), reason="It was announced"
    )
    disputes.adjudicate(
        opened.pk, "uphold", by=Actor("Priya Raman", "priya@example.org", "Admin"), reason="It was"
    )
    tile = compose(person).tiles[0]
    assert (tile.figure, tile.limit) == ("≥ 10.00%", "of refusals")
    assert "1 found wrong and 0 found right, of about 20 not admitted." in tile.finding


def test_an_audit_log_that_is_not_anchored_has_a_line(signed_in, publish, beat) -> None:
    publish(model=MODEL)
    beat()
    assert "not anchored" not in shown(signed_in("sre").get(reverse("home")))
    since = timezone.now() - timedelta(minutes=9)
    AnchorReport.objects.create(why="The receiver is away.", failing_since=since, waiting=2)
    page = shown(signed_in("auditor").get(reverse("home")))
    assert "The end of the audit log is not anchored as it should be" in page
    assert "The receiver is away. It began 9 m" in page
    assert "2 wait to be sent." in page
