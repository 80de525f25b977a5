"""What a model uses, over many decisions: weighed, drawn within its box, and shown to whoever may
see decisions.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts import artifact as artifacts
from decider.contracts.features import FEATURES, INDEX, N_FEATURES
from decider.contracts.vocabulary import Tier
from explain.models import Explanation
from explain.shap import backlog, importance
from explain.shap.importance import ExplainedSample
from tests.database import as_owner
from tests.explain import world
from tests.pages import shown

ADDRESS = "/models/explanations"


def made(contributions: np.ndarray, values: np.ndarray, weights: np.ndarray) -> ExplainedSample:
    return ExplainedSample(contributions, values, weights, datetime(2026, 1, 1, tzinfo=UTC))


def population(count: int, seed: int = 1) -> ExplainedSample:
    """A traffic in which high values of one feature raise, of another lower, and a third does
    nothing.
    """
    random = np.random.default_rng(seed)
    values = random.exponential(1.0, (count, N_FEATURES))
    contributions = np.zeros((count, N_FEATURES))
    contributions[:, INDEX["rate_10s"]] = values[:, INDEX["rate_10s"]] - 1.0
    contributions[:, INDEX["app_age"]] = 0.3 * (1.0 - values[:, INDEX["app_age"]])
    return made(contributions, values, np.ones(count))


# -- figures
# ---------------------------------------------------------------------


def test_importance_of_a_biased_sample_is_that_of_the_traffic_once_it_is_weighed() -> None:
    everything = population(200_000)
    truth = importance.average_contributions(everything)
    probability = np.clip(0.05 * everything.values[:, INDEX["rate_10s"]], 0.01, 1.0)
    kept = np.random.default_rng(2).random(len(probability)) < probability
    biased = made(everything.contributions[kept], everything.values[kept], 1.0 / probability[kept])
    plain = made(biased.contributions, biased.values, np.ones(len(biased)))
    k = INDEX["rate_10s"]
    assert importance.average_contributions(biased)[k] == pytest.approx(truth[k], rel=0.05)
    assert importance.average_contributions(plain)[k] > 1.3 * truth[k]


def test_features_come_by_importance_with_what_higher_values_do() -> None:
    found = importance.rank_features(population(1500))
    assert [(row.feature.name, row.tends) for row in found] == [
        ("rate_10s", "raise"),
        ("app_age", "lower"),
    ]
    assert found[0].share == 100.0 > found[1].share


def test_the_place_of_a_value_counts_half_of_its_equals() -> None:
    values, weights = np.array([1.0, 1.0, 2.0, np.nan]), np.array([1.0, 1.0, 2.0, 9.0])
    place = importance.rank_values(values, weights)
    assert place[:3].tolist() == [0.25, 0.25, 0.75]
    assert np.isnan(place[3])
    assert importance.shade_values(values, weights).tolist() == [1, 1, 3, 5]


@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_a_row_of_weight_n_ranks_as_n_rows_do(counts: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 5, len(counts)).astype(float)
    weighed = importance.rank_values(values, np.array(counts, float))
    repeated = importance.rank_values(np.repeat(values, counts), np.ones(sum(counts)))
    assert np.allclose(np.repeat(weighed, counts), repeated)
    assert (weighed > 0).all() and (weighed < 1).all()


@given(weights=st.lists(st.floats(0.5, 1000), min_size=1, max_size=50), most=st.integers(1, 200))
def test_dots_stand_for_equal_shares_of_the_traffic(weights: list[float], most: int) -> None:
    array = np.array(weights)
    chosen = importance.pick_evenly(array, most)
    if len(chosen) == most:
        times = np.bincount(chosen, minlength=len(array))
        assert (np.abs(times - most * array / array.sum()) <= 1 + 1e-6).all()
    else:
        assert chosen.tolist() == list(range(len(array)))


@pytest.mark.parametrize("count", [1, 2, 50, 2000])
def test_everything_is_drawn_within_its_box(count: int) -> None:
    found = population(count)
    found.values[::3, INDEX["rate_10s"]] = np.nan
    for row in importance.rank_features(found):
        assert all(
            0 <= dot.x <= 100 and 0 <= dot.y <= 100 and 0 <= dot.shade <= 5 for dot in row.dots
        )
        depends = importance.plot_dependence(found, row.feature)
        assert depends is None or all(
            0 <= dot.x <= 100 and 0 <= dot.y <= 100 for dot in depends.dots
        )


def test_dependence_follows_the_value_and_counts_what_is_not_known() -> None:
    found = population(2000)
    found.values[:500, INDEX["rate_10s"]] = np.nan
    depends = importance.plot_dependence(found, FEATURES[INDEX["rate_10s"]])
    means = [b.mean for b in depends.bins]
    assert len(means) == importance.BINS
    assert means == sorted(means)
    assert depends.unknown == pytest.approx(0.25)
    found.values[:, INDEX["rate_10s"]] = np.nan
    assert importance.plot_dependence(found, FEATURES[INDEX["rate_10s"]]) is None


def test_an_empty_sample_has_no_rows() -> None:
    empty = made(np.empty((0, N_FEATURES)), np.empty((0, N_FEATURES)), np.empty(0))
    assert importance.rank_features(empty) == ()
    assert not importance.average_contributions(empty).any()


# -- from the store
# ---------------------------------------------------------------------


@pytest.fixture
def explained(models, document, store) -> list:
    events = store(
        [world.decided(row, document=document, seen_tokens=1.0) for row in world.rows(400, seed=22)]
    )
    backlog.explain_since(0.0)
    return events


@pytest.mark.django_db
def test_every_explained_decision_weighs_by_how_it_was_kept_and_explained(explained) -> None:
    digest = artifacts.digest_of(world.made())
    found = importance.sample_decisions(digest)
    ranked = [
        e
        for e in explained
        if e.raw_risk is not None and (e.action or e.id[15] & 15 < backlog.ADMITS_OF_16)
    ]
    wanted = [
        (1 if e.action else 16 / backlog.ADMITS_OF_16) / e.inclusion_probability for e in ranked
    ]
    assert sorted(found.weights) == pytest.approx(sorted(wanted))
    assert importance.list_recent_models() == [digest]


@pytest.mark.django_db
def test_an_admit_that_someone_opened_and_a_mismatch_are_left_out(explained) -> None:
    digest = artifacts.digest_of(world.made())
    before = len(importance.sample_decisions(digest))
    opened = next(
        e
        for e in explained
        if not e.action and e.raw_risk is not None and e.id[15] & 15 >= backlog.ADMITS_OF_16
    )
    assert backlog.explain_decision(UUID(bytes=opened.id)).explained == 1
    assert len(importance.sample_decisions(digest)) == before
    other = Explanation.objects.exclude(decision=UUID(bytes=opened.id)).first().decision
    with as_owner():
        Explanation.objects.filter(decision=other).update(mismatch=True)
    assert len(importance.sample_decisions(digest)) == before - 1


@pytest.mark.django_db
def test_a_tier_sees_its_own_decisions(explained) -> None:
    digest = artifacts.digest_of(world.made())
    by_tier = [len(importance.sample_decisions(digest, int(tier))) for tier in Tier]
    assert sum(by_tier) == len(importance.sample_decisions(digest))


# -- the page
# ---------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("role", ["ml_owner", "support", "auditor"])
def test_the_page_names_what_moves_the_risk_and_has_it_as_a_table(explained, browser, role) -> None:
    page = browser(role).get(ADDRESS)
    text = shown(page)
    assert page.status_code == 200
    assert re.search(r"<h1>“.+” and “.+” move the risk most</h1>", text.replace("&quot;", '"'))
    assert text.count("<circle") > 100
    assert "Show as a table" in text
    assert "Mean contribution, log-odds" in text


@pytest.mark.django_db
def test_model_tier_and_feature_can_be_chosen(explained, browser) -> None:
    digest, tier = artifacts.digest_of(world.made()), Tier(explained[0].tier).word
    page = browser().get(ADDRESS, {"model": digest[:12], "tier": tier, "feature": "app_age"})
    text = shown(page)
    assert f"move the risk most for {tier} tier" in text
    assert '<h2 id="h-dep">Age of the app</h2>' in text
    assert "tier=premium" in text and "feature=app_age" in text


@pytest.mark.django_db
@pytest.mark.parametrize("asked", [{}, {"model": "ab" * 6}, {"feature": "tier"}])
def test_with_nothing_explained_it_says_what_applies(models, browser, asked) -> None:
    assert "No explained decision in the last 24 h." in shown(browser().get(ADDRESS, asked))


@pytest.mark.django_db
@pytest.mark.parametrize("asked", [{"tier": "gold"}, {"feature": "luck"}])
def test_what_is_not_known_is_not_found(models, browser, asked) -> None:
    assert browser().get(ADDRESS, asked).status_code == 404


@pytest.mark.django_db
def test_it_takes_a_role_and_a_get(models, browser) -> None:
    assert browser("").get(reverse("model-explanations")).status_code == 403
    assert browser().post(reverse("model-explanations")).status_code == 405
