"""The page of an app in a real browser: gauges that refresh under the reader's hands, and a reset
from the sheet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from control.audit.actors import SYSTEM
from control.directory import notes
from tests.console.one_app import APP, url
from tests.decisions.factory import event, unranked

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("known"),
]


@pytest.fixture
def tab(open_tab, decider, stored) -> Iterator[Callable]:
    """Opens the page of an app whose burst is used up, for someone with a role."""
    made = []

    def go(role: str = "sre", width: int = 1440):
        now = time.time()
        stored(
            [
                event(at=now - 3_000 - k, stage=2 + k % 2, inclusion_probability=0.02)
                for k in range(9)
            ]
        )
        stored([event(at=now - 60)] + [unranked(at=now - 60 - k) for k in range(20)])
        notes.add(by=SYSTEM, app=APP, text="An_unbroken_line_" * 12)
        decider("d01").track(APP, 310)
        page = open_tab(role, url(), viewport={"width": width, "height": 900})
        made.append(page)
        return page

    yield go
    for page in made:
        page.wait_for_load_state("networkidle")


def refreshed(page) -> None:
    with page.expect_response("**/ui/app-gauges/*"):
        page.evaluate("htmx.trigger('#gauges', 'refresh')")


def test_an_empty_bucket_is_reset_from_the_sheet_and_each_decider_says_what_it_did(tab) -> None:
    page = tab()
    page.locator("#reset-burst").click()
    page.locator("#reset").get_by_text("Its burst bucket becomes full").wait_for()
    page.locator("#rs-go").click()
    page.locator("#reset").get_by_text("A reason is needed").wait_for()
    page.locator("#rs-why").fill("SUP-48119")
    page.locator("#rs-go").click()
    page.get_by_text("d01: filled the burst bucket").wait_for()
    assert page.locator("#gauges .v").nth(1).inner_text().split() == ["300", "of", "300", "tokens"]


def test_the_gauges_refresh_and_keep_the_focus(tab) -> None:
    page = tab()
    page.locator("#reset-burst").focus()
    before = page.locator("[data-live]").inner_text()
    page.wait_for_function(
        "was => document.querySelector('[data-live]').innerText !== was", arg=before, timeout=15_000
    )
    assert page.evaluate("document.activeElement.id") == "reset-burst"


def test_gauges_without_an_answer_say_how_old_they_are_and_recover(tab) -> None:
    page = tab()
    page.route("**/ui/app-gauges/*", lambda route: route.abort())
    page.evaluate("htmx.trigger('#gauges', 'refresh')")
    page.get_by_text("Not refreshed since").wait_for()
    page.unroute("**/ui/app-gauges/*")
    refreshed(page)
    page.locator("#gauges").get_by_text("Live").wait_for()


@pytest.mark.parametrize("width", [1440, 1024, 390, 320])
def test_nothing_runs_over_the_edge(tab, width: int) -> None:
    page = tab("support", width)
    page.locator("#policy-alike summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_ticket_is_kept_from_the_menu(tab) -> None:
    page = tab("support")
    page.locator(".who-menu summary").click()
    page.locator("#ticket").fill("SUP-48119")
    page.keyboard.press("Enter")
    page.locator(".topbar .tag").get_by_text("SUP-48119").wait_for()
    assert page.url.endswith(url())
