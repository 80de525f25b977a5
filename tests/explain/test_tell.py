"""Short reasons for tables of decisions."""

from __future__ import annotations

import numpy as np
import pytest

from decider.features import INDEX, N_FEATURES
from explain import reasons, tell
from explain.models import Explanation
from tests.decisions.factory import event, vector


@pytest.fixture
def told(monkeypatch):
    """What is told of a decision with these findings: (feature, contribution, value, median of similar apps)."""

    def tell_of(*found: tuple[str, float, float, float]) -> str:
        values, typical = np.zeros(N_FEATURES), [0.0] * N_FEATURES
        for name, contribution, _, usual in found:
            values[INDEX[name]], typical[INDEX[name]] = contribution, usual
        monkeypatch.setattr(tell.artifacts, "artifact", lambda digest: None)
        monkeypatch.setattr(reasons, "typical", lambda artifact, tier: typical)
        decision = event(features=vector(**{name: value for name, _, value, _ in found}))
        return tell._strongest(Explanation(contributions=values.tobytes(), model="m"), decision)

    return tell_of


def test_what_is_like_similar_apps_gives_way_to_what_is_not(told) -> None:
    assert told(("cohort_prior", 2.0, 0.07, 0.07), ("rate_1s", 1.0, 48.0, 12.0)) == "Requests a second: 48, peers 12"


def test_where_everything_is_like_similar_apps_nothing_is_compared(told) -> None:
    text = told(("cohort_prior", 2.0, 0.07, 0.07))
    assert "7.0%" in text
    assert "peers" not in text


def test_what_only_lowers_risk_is_no_reason(told) -> None:
    assert told(("cohort_prior", -2.0, 0.01, 0.07)) == ""
