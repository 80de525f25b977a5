"""Every limit is shown, before and after, and the one that fired is marked."""

from __future__ import annotations

import pytest

from decider.features import INDEX
from decider.vocabulary import MlState, Reason
from explain import limits
from tests.explain import world

ROW = min(world.rows(60, seed=3, missing=False), key=lambda row: row[INDEX["rate_10s"]])
"""A quiet app."""


def by_key(**seen) -> dict[str, limits.Limit]:
    event = world.decided(ROW, **seen)
    return {one.key: one for one in limits.of(event, world.config())}


@pytest.mark.parametrize(
    ("seen", "fired", "word"),
    [
        ({"seen_quota_left": 0.0}, "quota", "spent"),
        ({"seen_list_verdict": 2.0}, "lists", "over"),
        ({"seen_override_action": 3.0}, "override", "over"),
        ({"ml_state": MlState.SWITCHED_OFF}, "bucket", "spent"),
        ({"seen_tokens": -299.5}, "bucket", "spent"),
    ],
)
def test_the_limit_that_fired_is_marked_and_all_others_are_there(seen, fired, word) -> None:
    found = by_key(**seen)
    assert len(found) == 9
    assert [key for key, one in found.items() if one.fired] == [fired]
    assert found[fired].word == word


def test_an_admit_takes_a_token_a_request_of_the_quota_and_nothing_of_the_error_budget() -> None:
    found = by_key(seen_tokens=100.0, seen_quota_left=50.0)
    assert (found["bucket"].before, found["bucket"].after) == ("100", "99")
    assert (found["quota"].before, found["quota"].after) == ("50", "49")
    assert found["budget"].before == found["budget"].after


def test_a_refusal_takes_no_token_but_its_chance_to_be_wrong_from_the_error_budget() -> None:
    refused = next(e for e in (world.decided(r) for r in world.rows(60, seed=2, missing=False)) if e.reason == Reason.RISK_HIGH)
    found = {one.key: one for one in limits.of(refused, world.config(), cut=0.4)}
    assert found["bucket"].before == found["bucket"].after
    assert float(found["budget"].after) == pytest.approx(10.0 - (1.0 - refused.risk), abs=0.06)
    assert found["risk"].limit == "changes at 0.40"


def test_every_machine_reason_that_names_a_limit_names_one_that_is_shown() -> None:
    assert set(limits.FIRED.values()) <= set(by_key())
