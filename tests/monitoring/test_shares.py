"""How a service is divided among tenants, from the deciders' reports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.vocabulary import Tier
from decider.engine.shared import report as reports
from decider.engine.shared.report import NAMED, Report
from monitoring.shares import add_up, divide

PREMIUM, ENTERPRISE = int(Tier.PREMIUM), int(Tier.ENTERPRISE)


def said(
    node: str, named: list[tuple[int, float, float]], *, given: float, price: float = 0.5
) -> Report:
    """What a decider says of `search`; of each premium tenant its hash, demand and use."""
    figures = np.zeros((2, reports.N_FIGURES), np.float32)
    figures[1, [reports.ASKED, reports.ADMITTED, reports.PRICE]] = (
        sum(asks for _, asks, _ in named),
        given,
        price,
    )
    rows = np.array([(1, PREMIUM, 1.0, asks, gets, key) for key, asks, gets in named], NAMED)
    return Report(node, 1.0, 1, ["auth", "search"], figures.tobytes(), rows.tobytes())


def test_what_deciders_say_of_a_tenant_is_added_up_and_compared_with_its_due() -> None:
    one = said("d01", [(7, 60.0, 10.0), (8, 10.0, 10.0)], given=20.0)
    other = said("d02", [(7, 60.0, 10.0), (9, 10.0, 10.0)], given=20.0)
    found = add_up("local", "search", [one, other])
    assert (found.deciders, found.asked, found.given, found.short) == (2, 140.0, 40.0, True)
    assert [(t.key, t.asks, t.gets) for t in found.tenants] == [
        (7, 120.0, 20.0),
        (8, 10.0, 10.0),
        (9, 10.0, 10.0),
    ]
    assert [t.due for t in found.tenants] == pytest.approx([20.0, 10.0, 10.0])


def test_while_there_is_room_everyone_is_due_what_it_asks_for() -> None:
    found = add_up("local", "search", [said("d01", [(7, 60.0, 60.0)], given=60.0, price=0.0)])
    assert not found.short
    assert [t.due for t in found.tenants] == [60.0]


def test_tenants_of_another_service_do_not_count() -> None:
    assert add_up("local", "auth", [said("d01", [(7, 60.0, 10.0)], given=10.0)]).tenants == ()


def test_a_higher_tier_comes_first() -> None:
    asking = [(PREMIUM, 1.0, 50.0), (ENTERPRISE, 1.0, 30.0)]
    assert divide(asking, 40.0) == pytest.approx([10.0, 30.0])
    assert divide(asking, 20.0) == pytest.approx([0.0, 20.0])


def test_within_a_tier_weights_count_and_nobody_is_due_more_than_it_asks_for() -> None:
    asking = [(PREMIUM, 1.0, 100.0), (PREMIUM, 3.0, 100.0), (PREMIUM, 1.0, 2.0)]
    assert divide(asking, 42.0) == pytest.approx([10.0, 30.0, 2.0])


ASKING = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0.1, 10.0), st.floats(0.0, 1e6)), max_size=30
)


@given(ASKING, st.floats(0.0, 1e6))
def test_all_that_is_given_is_due_to_somebody(
    asking: list[tuple[int, float, float]], supply: float
) -> None:
    due = divide(asking, supply)
    asked = sum(demand for _, _, demand in asking)
    assert all(0.0 <= part <= demand for part, (_, _, demand) in zip(due, asking, strict=True))
    assert sum(due) == pytest.approx(min(asked, supply), rel=1e-6, abs=1e-6)
