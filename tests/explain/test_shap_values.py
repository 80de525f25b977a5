"""SHAP values add up to the score that was used, agree with a second implementation, and say so
when they do not.
"""

from __future__ import annotations

import logging
import time

import lightgbm as lgb
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from console import settings as settings_module
from decider.contracts import artifact as artifacts
from decider.contracts import defaults, features
from decider.contracts.artifact import ArtifactError, Calibration
from decider.scoring.shap import Explainer
from decisions.models import Decision
from explain import tasks
from explain.models import Explanation, ModelCheck
from explain.shap import backlog, waterfall
from explain.shap import model_files as explain_artifacts
from explain.shap import values as shap_values
from tests.explain import world

pytestmark = pytest.mark.django_db


def digest() -> str:
    return artifacts.digest_of(world.made())


def test_values_and_base_add_up_to_the_raw_score(models) -> None:
    rows = world.rows(500, seed=31)
    found = shap_values.compute_values(digest(), rows)
    assert np.abs(found.errors(world.model().score(rows).raw_risk)).max() <= shap_values.TOLERANCE


def test_values_agree_with_an_implementation_that_is_not_lightgbms(models) -> None:
    found = shap_values.compare_implementations(digest())
    assert found.rows == 120
    assert 0 < found.max_difference <= shap_values.TOLERANCE
    assert found.ok


def test_the_second_implementation_would_notice_a_wrong_value(models, monkeypatch) -> None:
    honest = shap_values.compute_values

    def wrong(name: str, rows: np.ndarray) -> shap_values.ShapValues:
        found = honest(name, rows)
        found.contributions[3, 5] += 1e-4
        return found

    monkeypatch.setattr(shap_values, "compute_values", wrong)
    assert not shap_values.compare_implementations(digest()).ok


def test_decisions_are_explained_once_and_add_up(models, document, store) -> None:
    store([world.decided(row, document=document) for row in world.rows(60, seed=2)])
    first = backlog.explain_since(0.0)
    assert first.explained > 5
    assert first.mismatched == first.failed == 0
    assert backlog.explain_since(0.0).explained == 0
    for e in Explanation.objects.all():
        assert abs(e.base + e.values.sum() - e.raw) <= shap_values.TOLERANCE
        assert not e.mismatch


def test_every_ranked_refusal_and_a_fixed_share_of_admits_is_explained(
    models, document, store
) -> None:
    events = store(
        [world.decided(row, document=document, seen_tokens=1.0) for row in world.rows(300, seed=4)]
    )
    backlog.explain_since(0.0)
    explained = {e.decision.bytes for e in Explanation.objects.all()}
    ranked = [e for e in events if e.raw_risk is not None]
    assert {e.id for e in ranked if e.action} <= explained
    admits = [e for e in ranked if not e.action]
    assert {e.id for e in admits} & explained == {
        e.id for e in admits if e.id[15] & 15 < backlog.ADMITS_OF_16
    }
    assert not {e.id for e in events if e.raw_risk is None} & explained


def tampered() -> lgb.Booster:
    """The model with one tree that adds a quarter more."""
    found = lgb.Booster(model_str=artifacts.decode(world.made()).risk_model)
    for leaf in range(found.dump_model()["tree_info"][0]["num_leaves"]):
        found.set_leaf_output(0, leaf, found.get_leaf_output(0, leaf) + 0.25)
    return found


def test_values_of_a_tampered_model_are_marked_and_alarmed(
    models, document, store, monkeypatch, caplog
) -> None:
    store([world.decided(row, document=document) for row in world.rows(20, seed=2)])
    other = Explainer.from_text(tampered().model_to_string())
    monkeypatch.setattr(shap_values, "load_explainer", lambda _: other)
    with caplog.at_level(logging.ERROR, "sluice.explain"):
        done = backlog.explain_since(0.0)
    assert done.mismatched == done.explained > 0
    assert Explanation.objects.filter(mismatch=True).count() == done.mismatched
    assert "do not add up to their score" in caplog.text


def test_values_that_lightgbm_does_not_confirm_are_marked(
    models, document, store, monkeypatch, caplog
) -> None:
    store([world.decided(row, document=document) for row in world.rows(60, seed=2)])
    other = tampered()
    monkeypatch.setattr(shap_values, "load_booster", lambda _: other)
    with caplog.at_level(logging.ERROR, "sluice.explain"):
        done = backlog.explain_since(0.0)
    assert done.mismatched == backlog.LIGHTGBM_ROWS < done.explained
    assert "differ from LightGBM's" in caplog.text


def test_a_model_without_row_counts_costs_only_its_explanations(
    models, document, store, monkeypatch
) -> None:
    store([world.decided(row, document=document) for row in world.rows(20, seed=2)])
    monkeypatch.setattr(explain_artifacts.load_model(digest()), "explainer", None)
    done = backlog.explain_since(0.0)
    assert (done.explained, done.mismatched) == (0, 0)
    assert done.failed > 0


def test_a_missing_model_costs_only_its_own_decisions(models, document, store, caplog) -> None:
    gone = msgspec.structs.replace(document.model, digest="ab" * 32)
    other = msgspec.structs.replace(document, model=gone)
    rows = world.rows(40, seed=2)
    store(
        [world.decided(row, document=document) for row in rows[:20]]
        + [world.decided(row, document=other) for row in rows[20:]]
    )
    done = backlog.explain_since(0.0)
    assert done.explained > 0
    assert done.failed > 0
    assert backlog.explain_since(0.0) == backlog.RunOutcome()
    assert "cannot be read" in caplog.text


def test_the_backlog_counts_what_waits(models, document, store) -> None:
    store([world.decided(row, document=document) for row in world.rows(40, seed=2)])
    waiting = backlog.measure_progress().waiting
    assert waiting == backlog.explain_since(0.0).explained > 0
    assert backlog.measure_progress().waiting == 0


def test_how_explaining_keeps_up_is_measured(models, document, store) -> None:
    store([world.decided(row, document=document) for row in world.rows(40, seed=2)])
    # by the rows' own time: the first decisions wait for the compiler
    oldest = Decision.objects.order_by("stored_at")[0].stored_at
    before = backlog.measure_progress(oldest.timestamp() + 20)
    assert 19 < before.oldest_s < backlog.KEEP_S
    assert before.per_s == before.dropped == 0
    done = backlog.explain_since(0.0)
    assert before.waiting == done.explained > 0
    after = backlog.measure_progress(time.time())
    assert (after.waiting, after.oldest_s) == (0, 0.0)
    assert after.per_s == pytest.approx(done.explained / backlog.RATE_S)


def test_two_seconds_at_the_sampling_budget_are_explained_before_the_next_two_are_over(
    models, document, store
) -> None:
    budget = defaults.config().sampling.budget_per_s
    every = settings_module.CELERY_BEAT_SCHEDULE["explain new decisions"]["schedule"]
    arriving = int(budget * every)
    assert arriving < backlog.MOST
    rows = world.rows(arriving, seed=5)
    store([world.decided(row, document=document, seen_tokens=-1.0) for row in rows])
    started = time.monotonic()
    done = backlog.explain_since(0.0)
    assert done.explained == backlog.measure_progress().per_s * backlog.RATE_S
    assert backlog.measure_progress().waiting == 0
    per_row = (time.monotonic() - started) / done.explained
    assert per_row * arriving < every


def test_a_model_is_checked_when_it_is_first_seen(models, document, store, monkeypatch) -> None:
    store([world.decided(row, document=document) for row in world.rows(20, seed=2)])
    monkeypatch.setattr(tasks.check_model, "delay", tasks.check_model)
    assert tasks.explain_pending()["explained"] > 0
    assert ModelCheck.objects.get().ok
    monkeypatch.setattr(tasks.check_model, "delay", pytest.fail)
    tasks.explain_pending()


def test_a_model_that_is_not_there_is_kept_as_unchecked(models) -> None:
    assert tasks.check_model("ab" * 32) is False
    assert "cannot be read" in ModelCheck.objects.get().error


def test_one_decision_can_be_explained_out_of_turn(models, document, store) -> None:
    admit = next(
        e
        for e in store([world.decided(r, document=document) for r in world.rows(60, seed=4)])
        if not e.action and e.raw_risk
    )
    assert tasks.explain_one(admit.id.hex()) == 1
    assert tasks.explain_one(admit.id.hex()) == 0


def test_a_path_is_not_a_digest(models) -> None:
    with pytest.raises(ArtifactError, match="not a digest"):
        shap_values.compute_values("../../etc/passwd", world.rows(1))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.floats(-6, 6),
    contributions=st.lists(
        st.floats(-4, 4), min_size=features.N_FEATURES, max_size=features.N_FEATURES
    ),
    slope=st.floats(0.2, 3),
    intercept=st.floats(-2, 2),
)
def test_the_shown_column_adds_up_to_the_last_digit(base, contributions, slope, intercept) -> None:
    values = np.zeros(features.N_FEATURES, np.float32)
    fall = waterfall.build_waterfall(
        base, np.array(contributions), values, None, Calibration(slope, intercept)
    )
    shown = (
        round(fall.base * 100)
        + sum(round(r.effect * 100) for r in fall.rows)
        + round(fall.rest * 100)
    )
    assert shown == round(fall.score * 100)
    assert round(fall.base * 100) + round(fall.total * 100) == round(fall.score * 100)
    assert len(fall.rows) + fall.rest_count == features.N_FEATURES
    # so does the sum in log-odds, which is told with three decimals
    base_told, rise_told = f"{fall.base_log_odds:.3f}", f"{fall.rise_log_odds:.3f}"
    total = f"{fall.base_log_odds + fall.sum_log_odds:.3f}"
    assert float(base_told) + float(rise_told) == pytest.approx(float(total), abs=1e-9)
