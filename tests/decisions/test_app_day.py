"""One scan of an app's day agrees with counting its rows one by one."""

from __future__ import annotations

import time
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decider.contracts.vocabulary import Action, Stage
from decisions.counts.estimate import of_row, total
from decisions.models import Decision
from decisions.search import app_day
from tests.database import as_owner
from tests.decisions.factory import event

pytestmark = pytest.mark.django_db
_one = st.fixed_dictionaries(
    {
        "app": st.sampled_from(["app_1", "app_1", "app_2"]),
        "action": st.sampled_from([int(a) for a in Action]),
        "stage": st.integers(0, 5),
        "inclusion_probability": st.sampled_from([0.02, 0.25, 1.0]),
        "endpoint": st.sampled_from(["/a", "/b"]),
        "region": st.sampled_from(["east", "west"]),
        "token_digest": st.sampled_from(["", "aa", "bb"]),
        "model": st.sampled_from(["", "m1", "m2"]),
        "risk": st.sampled_from([None, 0.25, 0.75]),
        "ago": st.floats(0, 90_000),
    }
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_one, max_size=25))
def test_every_figure_is_that_of_the_rows(store, rows: list[dict]) -> None:
    now = time.time()
    with as_owner():
        Decision.objects.all().delete()
    made = store([event(at=now - row.pop("ago"), **row) for row in rows])
    since = now - 80_000
    mine = [e for e in made if e.app == "app_1" and e.at >= since]
    refused = [e for e in mine if e.action != Action.ADMIT]
    day = app_day.read_day("app_1", since)
    expected = total(of_row(e.inclusion_probability) for e in refused)
    assert (day.refused.count, day.refused.square) == pytest.approx(
        (expected.count, expected.square)
    )
    assert day.refused.kept == len(refused)
    for told, counted in (
        ([e.number for e in day.endpoints], mine),
        ([e.refused for e in day.endpoints], refused),
    ):
        whole, truth = total(told), total(of_row(e.inclusion_probability) for e in counted)
        assert (whole.count, whole.square, whole.kept) == pytest.approx(
            (truth.count, truth.square, truth.kept)
        )
    assert day.regions == sorted({e.region for e in mine})
    assert day.tokens == pytest.approx(
        {
            t: min(e.at for e in mine if e.token_digest == t)
            for t in {e.token_digest for e in mine} - {""}
        }
    )
    assert list(day.models) == sorted(
        day.models, key=lambda m: min(e.at for e in mine if e.model == m)
    )
    wrong: dict[float, float] = defaultdict(float)
    bursts: dict[float, float] = defaultdict(float)
    variance: dict[float, float] = defaultdict(float)
    for e in refused:
        hour = e.at // 3_600 * 3_600
        if e.stage in (Stage.RANK, Stage.RERANK) and e.risk is not None:
            wrong[hour] += (1 - e.risk) / e.inclusion_probability
            variance[hour] += (
                (1 - e.risk) ** 2 * (1 - e.inclusion_probability) / e.inclusion_probability**2
            )
        if e.stage == Stage.TRIAGE:
            bursts[hour] += 1 / e.inclusion_probability
    assert day.worst.wrong == pytest.approx(max(wrong.values(), default=0.0))
    assert day.worst.variance == pytest.approx(
        variance[day.worst.at] if day.worst.wrong else 0.0, abs=1e-9
    )
    assert day.worst.low <= day.worst.wrong <= day.worst.high
    assert day.worst.bursts.count == pytest.approx(
        bursts[day.worst.at] if day.worst.wrong else max(bursts.values(), default=0.0)
    )


def test_an_app_nobody_saw_has_an_empty_day() -> None:
    assert app_day.read_day("app_none", time.time() - 80_000) == app_day.Day()
