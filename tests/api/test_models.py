"""What a model uses and how the console keeps up, over REST."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from control.models import AnchorReport
from explain.shap import backlog, importance
from tests.api.conftest import problem
from tests.explain import world

USE = "/api/v1/models/explanations"


def test_what_a_model_uses_is_what_its_page_shows(models, document, store, caller) -> None:
    store([world.decided(row, document=document) for row in world.rows(60, seed=22, missing=False)])
    backlog.explain_since(0.0)
    told = caller("ml_owner").get(USE).json()
    (digest,) = importance.list_recent_models()
    rows = importance.rank_features(importance.sample_decisions(digest))
    assert [f["name"] for f in told["features"]] == [row.feature.name for row in rows]
    assert told["features"][0]["importance"] == pytest.approx(rows[0].importance)
    quantiles = list(told["features"][0]["quantiles"].values())
    assert quantiles == sorted(quantiles)
    assert told["dependence"]["feature"] == told["features"][0]["name"]
    assert told["stands_for"] >= told["decisions"] > 0
    assert problem(caller().get(USE, {"tier": "gold"}))["status"] == 404


def test_with_nothing_explained_it_says_so(db, caller) -> None:
    told = caller().get(USE).json()
    assert (told["decisions"], told["features"], told["dependence"]) == (0, [], None)


def test_the_backlog_of_explanations_is_told(models, document, store, caller) -> None:
    store([world.decided(row, document=document) for row in world.rows(20, seed=22, missing=False)])
    before = caller().get("/api/v1/status").json()["explanations"]
    backlog.explain_since(0.0)
    after = caller().get("/api/v1/status").json()["explanations"]
    assert before["waiting"] > 0 == after["waiting"]


def test_how_anchoring_the_audit_log_goes_is_told(db, caller) -> None:
    names = ("audit_anchored_s", "audit_anchors_waiting", "audit_anchoring_failing_s")

    def told() -> list[float | None]:
        answer = caller().get("/api/v1/status").json()
        return [answer[name] for name in names]

    assert told() == [None, 0, 0.0]
    at = timezone.now() - timedelta(minutes=5)
    AnchorReport.objects.create(anchored_at=at, failing_since=at, waiting=3, why="Away.")
    assert told() == [pytest.approx(300, abs=60), 3, pytest.approx(300, abs=60)]
