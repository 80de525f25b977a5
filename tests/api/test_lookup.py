"""Looking up any text over REST: read as the search box reads it, and a credential never
repeated.
"""

from __future__ import annotations

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from console.pages.lookup import pasted_text
from control.models import App, Look, Tenant
from decider.contracts.ids import format_decision_id, token_digest
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import Key, Receipt
from tests.api.conftest import problem
from tests.decisions.factory import event, id_at

pytestmark = pytest.mark.django_db
URL = "/api/v1/lookup"
APP = "app_7q2m4kx9"
SECRET = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"


@pytest.fixture
def token_key(settings, keys) -> bytes:
    settings.SLUICE_KEYS = keys
    return bytes.fromhex((keys / "token.key").read_text())


@pytest.fixture
def one(store, token_key):
    """A stored decision that carried the credential."""
    App.objects.create(
        id=APP,
        name="Order sync",
        tenant=Tenant.objects.create(id="ten_x", name="Tidewell Retail"),
        tier=1,
    )
    return store([event(token_digest=token_digest(token_key, SECRET))])[0]


def ask(client, text: str) -> dict:
    return client.post(URL, {"text": text}, format="json").json()


def looks() -> list[str]:
    return list(Look.objects.order_by("seq").values_list("app", flat=True))


@pytest.mark.parametrize("written", [SECRET, f" Bearer {SECRET}"])
def test_a_token_leads_to_its_apps_and_a_search_without_it(one, token_key, caller, written) -> None:
    client = caller()
    with CaptureQueriesContext(connection) as queries:
        answer = client.post(URL, {"text": written}, format="json")
    told = answer.json()
    assert (told["read_as"], told["apps"], told["decision"]) == ("token", [APP], None)
    assert told["q"] == f"token:{token_digest(token_key, SECRET)}"
    assert SECRET not in answer.content.decode()
    assert not any(SECRET in q["sql"] for q in queries)
    (found,) = client.get("/api/v1/decisions", {"q": told["q"]}).json()["results"]
    assert found["id"] == format_decision_id(one.id)
    assert looks()[0] == APP


def test_who_may_not_see_digests_is_told_so(one, caller) -> None:
    told = ask(caller("sre"), SECRET)
    assert (told["read_as"], told["apps"], told["q"], told["hint"]) == (
        "nothing",
        [],
        "",
        pasted_text.NOT_YOURS,
    )
    digest = ask(caller(), SECRET)["q"]
    assert ask(caller("sre"), digest)["hint"] == pasted_text.NOT_YOURS


def test_an_unknown_credential_is_said_to_be_one(token_key, caller) -> None:
    told = ask(caller(), SECRET)
    assert (told["read_as"], told["q"]) == ("nothing", "")
    assert "looks like a credential" in told["hint"]
    assert looks() == []


def test_ids_and_names_are_read(one, caller) -> None:
    client, name = caller(), format_decision_id(one.id)
    by_id, by_request, by_name, by_app = (
        ask(client, text) for text in (name, one.request_id, "order sync", APP)
    )
    assert (by_id["read_as"], by_id["decision"], by_id["stored"], by_id["q"]) == (
        "decision",
        name,
        True,
        name,
    )
    assert (by_request["read_as"], by_request["decision"], by_request["q"]) == (
        "request",
        name,
        one.request_id,
    )
    assert (by_name["read_as"], by_app["read_as"]) == ("app", "app")
    assert [told["apps"] for told in (by_id, by_request, by_name, by_app)] == [[APP]] * 4
    assert looks() == [APP]
    assert client.get("/api/v1/decisions", {"q": by_name["q"]}).json()["results"][0]["id"] == name


def test_a_decision_that_is_not_stored_is_read_and_nothing_looked_at(one, caller) -> None:
    name = format_decision_id(id_at(time.time() - 60))
    told = ask(caller(), name)
    assert (told["decision"], told["stored"], told["apps"], looks()) == (name, False, [], [])


def test_a_receipt_leads_to_its_decision_and_its_app(one, token_key, caller) -> None:
    key = Key(token_key)
    sealed = key.seal(
        Receipt(
            one.id,
            one.at,
            Action.DEFER,
            Stage.RANK,
            Reason.RISK_HIGH,
            4,
            1,
            "",
            key.pseudonym(APP),
            (),
        )
    )
    told = ask(caller(), sealed)
    name = format_decision_id(one.id)
    assert told == {
        "read_as": "receipt",
        "label": "",
        "hint": "",
        "apps": [APP],
        "decision": name,
        "stored": True,
        "q": name,
    }
    broken = ask(caller(), sealed[:-1] + ("A" if sealed[-1] != "A" else "g"))
    assert (broken["read_as"], broken["q"]) == ("nothing", "")
    assert "Read as a receipt." in broken["hint"]


def test_nothing_known_is_nothing_and_no_text_is_a_problem(one, caller) -> None:
    assert ask(caller(), "who is this")["read_as"] == "nothing"
    for body in ({}, {"text": " "}, {"text": []}, {"text": "x" * 9_000}, {"text": "a\x00"}):
        assert problem(caller().post(URL, body, format="json"))["errors"][0]["pointer"] == "/text"


def test_only_who_may_read_decisions_may_look_up(db, caller) -> None:
    assert problem(caller("").post(URL, {"text": "x"}, format="json"))["status"] == 403


@pytest.mark.parametrize("text", [SECRET, "AKIAIOSFODNN7EXAMPLE"])
@pytest.mark.parametrize("path", ["decisions", "decisions/counts", "exports/decisions"])
def test_a_credential_in_an_address_is_refused_with_the_way_to_ask(one, caller, text, path) -> None:
    client = caller()
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(f"/api/v1/{path}", {"q": text})
    assert problem(answer)["errors"][0]["pointer"] == "/q"
    assert "POST to /api/v1/lookup" in problem(answer)["detail"]
    assert text not in answer.content.decode()
    assert not any(text in q["sql"] for q in queries)
