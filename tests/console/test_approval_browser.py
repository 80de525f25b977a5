"""Deciding a request in a real browser: from the list, with what it would change."""

from __future__ import annotations

import pytest

from console.frame import roles
from control.audit.actors import SYSTEM
from control.config import changes
from tests.control.approvals.conftest import ask_to_clear, engage, make_person, turn_on

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_second_person_reads_what_changes_and_approves(open_tab, installation, valkey) -> None:
    roles.ensure()
    changes.first(by=SYSTEM, reason="A new installation")
    noor, dele = make_person("noor", "sre"), make_person("dele", "sre")
    turn_on(noor, make_person("priya", "policy_admin"))
    engage(noor)
    ask_to_clear(dele)
    page = open_tab("sre", "/approvals")
    # it is counted once it is seen, without a click
    page.get_by_text("No decision was stored in the last hour").wait_for()
    page.get_by_role("link", name="Approve…").click()
    page.get_by_label("Reason").fill("Scores are well again")
    page.get_by_role("button", name="Approve", exact=True).click()
    page.get_by_role("heading", name="Nothing waits. 2 were decided today").wait_for()
    assert changes.current().switches == []
