"""Weighted counts estimate what really happened, whatever the sampling favours."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from console.display import charts, columns
from decisions.counts import aggregate
from decisions.counts.estimate import Estimate
from decisions.models import Decision
from decisions.search import lookup
from tests.decisions.factory import event, unranked

pytestmark = pytest.mark.django_db


def test_a_bucket_holds_the_inverse_of_the_probabilities_of_its_rows(store) -> None:
    since = time.time() // 60 * 60 - 600
    store(
        [
            event(at=since + 5, inclusion_probability=0.5),
            event(at=since + 59, inclusion_probability=0.25),
            event(at=since + 61),
        ]
    )
    cells = aggregate.cells(lookup.within(Decision.objects.all(), since), since, 60.0)
    assert [(c.start - since, c.count, c.kept) for c in sorted(cells, key=lambda c: c.start)] == [
        (0.0, 6.0, 2),
        (60.0, 2.0, 1),
    ]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10_000),
    admit=st.floats(0.1, 1.0),
    refuse=st.floats(0.3, 1.0),
    share=st.floats(0.05, 0.6),
)
def test_weights_estimate_the_truth(store, seed, admit, refuse, share) -> None:
    """The weighted count is within five standard deviations of the truth: Var = n (1 - p) / p of a
    Horvitz-Thompson count.
    """
    rng, app = random.Random(seed), f"app_{seed}_{time.perf_counter_ns()}"
    truth, kept = {0: 0, 1: 0}, []
    for _ in range(1_500):
        refused = rng.random() < share
        truth[int(refused)] += 1
        p = refuse if refused else admit
        if rng.random() < p:
            kept.append((event if refused else unranked)(app=app, inclusion_probability=p))
    store(kept)
    cells = aggregate.cells(Decision.objects.filter(app=app), 0.0, 1e12)
    counted = aggregate.totals(cells, lambda c: c.action)
    for action, p in ((0, admit), (1, refuse)):
        spread = 5 * np.sqrt(truth[action] * (1 - p) / p) + 1e-6
        assert abs(counted.get(action, 0.0) - truth[action]) <= spread


def test_the_largest_apps_are_those_with_the_most_weight(store) -> None:
    store(
        [
            unranked(app="few", inclusion_probability=0.01),
            *(event(app="many", inclusion_probability=1.0) for _ in range(20)),
        ]
    )
    assert aggregate.largest_apps(Decision.objects.order_by(), 2) == [
        ("few", pytest.approx(100.0)),
        ("many", pytest.approx(20.0)),
    ]


def test_columns_stand_on_the_floor_and_none_is_higher_than_the_plot() -> None:
    cells = [
        aggregate.Cell(10.0 * k, k % 5, 0, 0, "s", Estimate(float(k + 1), float(k + 1), 1))
        for k in range(30)
    ]
    chart = columns.columns(cells, 0.0, 10.0, 30, floor=100, height=80)
    assert all(p.y >= 20 - columns.SMALLEST and p.y + p.height <= 100.1 for p in chart.pieces)
    assert chart.peak.count == 30
    assert chart.top == 40
    assert chart.counts[-1].text == "40"


@pytest.mark.parametrize(
    ("value", "top"), [(0, 2), (2, 2), (3, 4), (11, 20), (100, 100), (101, 200), (12_345, 20_000)]
)
def test_an_axis_ends_at_a_round_figure(value, top) -> None:
    assert charts.nice_ceiling(value, charts.EVEN_TOPS, least=2.0) == top


def test_an_axis_of_many_is_read_as_numbers() -> None:
    cell = aggregate.Cell(0.0, 1, 3, 0, "s", Estimate(37_000.0, 37_000.0, 37_000))
    assert [label.text for label in columns.columns([cell], 0.0, 60.0, 2, 100.0, 90.0).counts] == [
        "0",
        "20,000",
        "40,000",
    ]
