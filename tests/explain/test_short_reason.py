"""Short reasons for tables of decisions."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from console.pages.decision import page as decision_page
from decider.contracts.artifact import Calibration
from decider.contracts.features import INDEX, N_FEATURES
from decider.contracts.vocabulary import Action, Reason
from decisions.models import Decision
from explain.models import Explanation
from explain.shap import backlog, waterfall
from explain.text import reason_codes, short_reason, verdict
from tests.decisions.factory import event, vector
from tests.explain import world


@pytest.fixture
def told(monkeypatch):
    """What is told of a decision with these findings: (feature, contribution, value, what is
    usual).
    """

    def tell_of(*found: tuple[str, float, float, float]) -> str:
        values, typical = np.zeros(N_FEATURES), [0.0] * N_FEATURES
        for name, contribution, _, usual in found:
            values[INDEX[name]], typical[INDEX[name]] = contribution, usual
        card = SimpleNamespace(risk_calibration=Calibration(1.0, 0.0))
        monkeypatch.setattr(short_reason.model_files, "load_artifact", lambda digest: card)
        monkeypatch.setattr(waterfall, "typical", lambda artifact, tier: typical)
        decision = event(features=vector(**{name: value for name, _, value, _ in found}))
        return short_reason._leading(
            Explanation(contributions=values.tobytes(), model="m", base=-1.0), decision
        )

    return tell_of


def test_what_is_usual_gives_way_to_what_is_not(told) -> None:
    assert (
        told(("cohort_prior", 2.0, 0.07, 0.07), ("rate_1s", 1.0, 48.0, 12.0))
        == "Requests a second: 48, usual 12"
    )


def test_where_everything_is_usual_the_machine_reason_is_left(told) -> None:
    assert told(("cohort_prior", 2.0, 0.07, 0.07)) == ""


def test_what_only_lowers_risk_is_no_reason(told) -> None:
    assert told(("cohort_prior", -2.0, 0.01, 0.07)) == ""


def test_a_cause_of_several_features_is_told_before_one_strong_feature(told) -> None:
    """As the page ranks: by cause, told by its strongest feature."""
    pace = [
        ("rate_1s", 0.6, 48.0, 12.0),
        ("rate_10s", 0.6, 40.0, 12.0),
        ("rate_60s", 0.6, 30.0, 12.0),
    ]
    assert told(("client_error_share_60s", 1.0, 0.4, 0.01), *pace).startswith(
        "Requests a second: 48"
    )


@pytest.mark.django_db
def test_table_and_page_name_the_same_reason(models, document, store) -> None:
    events = [
        e
        for e in (world.decided(row, document=document) for row in world.rows(120, seed=2))
        if e.reason == Reason.RISK_HIGH
    ]
    store(events)
    backlog.explain_since(time.time() - 600.0)
    decisions = list(Decision.objects.filter(reason=int(Reason.RISK_HIGH)))
    short = short_reason.write_short_reasons(decisions)
    assert len(short) > 20
    for d in decisions:
        found = list(decision_page.explained(d).reasons)
        if not found:
            assert d.id not in short
            continue
        if d.action == Action.SHED:
            assert "load, price" in short_reason.write_short_reasons([d])[d.id]
            continue
        lead = found[0]
        assert short[d.id].startswith(f"{lead.feature.label.split(',')[0]}: {lead.shown_value}")
        assert reason_codes.write_clause(lead) in verdict.write_story(d, "It", None, found).verdict


def test_a_table_reads_the_features_of_all_its_rows_at_once(
    models, document, store, django_assert_max_num_queries
) -> None:
    events = [
        e
        for e in (world.decided(row, document=document) for row in world.rows(120, seed=2))
        if e.reason == Reason.RISK_HIGH
    ]
    store(events)
    backlog.explain_since(time.time() - 600.0)
    decisions = list(Decision.objects.defer("features").filter(reason=int(Reason.RISK_HIGH)))
    whole = list(Decision.objects.filter(reason=int(Reason.RISK_HIGH)))
    with django_assert_max_num_queries(3):
        short = short_reason.write_short_reasons(decisions)
    assert len(short) > 20
    assert short == short_reason.write_short_reasons(whole)
