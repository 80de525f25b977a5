"""Flipping a switch in a real browser: the sheet, its preview, the typed name, and the panel that
follows.
"""

from __future__ import annotations

import time

import pytest

from console.frame import roles
from control.audit.actors import SYSTEM
from control.config import changes
from control.models import SwitchFlip
from tests.control.conftest import ack, beat, status
from tests.decisions.factory import event

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def page(open_tab, valkey, stored):
    """The switches page, signed in as SRE, with two deciders."""
    roles.ensure()
    changes.first(by=SYSTEM, reason="A new installation")
    stored([event(action=4, risk=0.97, tier=tier) for tier in (0, 1, 3)])
    for node in ("d01", "d02"):
        beat(valkey, status(node, config_version=1))
        ack(valkey, 1, node, last_old_decision_at=0)
    return open_tab("sre", "/switches")


def test_a_switch_is_engaged_from_the_sheet_and_followed_to_the_last_decider(page, valkey) -> None:
    page.get_by_role("button", name="Engage…").click()
    page.locator("#h-flip").wait_for()
    page.locator("#h-blast").wait_for(timeout=30_000)
    go = page.locator("#fl-go")
    assert go.is_disabled()
    page.keyboard.type("Scores look wrong, INC-7")
    assert page.locator("#fl-why").input_value() == "Scores look wrong, INC-7"
    page.locator("#fl-type").fill("all ml")
    go.click()
    page.get_by_role("heading", name="1 kill switch engaged").wait_for()
    assert page.get_by_role("heading", name="Config 2 reached 0 of 2").is_visible()
    made = SwitchFlip.objects.get().engaged_at.timestamp()
    for node in ("d01", "d02"):
        beat(valkey, status(node, config_version=2, started_at=time.time() - 60))
        ack(valkey, 2, node, last_old_decision_at=made + 0.021)
    page.get_by_role("heading", name="Config 2 reached 2 of 2").wait_for(timeout=5_000)
    assert "21 ms after the change" in page.locator("#propagation").inner_text()


def test_a_wrong_answer_stays_in_the_sheet(page) -> None:
    page.get_by_role("button", name="Engage…").click()
    page.locator("#fl-type").fill("all ml")
    page.locator("#fl-go").click()
    page.locator("#fl-why-err").wait_for()
    assert "Say what is wrong" in page.locator("#fl-why-err").inner_text()
    assert page.locator("#flip").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#flip").is_visible()
