"""From a refusal to an answer, a dispute and its verdict, in a real browser."""

from __future__ import annotations

import uuid

import pytest

from control.audit.actors import Actor
from control.models import App, Tenant
from decider.contracts.ids import format_decision_id
from decisions.models import Decision, Dispute, Outcome
from decisions.outcomes import disputes
from tests.audited import audited
from tests.decisions.factory import event

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def refused(stored) -> str:
    """The id of a refusal of a registered app."""
    with audited():
        tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
        App.objects.create(id="app_7q2m4kx9", name="Order sync", tenant=tenant, tier=1)
    made = event(inclusion_probability=0.25)
    stored([made])
    return format_decision_id(made.id)


CLIPBOARD = "navigator.clipboard.readText()"


def test_each_form_of_the_answer_is_read_and_copied(open_tab, refused) -> None:
    page = open_tab("support", f"/decisions/{refused}")
    page.keyboard.press("c")
    page.get_by_text("Copied", exact=True).first.wait_for(state="attached")
    copied = page.evaluate(CLIPBOARD)
    assert copied.startswith("At ")
    assert copied.endswith(f"Reference: {refused}")
    assert "your app “Order sync”" in copied
    assert page.locator("#say-line").is_hidden()
    page.get_by_role("tab", name="One line").click()
    page.get_by_role("button", name="Copy line").click()
    page.wait_for_function(f"{CLIPBOARD}.then(text => !text.includes('Reference'))")
    assert page.evaluate(CLIPBOARD) == page.locator("#say-line").inner_text()
    page.get_by_role("tab", name="One line").press("ArrowRight")
    assert page.locator("#say-body").is_visible()
    page.get_by_role("button", name="Copy body").click()
    page.wait_for_function(f"{CLIPBOARD}.then(text => JSON.parse(text).status === 429)")


def test_without_script_all_three_forms_are_there_and_no_dead_button(open_tab, refused) -> None:
    page = open_tab("support", f"/decisions/{refused}", java_script_enabled=False)
    for there in ("#say-text", "#say-line", "#say-body"):
        assert page.locator(there).is_visible()
    assert page.locator("#say .tabs").is_hidden()
    assert page.locator("#say button:visible").count() == 0
    page.get_by_role("button", name="This was wrong").click()
    page.locator("#di-why").fill("The customer announced this batch")
    page.get_by_role("button", name="Open the dispute").click()
    assert page.get_by_text("The dispute is open.").is_visible()


def test_a_dispute_goes_from_the_key_to_the_verdict_of_a_second_person(open_tab, refused) -> None:
    support = open_tab("support", f"/decisions/{refused}")
    support.keyboard.press("f")
    support.locator("#di-why").wait_for()
    support.locator("#di-go").click()
    support.locator("#di-why-err").wait_for()
    support.locator("#di-why").fill("The customer announced this batch")
    support.locator("#di-ticket").fill("SUP-48121")
    support.locator("#di-go").click()
    support.get_by_text("The dispute is open. A second person decides it.").wait_for()
    admin = open_tab("policy_admin", "/disputes")
    admin.get_by_role("link", name="Read and decide").click()
    admin.locator("#ve-why").wait_for()
    admin.get_by_label("It was wrong: a false throttle").check()
    admin.locator("#ve-why").fill("It was announced on Monday")
    admin.locator("#ve-go").click()
    admin.get_by_text("The verdict is kept: upheld: false throttle.").wait_for()
    assert (Dispute.objects.get().state, Outcome.objects.get().weight) == ("upheld", 4.0)


def _opened(decision: str) -> Dispute:
    d = Decision.objects.get(id=uuid.UUID(decision.removeprefix("dec_")))
    return disputes.open_dispute(
        d, by=Actor("Olu Ade", "olu@example.org", "Support"), reason="It was announced"
    )


def test_without_script_the_evidence_is_read_and_the_verdict_given(open_tab, refused) -> None:
    dispute = _opened(refused)
    tab = open_tab("policy_admin", f"/disputes/{dispute.pk}", java_script_enabled=False)
    for name in ("What happened", "What is claimed", "Why", "What would have changed it"):
        assert tab.get_by_role("heading", name=name, exact=True).is_visible()
    assert tab.get_by_role("link", name="Compare it").is_visible()
    tab.get_by_label("It was correct").check()
    tab.locator("#ve-why").fill("Nothing was announced")
    tab.locator("#ve-go").click()
    assert tab.get_by_text("The verdict is kept: declined: correct.").is_visible()
    assert Dispute.objects.get().state == "declined"


@pytest.mark.parametrize("width", [390, 1024, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_evidence_of_a_dispute_fits_the_screen(open_tab, refused, width, scheme) -> None:
    dispute = _opened(refused)
    tab = open_tab(
        "policy_admin",
        f"/disputes/{dispute.pk}",
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
    )
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    whole = tab.locator('section[aria-labelledby="h-refusals"]').bounding_box()
    for name in ("h-others", "h-outcomes"):
        half = tab.locator(f'section[aria-labelledby="{name}"]').bounding_box()
        # half of the row, or all of it on a phone; a section without its span is a twelfth
        assert half["width"] > 0.45 * whole["width"]
    assert tab.locator("#verdict-form").bounding_box()["y"] > half["y"]


def test_the_print_view_is_black_on_white_paper_without_the_frame(open_tab, refused) -> None:
    page = open_tab("support", f"/decisions/{refused}/print", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("h1").is_visible()
    assert page.get_by_role("link", name="Back to the decision").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(17, 23, 28)"
    )
