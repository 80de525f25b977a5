"""The frame in a real browser: palette, theme, keys, and a strip that never pretends."""

from __future__ import annotations

import time

import pytest

from tests.console.conftest import MODEL
from tests.decisions.factory import event

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def page(open_tab, publish, beat):
    """Home, signed in as SRE, in light, with everything calm."""
    publish(model=MODEL)
    beat()
    return open_tab("sre", "/")


def test_the_palette_opens_narrows_and_goes(page) -> None:
    page.keyboard.press("Control+k")
    assert page.locator("#palette").is_visible()
    page.keyboard.type("switches")
    assert page.locator("#palette [data-command]:visible").count() == 1
    assert page.locator("#palette [data-asked]").inner_text() == "switches"
    page.keyboard.press("Enter")
    page.wait_for_url("**/switches")


def test_what_is_no_command_is_looked_up(page) -> None:
    page.keyboard.press("Control+k")
    page.keyboard.type("app_7q2m4kx9")
    assert page.locator("#palette [data-command]:visible").count() == 0
    with page.expect_request(lambda asked: "/lookup" in asked.url) as asked:
        page.keyboard.press("Enter")
    assert (asked.value.method, "app_7q2m4kx9" in asked.value.url) == ("POST", False)


def test_escape_closes_the_palette_and_gives_the_focus_back(page) -> None:
    page.locator(".jump").focus()
    page.keyboard.press("Enter")
    assert page.locator("#palette input[name=q]").evaluate("box => box === document.activeElement")
    page.keyboard.press("Escape")
    assert not page.locator("#palette").is_visible()
    assert page.locator(".jump").evaluate("link => link === document.activeElement")


def test_the_theme_changes_at_once_and_stays(page) -> None:
    page.locator("[data-theme-form] button").first.click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert (
        page.evaluate("getComputedStyle(document.body).backgroundColor")
        == dark
        == "rgb(13, 17, 20)"
    )


def test_g_then_a_letter_goes_to_a_page(page) -> None:
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_url("**/switches")


def test_keys_are_off_while_typing(page) -> None:
    page.keyboard.press("Control+k")
    page.keyboard.type("gs")
    page.wait_for_timeout(200)
    assert page.url.rstrip("/").count("/") == 2


def test_the_first_stop_skips_to_the_content(page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_strip_without_an_answer_says_since_when_and_recovers(page) -> None:
    page.route("**/ui/strip", lambda route: route.abort())
    page.evaluate("answered = Date.now() - 16000")
    page.get_by_text("Status unknown since").first.wait_for()
    assert (
        page.locator(".strip a").count()
        == page.locator(".strip a:has-text('Status unknown since')").count()
        == 8
    )
    assert page.locator("#live").inner_text() == "System status unknown"
    page.unroute("**/ui/strip")
    page.evaluate("htmx.trigger('#strip', 'refresh')")
    page.locator(".strip").get_by_text("Live").wait_for()
    assert page.locator("#live").inner_text() == "System status: normal"


def test_refreshing_keeps_the_focus_and_what_was_opened(page, stored) -> None:
    stored([event(at=time.time() - 20)])
    page.reload()
    page.locator("#mix-table-open").click()
    with page.expect_response("**/ui/home/mix*"):
        page.evaluate("htmx.trigger('#home', 'refresh')")
    page.wait_for_timeout(200)
    assert page.locator("#mix-table").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.id") == "mix-table-open"


@pytest.mark.parametrize("width", [1440, 1024, 390, 320])
def test_nothing_runs_over_the_edge(page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_signing_out_from_the_menu(page) -> None:
    page.locator(".who-menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
