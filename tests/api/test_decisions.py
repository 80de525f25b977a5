"""Decisions over REST: finding them, why they were made, what would have changed them."""

from __future__ import annotations

import csv
import io

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from control.models import AuditEntry, Look
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action, Reason
from decisions.models import Decision
from explain.shap import backlog
from tests.api.conftest import problem
from tests.decisions.factory import event
from tests.explain import world

LIST = "/api/v1/decisions"


@pytest.fixture
def events(models, document, store) -> list:
    """Decisions of a small real model, explained."""
    rows = [
        world.decided(row, document=document) for row in world.rows(120, seed=22, missing=False)
    ]
    store(rows)
    backlog.explain_since(0.0)
    return rows


@pytest.fixture
def refusal(events):
    return next(e for e in events if e.action != Action.ADMIT and e.risk is not None)


def name(event) -> str:
    return f"dec_{event.id.hex()}"


def test_pages_follow_each_other_and_hold_every_decision_once(events, caller) -> None:
    client, seen, before = caller(), [], None
    while True:
        answer = client.get(
            LIST, {"range": "all", "limit": 50} | ({"before": before} if before else {})
        )
        assert answer.status_code == 200
        seen += [row["id"] for row in answer.json()["results"]]
        if (before := answer.json()["next"]) is None:
            break
    assert sorted(seen) == sorted(name(e) for e in events)
    assert seen == sorted(seen, reverse=True)


def test_filters_include_and_exclude_and_a_wrong_one_is_named(events, caller) -> None:
    client = caller()
    refused = client.get(LIST, {"range": "all", "limit": 200, "not_action": "admit"}).json()[
        "results"
    ]
    assert {row["id"] for row in refused} == {name(e) for e in events if e.action != Action.ADMIT}
    assert all(row["weight"] == pytest.approx(1 / row["inclusion_probability"]) for row in refused)
    assert "shout" in problem(client.get(LIST, {"action": "shout"}))["detail"]
    assert problem(client.get(LIST, {"limit": "0"}))["errors"][0]["pointer"] == "/limit"


def test_a_decision_and_its_record_are_told_and_the_look_is_written_down(refusal, caller) -> None:
    client = caller()
    told = client.get(f"{LIST}/{name(refusal)}").json()
    assert (told["id"], told["action"]) == (name(refusal), Action(refusal.action).word)
    kept = client.get(f"{LIST}/{name(refusal)}/record").json()
    assert kept["token_digest"] == refusal.token_digest
    assert Look.objects.filter(app=refusal.app).exists()


def test_who_may_not_see_credentials_digests_is_not_given_them(refusal, caller) -> None:
    assert "token_digest" not in caller("sre").get(f"{LIST}/{name(refusal)}/record").json()


def test_an_explanation_adds_up_to_the_raw_score(refusal, caller) -> None:
    told = caller().get(f"{LIST}/{name(refusal)}/explanation").json()
    assert told["state"] == "ready"
    assert told["base"] + sum(c["contribution"] for c in told["contributions"]) == pytest.approx(
        refusal.raw_risk, abs=1e-6
    )
    assert told["reasons"]


def test_the_way_back_and_the_replay_are_told(refusal, caller) -> None:
    client = caller()
    back = client.get(f"{LIST}/{name(refusal)}/counterfactual").json()
    assert back["ways"] or back["none"]
    first = client.get(f"{LIST}/{name(refusal)}/replay").json()[0]
    assert (first["state"], first["action"]) == ("ok", Action(refusal.action).word)


def test_the_text_for_the_customer_is_told(refusal, caller) -> None:
    told = caller().get(f"{LIST}/{name(refusal)}/customer-text").json()
    assert name(refusal) in told["reply"]


@pytest.mark.parametrize(
    "part",
    ["", "/record", "/explanation", "/counterfactual", "/replay", "/limits", "/customer-text"],
)
def test_an_operation_about_one_decision_reads_no_other(part, refusal, caller) -> None:
    client = caller()
    with CaptureQueriesContext(connection) as queries:
        assert client.get(f"{LIST}/{name(refusal)}{part}").status_code == 200
    assert sum('FROM "decisions_decision"' in q["sql"] for q in queries) == 1


def test_the_surroundings_are_told_without_the_parts_of_a_page(refusal, caller) -> None:
    client = caller()
    with CaptureQueriesContext(connection) as queries:
        assert client.get(f"{LIST}/{name(refusal)}/around").status_code == 200
    assert not any("explain_modelcheck" in q["sql"] for q in queries)
    assert sum('"decisions_decision"."id" = ' in q["sql"] for q in queries) == 1


@pytest.mark.parametrize(
    "part", ["", "/record", "/explanation", "/counterfactual", "/replay", "/customer-text"]
)
def test_what_is_not_stored_or_no_id_is_a_404(part, caller, db) -> None:
    client = caller()
    for wrong in (f"dec_{'0' * 32}", "nonsense", "dec_01a20777c3fc7005b21a5db821e4b8c6"):
        assert problem(client.get(f"{LIST}/{wrong}{part}"))["status"] == 404


def test_the_export_holds_every_decision_with_its_weight(events, caller) -> None:
    answer = caller().get("/api/v1/exports/decisions", {"range": "all"})
    assert answer["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert {row["decision"] for row in rows} == {name(e) for e in events}
    assert all(float(row["weight"]) >= 1 for row in rows)
    assert AuditEntry.objects.filter(action="decisions.export").count() == 1


def test_an_export_that_may_not_be_asked_for_is_a_problem(caller, db) -> None:
    assert problem(caller("ml_owner").get("/api/v1/exports/decisions"))["status"] == 403


def test_the_list_does_not_read_more_than_a_page(
    events, caller, django_assert_max_num_queries
) -> None:
    client = caller()
    with django_assert_max_num_queries(30):
        assert len(client.get(LIST, {"range": "all", "limit": 100}).json()["results"]) == 100


def test_counts_are_those_of_the_page(events, caller) -> None:
    told = caller().get("/api/v1/decisions/counts", {"range": "all", "not_action": "admit"}).json()
    listed = (
        caller().get(LIST, {"range": "all", "not_action": "admit", "limit": 200}).json()["results"]
    )
    assert told["number"]["kept"] == len(listed)
    assert told["number"]["count"] == pytest.approx(sum(row["weight"] for row in listed))
    assert told["number"]["low"] <= told["number"]["count"] <= told["number"]["high"]
    (actions,) = (facet for facet in told["facets"] if facet["name"] == "action")
    assert {c["value"] for c in actions["choices"]} == {"defer", "batch", "shed", "block", "admit"}
    assert sum(b["kept"] for b in told["histogram"]) == len(listed)
    assert all(b["low"] <= b["count"] <= b["high"] for b in told["histogram"])
    assert any(b["low"] < b["high"] for b in told["histogram"])


def test_a_search_is_kept_shared_and_deleted(db, caller) -> None:
    mine, other = caller("support"), caller("sre")
    made = mine.post(
        "/api/v1/searches",
        {"name": "Blocks", "query": "range=24h&action=block", "shared": True},
        format="json",
    )
    assert made.status_code == 201
    assert "action=block" in made.json()["query"]
    (seen,) = other.get("/api/v1/searches").json()
    assert (seen["name"], seen["mine"]) == ("Blocks", False)
    assert problem(other.delete(f"/api/v1/searches/{seen['id']}"))["status"] == 404
    assert mine.delete(f"/api/v1/searches/{seen['id']}").status_code == 204


def test_a_decision_that_is_not_stored_is_told_by_its_minute(store, document, caller) -> None:
    store([event() for _ in range(3)])
    one = Decision.objects.first()
    near = format_decision_id(one.id.bytes[:6] + bytes.fromhex("7000800000000000") + b"\0\0")
    told = caller().get(f"{LIST}/{near}/minute", {"app": one.app}).json()
    assert told["state"] in ("young", "sampled")
    assert told["number"]["kept"] == 3
    assert told["by_action"]["defer"]["count"] == pytest.approx(6.0)
    assert len(told["similar"]) == 3
    assert problem(caller().get(f"{LIST}/{near}/minute", {"app": "nobody at all"}))["status"] == 400
    assert problem(caller().get(f"{LIST}/nonsense/minute"))["status"] == 404


def test_limits_and_surroundings_are_those_of_the_page(
    events, refusal, document, store, caller
) -> None:
    limits = caller().get(f"{LIST}/{name(refusal)}/limits").json()
    assert limits[0]["key"] == "quota"
    assert sum(one["fired"] for one in limits) == 1
    around = caller().get(f"{LIST}/{name(refusal)}/around").json()
    assert any(line["text"].startswith("This decision") for line in around["timeline"])
    row = world.rows(1, seed=2, missing=False)[0]
    used_up = world.decided(row, document=document, seen_tokens=-299.5)
    store([used_up])
    by_risk = next(e for e in events if e.action == Action.DEFER and e.reason == Reason.RISK_HIGH)
    told = [
        caller().get(f"{LIST}/{name(e)}/around").json()["shared_cause"] for e in (used_up, by_risk)
    ]
    assert told[0]["sentence"]
    assert told[1] is None


@pytest.mark.parametrize("query", [{"q": "nonsense of nobody"}, {"q": "token:" + "ab" * 16}])
def test_an_export_of_what_was_read_as_nothing_is_refused_and_not_recorded(
    query, db, caller
) -> None:
    client = caller()
    before = AuditEntry.objects.count()
    assert "nothing to export" in problem(client.get("/api/v1/exports/decisions", query))["detail"]
    assert AuditEntry.objects.count() == before
