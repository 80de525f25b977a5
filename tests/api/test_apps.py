"""Apps over REST."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from control.models import App, AuditEntry, Look, Tenant
from decider.contracts.vocabulary import Stage
from tests.api.conftest import problem
from tests.control.played import Played
from tests.decisions.factory import event
from tests.decisions.outcome_rows import stored_outcome

APP = "/api/v1/apps/app_7q2m4kx9"


@pytest.fixture
def known(db) -> App:
    tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
    return App.objects.create(id="app_7q2m4kx9", name="Order sync", tenant=tenant, tier=1)


def test_an_app_is_told_with_its_day_and_the_look_is_written_down(known, store, caller) -> None:
    store([event(), event(action=0, reason=20, stage=2)])
    told = caller().get(APP).json()
    assert (told["name"], told["tier"], told["kept"]) == ("Order sync", "standard", 2)
    assert told["count"]["count"] == pytest.approx(4.0)
    assert Look.objects.filter(app="app_7q2m4kx9").count() == 1


def test_its_policy_says_what_sets_each_value(known, document, caller) -> None:
    lines = caller().get(f"{APP}/policy").json()
    assert {"tier"} <= {line["kind"] for line in lines}
    assert all(line["name"] and line["value"] for line in lines)


def test_its_forecast_says_how_often_forecasts_were_right(known, document, caller) -> None:
    told = caller().get(f"{APP}/forecast").json()
    assert told["state"] == "unknown"
    nothing = {
        "right": 0,
        "settled": 0,
        "unsettled": 0,
        "slowed": 0,
        "low": None,
        "high": None,
        "own": False,
        "error_minutes": None,
    }
    assert told["soon"] == told["some"] == told["clear"] == nothing


@pytest.mark.parametrize("part", ["", "/policy", "/forecast"])
def test_an_app_nobody_knows_is_a_404(db, caller, part) -> None:
    assert problem(caller().get(f"/api/v1/apps/app_unheard_of{part}"))["status"] == 404


def test_an_app_id_may_hold_slashes(db, store, caller) -> None:
    store([event(app="shop/eu/1")])
    assert caller().get("/api/v1/apps/shop/eu/1").json()["id"] == "shop/eu/1"
    assert caller().get("/api/v1/apps/shop/eu/1/notes").json() == []


def test_its_day_says_actions_and_endpoints_with_an_interval(known, store, caller) -> None:
    store([event(inclusion_probability=0.5) for _ in range(4)])
    told = caller().get(APP).json()
    assert told["refused"]["count"] == pytest.approx(8.0)
    assert told["refused"]["low"] < 8.0 < told["refused"]["high"]
    same = [told["count"], told["recent"], told["recent_refused"], told["actions"]["defer"]]
    same += [told["endpoints"][0]["count"], told["endpoints"][0]["refused"]]
    assert all(one == told["refused"] for one in same)


def test_it_tells_of_an_app_what_its_page_tells(known, document, store, caller) -> None:
    App.objects.filter(pk=known.pk).update(
        verified=True, cohort_prior=0.12, abuse_history=1, chargeback_history=2
    )
    now = timezone.now()
    ago = now - timedelta(days=3)
    stored_outcome(app=known.pk, kind="chargeback", occurred_at=ago)
    stored_outcome(app=known.pk, kind="churn", occurred_at=ago, matured_at=now + timedelta(days=3))
    sent = store(
        [event(inclusion_probability=0.1, risk=0.5) for _ in range(3)]
        + [event(stage=int(Stage.TRIAGE))]
    )
    opened = {"decision": f"dec_{sent[0].id.hex()}", "reason": "It was announced"}
    assert caller("sre").post("/api/v1/disputes", opened, format="json").status_code == 201
    told = caller().get(APP).json()
    known.refresh_from_db()
    assert told["profile"] == {
        "registered_at": serialized(known.created_at),
        "verified": True,
        "cohort_share": 0.12,
        "abuse": 1,
        "chargebacks": 2,
        "false_throttles": 0,
    }
    assert told["regions"] == ["local"]
    outcomes = told["outcomes"]
    assert (outcomes["matured"]["chargeback"], outcomes["settling"], outcomes["open_disputes"]) == (
        1,
        1,
        1,
    )
    assert told["worst_hour"]["false_throttles"] == pytest.approx(15.0)
    assert told["worst_hour"]["bursts"]["count"] == pytest.approx(2.0)
    assert [line["burst"] for line in told["story"]].count(True) == 1
    assert all(line["text"] and line["at"] for line in told["story"])


def serialized(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def test_an_app_nobody_registered_has_no_profile(store, caller) -> None:
    store([event(app="app_else", action=0)])
    told = caller().get("/api/v1/apps/app_else").json()
    assert (told["profile"], told["worst_hour"]["at"]) == (None, None)


def test_notes_are_added_and_read_by_those_who_may(known, caller) -> None:
    made = caller("support").post(
        f"{APP}/notes", {"text": "They rotate tokens on Mondays."}, format="json"
    )
    assert made.status_code == 201
    assert [n["text"] for n in caller("auditor").get(f"{APP}/notes").json()] == [
        "They rotate tokens on Mondays."
    ]
    assert (
        problem(caller("auditor").post(f"{APP}/notes", {"text": "x"}, format="json"))["status"]
        == 403
    )
    assert (
        problem(caller("support").post(f"{APP}/notes", {"text": " "}, format="json"))["status"]
        == 400
    )


def test_who_looked_is_for_those_who_may_see_it(known, store, caller) -> None:
    store([event()])
    caller("support").get(APP)
    looks = caller("auditor").get(f"{APP}/looks").json()
    assert [(one["what"], one["role"]) for one in looks] == [("the app over the API", "Support")]
    assert problem(caller("support").get(f"{APP}/looks"))["status"] == 403


def test_a_call_names_its_ticket_and_what_is_none_is_refused_before_anything_is_done(
    known, store, caller
) -> None:
    store([event()])
    client = caller()
    assert client.get(APP, headers={"sluice-ticket": "SUP-48119"}).status_code == 200
    assert Look.objects.get().ticket == "SUP-48119"
    for wrong in ("none", "", "SUP 1", "x" * 50):
        refused = client.post(
            f"{APP}/notes", {"text": "x"}, format="json", headers={"sluice-ticket": wrong}
        )
        assert problem(refused)["detail"].startswith("Sluice-Ticket: ")
        assert refused.status_code == 400
    assert client.get(f"{APP}/notes").json() == []


def test_a_session_keeps_its_ticket_unless_the_call_names_another(known, store, person) -> None:
    store([event()])
    client = Client()
    client.force_login(person(), backend="django.contrib.auth.backends.ModelBackend")
    client.post("/ticket", {"ticket": "SUP-1"})
    client.get(APP)
    client.get(APP, headers={"sluice-ticket": "SUP-2"})
    client.get("/apps/app_7q2m4kx9", headers={"sluice-ticket": "SUP-3"})
    tickets = Look.objects.order_by("seq").values_list("ticket", flat=True)
    assert list(tickets) == ["SUP-1", "SUP-2", "SUP-1"]


def test_every_operation_of_the_document_has_the_ticket(caller, db) -> None:
    document = caller().get("/api/v1/schema?format=json").json()
    assert document["components"]["parameters"]["Ticket"]["name"] == "Sluice-Ticket"
    for methods in document["paths"].values():
        for operation in methods.values():
            assert {"$ref": "#/components/parameters/Ticket"} in operation["parameters"]


@pytest.fixture
def decider(valkey, keys, settings) -> Iterator[Played]:
    """One that lives in a thread and has decided ten requests of the app."""
    settings.SLUICE_KEYS = keys
    played = Played(valkey, keys)
    played.track("app_7q2m4kx9", 10)
    yield played
    played.stop()


def test_buckets_are_told_by_each_decider_and_looking_takes_nothing(known, decider, caller) -> None:
    for _ in range(2):
        (told,) = caller().get(f"{APP}/buckets").json()
        assert (told["node"], told["tracked"], told["quota_used"], told["error"]) == (
            "d01",
            True,
            10.0,
            "",
        )
        assert (told["error_budget"], told["errors_left"]) == (0.05, pytest.approx(0.5))
        assert [one["requests"] for one in told["spending"]] == [10.0, 10.0]
        assert 0 < told["tokens"] <= told["burst"]  # ten fewer, and what a second or less gave back


def test_the_error_budget_of_an_enterprise_app_is_told_by_hour_and_day(
    known, decider, caller
) -> None:
    decider.track(APP.rsplit("/", 1)[-1], 490, tier=3)
    (told,) = caller().get(f"{APP}/buckets").json()
    assert told["error_budget"] == 0.0001
    hour, day = told["spending"]
    assert (hour["window_s"], day["window_s"]) == (3_600, 86_400)
    # ten came before its tier was known
    assert (hour["requests"], hour["refusals"], hour["spent"]) == (500.0, 0.0, 0.0)
    assert told["errors_left"] == hour["left"] == pytest.approx(0.05)


def test_an_app_no_decider_tracks_has_no_figures(known, decider, caller) -> None:
    (told,) = caller().get("/api/v1/apps/app_other/buckets").json()
    assert (told["tracked"], told["tokens"]) == (False, None)


def test_a_bucket_is_reset_only_by_those_who_may_and_with_a_reason(known, decider, caller) -> None:
    sre = caller("sre")
    (told,) = sre.post(f"{APP}/buckets/burst/reset", {"reason": "INC-7"}, format="json").json()
    assert told["tokens"] == told["burst"]
    assert (
        AuditEntry.objects.filter(
            action="bucket.reset", subject="app_7q2m4kx9", reason="INC-7"
        ).count()
        == 1
    )
    assert problem(sre.post(f"{APP}/buckets/burst/reset", {}, format="json"))["status"] == 400
    assert (
        problem(sre.post(f"{APP}/buckets/quota/reset", {"reason": "INC-7"}, format="json"))[
            "status"
        ]
        == 404
    )
    assert (
        problem(
            caller("support").post(f"{APP}/buckets/burst/reset", {"reason": "x"}, format="json")
        )["status"]
        == 403
    )
