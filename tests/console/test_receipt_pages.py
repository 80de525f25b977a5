"""A pasted receipt tells its story, stored or not; one that was changed gets a sentence and no
address.
"""

from __future__ import annotations

import time

import pytest
from django.urls import reverse

from control.models import App, Look, Tenant
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import Key, Receipt
from tests.decisions.factory import event, id_at
from tests.pages import shown

pytestmark = pytest.mark.django_db


@pytest.fixture
def key(keys) -> Key:
    return Key(bytes.fromhex((keys / "token.key").read_text()))


def sealed(key: Key, raw: bytes, app: str = "app_7q2m4kx9", **fields) -> str:
    base = {
        "decision": raw,
        "at": time.time() - 60,
        "action": Action.DEFER,
        "stage": Stage.RANK,
        "reason": Reason.RISK_HIGH,
        "retry_after": 4,
        "config_version": 7,
        "model": "0123456789ab",
        "app": key.pseudonym(app),
        "codes": ("BURST_HIGH",),
    }
    return key.seal(Receipt(**(base | fields)))


def test_a_pasted_receipt_leads_to_its_story(key, signed_in) -> None:
    App.objects.create(
        id="app_7q2m4kx9",
        name="Order sync",
        tenant=Tenant.objects.create(id="t", name="Tidewell"),
        tier=1,
    )
    client, text = signed_in("support"), sealed(key, id_at(time.time() - 60))
    response = client.post("/lookup", {"q": f" {text} "})
    assert response["Location"] == f"/receipts/{text}"
    assert (
        client.post("/lookup", {"q": text}, headers={"hx-request": "true"})["HX-Redirect"]
        == f"/receipts/{text}"
    )
    page = shown(client.get(response["Location"]))
    assert "Order sync was deferred because its risk was high, mostly because “Burst" in page
    assert "BURST_HIGH" in page
    assert "HTTP 429, Retry-After 4" in page
    assert "The decision itself was not stored." in page
    assert f"/receipts/{text}" in shown(client.post("/ui/palette", {"q": text}))


def test_a_stored_decision_is_linked(key, signed_in, stored) -> None:
    one = event()
    stored([one])
    page = shown(
        signed_in("support").get(
            reverse("receipt", args=[sealed(key, one.id, app="app_unknown", codes=())])
        )
    )
    assert "Open the decision" in page
    assert reverse("decision", args=[format_decision_id(one.id)]) in page
    assert "an app that is not known here" in page


def test_the_app_of_a_stored_decision_is_named_though_nobody_registered_it_and_the_look_is_kept(
    key, signed_in, stored
) -> None:
    one = event(app="app_stranger")
    stored([one])
    page = shown(
        signed_in("support").get(reverse("receipt", args=[sealed(key, one.id, app="app_stranger")]))
    )
    assert "A request of app_stranger, which is not registered, was deferred" in page
    assert reverse("app", args=["app_stranger"]) in page
    assert Look.objects.get().app == "app_stranger"


@pytest.mark.parametrize("place", [0, 3, 20, 60, -1])
def test_a_changed_receipt_gets_a_sentence_and_no_address(key, signed_in, place) -> None:
    text = sealed(key, id_at(time.time() - 60))
    at = place % len(text)
    changed = text[:at] + ("A" if text[at] != "A" else "g") + text[at + 1 :]
    client = signed_in("support")
    response = client.post("/lookup", {"q": changed})
    assert response.status_code == 200
    assert "Read as a receipt. This" in shown(response)
    assert changed not in shown(response)
    direct = client.get(reverse("receipt", args=[changed]))
    assert direct.status_code == 404
    assert "This receipt does not hold" in shown(direct)


def test_only_who_may_see_decisions_sees_receipts(key, signed_in) -> None:
    assert (
        signed_in("").get(reverse("receipt", args=[sealed(key, id_at(time.time()))])).status_code
        == 403
    )
