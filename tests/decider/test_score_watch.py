"""A model whose scores are no numbers shows until it is replaced, or for a minute."""

from __future__ import annotations

from decider.contracts.vocabulary import MlState
from decider.scoring.score_watch import SHOWN_S, ScoreWatch


def test_a_bad_score_is_told_for_a_while_and_again_when_another_one_comes() -> None:
    watch = ScoreWatch()
    assert watch.ml_state(MlState.LIVE, 0, "m1", 0.0) == MlState.LIVE
    assert watch.ml_state(MlState.LIVE, 3, "m1", 1.0) == MlState.BAD_SCORE
    assert watch.ml_state(MlState.LIVE, 3, "m1", SHOWN_S) == MlState.BAD_SCORE
    assert watch.ml_state(MlState.LIVE, 3, "m1", SHOWN_S + 2.0) == MlState.LIVE
    assert watch.ml_state(MlState.LIVE, 4, "m1", SHOWN_S + 3.0) == MlState.BAD_SCORE


def test_another_model_begins_anew() -> None:
    watch = ScoreWatch()
    assert watch.ml_state(MlState.LIVE, 1, "m1", 0.0) == MlState.BAD_SCORE
    assert watch.ml_state(MlState.LIVE, 1, "m2", 1.0) == MlState.LIVE


def test_what_is_off_for_another_reason_says_that_one() -> None:
    watch = ScoreWatch()
    assert watch.ml_state(MlState.SWITCHED_OFF, 1, "m1", 0.0) == MlState.SWITCHED_OFF
    assert watch.ml_state(MlState.NO_MODEL, 1, "", 1.0) == MlState.NO_MODEL
