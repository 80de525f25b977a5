"""Decisions of a decider that is late: without the model, with every rule, and replayed exactly."""

from __future__ import annotations

from decider.contracts.config import ListEntry, Switch
from decider.contracts.requests import CheckRequest
from decider.contracts.vocabulary import ML_STATE_TEXT, Action, MlState, Reason, Stage, Tier
from decider.whatif.replay import decide_again, trace
from tests.decider.model import small_model
from tests.decider.test_engine import NOW, engine, of_tier, with_model


def checks(count: int, app: str = "app_1") -> list[CheckRequest]:
    return [CheckRequest(app, "GET", "/v2/orders/1") for _ in range(count)]


def test_late_decisions_and_others_take_tokens_from_one_bucket() -> None:
    made = engine(ml=True)
    of_tier(made, Tier.STANDARD)
    taken = sum(d.action == Action.ADMIT for d in made.decide(checks(100), NOW))
    found, late = made.decide_late(checks(301 - taken), NOW)
    assert late and taken > 0
    assert [d.action for d in found] == [Action.ADMIT] * (300 - taken) + [Action.DEFER]
    assert {d.stage for d in found} == {Stage.FALLBACK}
    assert found[-1].reason == Reason.TOKENS_EMPTY


def test_block_lists_and_quotas_bind_late_decisions() -> None:
    entry = ListEntry(verdict="block", kind="app", subject="bad")
    made = engine(with_model(lists=[entry]), ml=True)
    (blocked,), _ = made.decide_late(checks(1, "bad"), NOW)
    assert (blocked.action, blocked.reason) == (Action.BLOCK, Reason.BLOCK_LISTED)


def test_the_record_says_that_the_decider_was_late_and_replays_to_the_bit() -> None:
    made = engine(ml=True)
    of_tier(made, Tier.FREE, cohort_prior=0.9)
    made.decide_late(checks(400), NOW)
    made.decide(checks(1), NOW)
    events = made.take_events()
    assert [e.ml_state for e in events] == [MlState.DECIDER_LATE] * 400 + [MlState.LIVE]
    for event in events:
        assert decide_again(event, made.config, small_model()).identical
    assert len({e.action for e in events[:400]}) == 2
    said = " ".join(str(stage.facts) for stage in trace(events[0], made.config))
    assert "the decider was late" in said


def test_a_decider_without_a_model_in_force_is_not_late() -> None:
    for made in (
        engine(),
        engine(with_model(switches=[Switch(name="all_ml")]), ml=True),
    ):
        decisions, late = made.decide_late(checks(2), NOW)
        assert not late and len(decisions) == 2
        assert made.take_events()[0].ml_state != MlState.DECIDER_LATE


def test_the_next_decision_is_the_models_again() -> None:
    made = engine(ml=True)
    of_tier(made, Tier.FREE, cohort_prior=0.9)
    made.decide_late(checks(1), NOW)
    assert made.decide(checks(1), NOW)[0].stage != Stage.FALLBACK
    assert made.ml_state(NOW) == MlState.LIVE


def test_every_state_of_ml_has_its_words() -> None:
    assert set(ML_STATE_TEXT) == set(MlState)
