"""A support person's day with one customer, in a real browser: from their question to an answer, a
dispute, its verdict.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from control.models import App, Look, Tenant
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import Key, Receipt
from decisions.models import Dispute, Outcome
from explain.shap import backlog
from tests.audited import audited
from tests.console.conftest import PASSWORD
from tests.decisions.factory import id_at
from tests.explain import world
from tests.explain.conftest import document, models  # noqa: F401 - fixtures

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
APP = "app_7q2m4kx9"


@pytest.fixture
def refusals(models, document, stored, publish, beat) -> list:  # noqa: F811
    """Decisions of a registered app by the small real model, explained; a config in force and a
    decider that reports.
    """
    with audited():
        tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
        App.objects.create(id=APP, name="Order sync", tenant=tenant, tier=1)
    publish(model=document.model)
    beat()
    rows, now = world.rows(90, seed=22, missing=False), time.time()
    made = [
        world.decided(row, document=document, at=now - 400 + 4 * k, id=id_at(now - 400 + 4 * k))
        for k, row in enumerate(rows)
    ]
    stored(made)
    backlog.explain_since(0.0)
    return [e for e in made if e.action in (Action.DEFER, Action.BATCH) and e.stage == Stage.RANK]


@pytest.fixture
def sign_in(new_tab, live_server, person) -> Callable:
    """Opens the console as someone would, by the form."""

    def go(role: str):
        tab = new_tab()
        tab.goto(live_server.url)
        tab.get_by_label("Email").fill(person(role).username)
        tab.get_by_label("Password").fill(PASSWORD)
        tab.get_by_role("button", name="Sign in").click()
        tab.wait_for_url(f"{live_server.url}/")
        return tab

    return go


def look_up(page, text: str) -> None:
    """From wherever they are, by the palette."""
    page.keyboard.press("Control+k")
    page.locator("#palette input[name=q]").fill(text)
    page.keyboard.press("Enter")


def test_from_the_question_to_the_verdict(sign_in, refusals, keys, settings) -> None:
    settings.SLUICE_KEYS = keys
    page = sign_in("support")
    _names_the_ticket(page)
    _finds_the_app_and_a_refusal(page)
    name = _reads_why(page)
    _answers(page, name)
    _reads_a_receipt_of_a_decision_that_was_not_stored(page, keys)
    _asks_for_a_decision_that_was_not_stored(page)
    _says_it_was_wrong(page, name)
    _decides(sign_in("policy_admin"))
    assert (Dispute.objects.get().state, Outcome.objects.get().weight) == ("upheld", 2.0)
    _sees_who_looked(sign_in("auditor"))


def _names_the_ticket(page) -> None:
    page.locator(".who-menu summary").click()
    page.get_by_label("Working on ticket").fill("SUP-48121")
    page.get_by_role("button", name="Keep").click()
    page.get_by_text("SUP-48121").first.wait_for(state="attached")


def _finds_the_app_and_a_refusal(page) -> None:
    """By name, through the palette; then the refusals of the day, by keys."""
    page.keyboard.press("Control+k")
    page.locator("#palette input[name=q]").fill("order sy")
    page.locator("#palette-found").get_by_text("Order sync").click()
    page.wait_for_url(f"**/apps/{APP}")
    expect(page.locator("h1")).to_contain_text("Order sync is")
    page.get_by_role("link", name="All that were not admitted").click()
    page.wait_for_url("**/lookup?**")
    expect(page.locator(".panel h2").first).to_contain_text("kept")
    page.locator(".facets li", has_text="ML ranking").locator(".pick").click()
    page.wait_for_url("**stage=rank**")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/decisions/dec_**")


def _reads_why(page) -> str:
    """The verdict, the reasons, a way back, every limit, and a score that adds up. Returns the
    decision's id.
    """
    expect(page.locator("h1")).to_contain_text("because")
    assert 1 <= page.locator(".reasons > li").count() <= 4
    expect(page.get_by_role("heading", name="What would have changed it")).to_be_visible()
    expect(page.get_by_text("Replay verified").first).to_be_visible()
    assert page.get_by_role("row", name=re.compile("Tokens in the burst bucket")).count() == 1
    rows = [
        row.locator("td").all_inner_texts()[-2:] for row in page.locator(".shap tbody tr").all()
    ]
    effects = [float(effect.replace("−", "-")) for effect, _ in rows if effect]
    risks = [float(risk.split()[0]) for _, risk in rows]
    assert risks[0] + sum(effects[:-1]) == pytest.approx(risks[-1], abs=1e-9)
    assert effects[-1] == pytest.approx(sum(effects[:-1]), abs=1e-9)
    return page.url.rpartition("/")[2]


def _answers(page, name: str) -> None:
    page.keyboard.press("c")
    page.wait_for_function(
        "navigator.clipboard.readText().then(text => text.includes('Reference'))"
    )
    reply = page.evaluate("navigator.clipboard.readText()")
    assert reply.endswith(f"Reference: {name}")
    assert "your app “Order sync”" in reply
    assert not re.search(r"risk|score|model|peer|0\.\d", reply.replace(name, ""))
    page.get_by_role("link", name="Print view").click()
    expect(page.locator("h1")).to_contain_text("because")
    page.go_back()


def _reads_a_receipt_of_a_decision_that_was_not_stored(page, keys) -> None:
    key, at = Key(bytes.fromhex((keys / "token.key").read_text())), time.time() - 90
    receipt = key.seal(
        Receipt(
            decision=id_at(at),
            at=at,
            action=Action.DEFER,
            stage=Stage.RANK,
            reason=Reason.RISK_HIGH,
            retry_after=4,
            config_version=7,
            model="0123456789ab",
            app=key.pseudonym(APP),
            codes=("BURST_HIGH",),
        )
    )
    look_up(page, receipt)
    page.wait_for_url("**/receipts/**")
    expect(page.locator("h1")).to_contain_text("A request of Order sync was deferred")
    expect(page.get_by_text("The decision itself was not stored.")).to_be_visible()


def _asks_for_a_decision_that_was_not_stored(page) -> None:
    look_up(page, format_decision_id(id_at(time.time() - 120)))
    expect(page.locator("h1")).to_have_text("This decision was not kept, but its minute was")
    expect(page.get_by_role("columnheader", name="That minute")).to_be_visible()


def _says_it_was_wrong(page, name: str) -> None:
    look_up(page, name)
    page.wait_for_url(f"**/decisions/{name}")
    page.keyboard.press("f")
    page.locator("#di-why").fill("The customer announced this batch")
    assert page.locator("#di-ticket").input_value() in ("", "SUP-48121")
    page.locator("#di-go").click()
    page.get_by_text("The dispute is open. A second person decides it.").wait_for()


def _decides(page) -> None:
    page.keyboard.press("g")
    page.keyboard.press("w")
    page.wait_for_url("**/disputes")
    page.get_by_role("link", name="Read and decide").click()
    page.get_by_label("It was wrong: a false throttle").check()
    page.locator("#ve-why").fill("It was announced on Monday")
    page.locator("#ve-go").click()
    page.get_by_text("The verdict is kept: upheld: false throttle.").wait_for()


def _sees_who_looked(page) -> None:
    page.goto(page.url.rstrip("/") + f"/app-looks/{APP}")
    expect(page.locator("h1")).to_contain_text("looked at Order sync last")
    assert page.get_by_role("row", name=re.compile("SUP-48121")).count() >= 3
    looks = Look.objects.filter(app=APP)
    assert {"the page", "lookup results"} <= set(looks.values_list("what", flat=True))
