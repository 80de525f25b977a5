"""The page about storing in a real browser: nothing runs over its edge, and its form works."""

from __future__ import annotations

import pytest

from decider.contracts.event import encode_event
from decisions.models import BuriedEvent, DeciderRun, Decision, DroppedDay
from tests.database import as_owner
from tests.decisions.factory import event, id_at

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.browser,
    pytest.mark.usefixtures("known"),
]


@pytest.fixture
def full(db) -> list[int]:
    """Buried events of three kinds, two runs of deciders and a dropped day."""
    for k, counts in enumerate(({"lost": 1_204, "withheld": 88_000}, {"buried": 3, "dropped": 12})):
        DeciderRun.objects.create(
            run=id_at(1.7e9 + k).hex(),
            node=f"d0{k + 1}-eu-central-1-with-a-long-name",
            sent=4_120_311,
            stored=4_000_000,
            **counts,
        )
    rows = [
        (False, encode_event(event()), "23505", "A decision with this id is stored already: x"),
        (False, b"x" * 900, "", "Expected `str` of length <= 128 - at `$.app` " + "word" * 60),
        (True, b"x" * 99_000, "", "These bytes are no batch: MessagePack data is malformed"),
    ]
    for whole, raw, sqlstate, reason in rows:
        BuriedEvent.objects.create(
            whole=whole,
            entry="1795864728127-1",
            node="" if whole else "d01",
            raw=raw,
            size=len(raw),
            sqlstate=sqlstate,
            reason=reason,
        )
    gone = {"name": "decisions_decision", "day": "2026-03-01", "why": "size"}
    with as_owner():
        DroppedDay.objects.create(rows=1_482_113, size=1_563_000_000, **gone)
    return list(BuriedEvent.objects.values_list("pk", flat=True).order_by("pk"))


@pytest.mark.parametrize("width", [1440, 1024, 390, 320])
def test_nothing_runs_over_the_edge(open_tab, full, width: int) -> None:
    page = open_tab("sre", "/storing", viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_chosen_event_is_stored_and_leaves_the_list(open_tab, full) -> None:
    page = open_tab("sre", "/storing")
    page.locator(f"#b-{full[0]}").check()
    page.get_by_role("button", name="Replay the chosen").click()
    page.get_by_text("Say why; it is kept in the audit log.").wait_for()
    assert page.locator(f"#b-{full[0]}").is_checked()
    page.locator("#b-reason").fill("OPS-71")
    page.get_by_role("button", name="Replay the chosen").click()
    page.get_by_text("Stored: 1.").wait_for()
    assert Decision.objects.count() == 1
    assert page.locator(f"#b-{full[0]}").count() == 0
