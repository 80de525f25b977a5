"""Receipts over REST: opened, also when nothing was stored; refused when a bit is changed."""

from __future__ import annotations

import time

import pytest

from control.models import App, Look, Tenant
from decider.contracts.ids import IdSource
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import Key, Receipt
from tests.api.conftest import problem

URL = "/api/v1/receipts"


@pytest.fixture
def sealed(settings, tmp_path) -> str:
    """A receipt of this installation, about a decision that was not stored."""
    settings.SLUICE_KEYS = tmp_path
    (tmp_path / "token.key").write_text("07" * 32)
    key = Key(bytes.fromhex("07" * 32))
    receipt = Receipt(
        IdSource().one(),
        time.time(),
        Action.DEFER,
        Stage.RANK,
        Reason.RISK_HIGH,
        4,
        42,
        "8c1f9a528c1f",
        key.pseudonym("app_1"),
        ("BURST_HIGH",),
    )
    return key.seal(receipt)


def test_a_receipt_tells_its_story_though_nothing_was_stored(sealed, caller) -> None:
    told = caller().post(URL, {"receipt": sealed}, format="json").json()
    assert (told["action"], told["stage"], told["reason"], told["stored"]) == (
        "defer",
        "rank",
        "risk-high",
        False,
    )
    assert told["codes"] == ["BURST_HIGH"]
    assert told["decision"] in told["customer_text"]["reply"]
    assert (told["app"], len(told["pseudonym"])) == ("", 16)


def test_the_app_is_told_when_it_is_registered_and_the_look_is_kept(sealed, caller) -> None:
    App.objects.create(
        id="app_1", name="One", tenant=Tenant.objects.create(id="t", name="Tidewell"), tier=1
    )
    assert caller().post(URL, {"receipt": sealed}, format="json").json()["app"] == "app_1"
    assert Look.objects.get().app == "app_1"


@pytest.mark.parametrize("place", [3, 20, 60])
def test_a_changed_receipt_is_refused(sealed, caller, place) -> None:
    other = "A" if sealed[place] != "A" else "B"
    answer = caller().post(
        URL, {"receipt": sealed[:place] + other + sealed[place + 1 :]}, format="json"
    )
    assert answer.status_code == 400
    assert problem(answer)["errors"][0]["pointer"] == "/receipt"


def test_what_is_no_receipt_is_refused(sealed, caller) -> None:
    assert (
        "no receipt" in problem(caller().post(URL, {"receipt": "hello"}, format="json"))["detail"]
    )
