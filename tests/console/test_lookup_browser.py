"""Lookup in a real browser: keys, include and exclude, the live tail, and a token that never
reaches an address.
"""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import expect

from tests.decisions.factory import event, unranked

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def page(open_tab, publish, beat, stored):
    """Lookup, signed in as support, with a few decisions."""
    publish()
    beat()
    now = time.time()
    stored(
        [event(at=now - 20 - k, service=("orders-read", "search")[k % 2]) for k in range(6)]
        + [unranked(at=now - 40)]
    )
    return open_tab("support", "/lookup")


def test_a_value_is_excluded_and_included_by_a_click_and_the_address_says_so(page) -> None:
    assert page.locator("#rows > tr").count() == 6
    page.locator(".facets li", has_text="search").hover()
    page.get_by_role("button", name="Exclude search").click()
    page.wait_for_url("**not_service=search**")
    assert page.locator("#rows > tr").count() == 3
    page.get_by_role("link", name="Remove the filter Without search").click()
    expect(page.locator("#rows > tr")).to_have_count(6)
    page.go_back()
    page.wait_for_url("**not_service=search**")


def test_keys_move_through_rows_and_open_one(page) -> None:
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = page.locator("#rows .rowlink").first
    assert first.evaluate("link => link === document.activeElement")
    href = first.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{href}")


def test_slash_goes_to_the_box_and_what_is_typed_is_posted(page) -> None:
    page.keyboard.press("/")
    assert page.locator("#q").evaluate("box => box === document.activeElement")
    with page.expect_response(
        lambda got: got.url.endswith("/lookup") and got.request.method == "POST"
    ):
        page.keyboard.type("sk_live_4eC39HqLyjWDarjtT1zdp7dc")
    page.get_by_text("looks like a credential").wait_for()
    assert "sk_live" not in page.url


def test_the_tail_adds_rows_and_waits_while_someone_reads(page, stored) -> None:
    page.keyboard.press("t")
    page.wait_for_url("**live=1**")
    page.locator("[data-tail]").wait_for()
    stored([event(at=time.time() - 5, service="fresh-one")])
    expect(page.locator("#rows > tr")).to_have_count(7)
    page.locator("#rows > tr").first.hover()
    stored([event(at=time.time() - 4)])
    page.get_by_text("1 wait").wait_for()
    assert page.locator("#rows > tr").count() == 7
    page.mouse.move(5, 5)
    expect(page.locator("#rows > tr")).to_have_count(8)


@pytest.mark.parametrize("width", [1440, 390, 320])
def test_nothing_runs_over_the_edge(page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
