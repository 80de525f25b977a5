from __future__ import annotations

import pytest

from console.pages.home import mix
from decider.contracts.vocabulary import Action, Stage
from tests.decisions.factory import event, id_at, unranked

NOW = 1_763_476_327.0
QUARTER = mix.RANGES["15m"]


def at(seconds_ago: float, **fields):
    moment = NOW - seconds_ago
    return event(at=moment, id=id_at(moment), **fields)


def test_each_row_counts_for_the_inverse_of_its_inclusion_probability(stored) -> None:
    stored(
        [
            at(30, inclusion_probability=0.5),
            at(31, inclusion_probability=0.1),
            unranked(at=NOW - 32, id=id_at(NOW - 32)),
        ]
    )
    found = mix.mix_over(QUARTER, NOW)
    assert found.total == pytest.approx(2 + 10 + 50)
    assert found.kept == 3
    assert found.share(mix.refused, mix.every) == pytest.approx(12 / 62)


def test_a_series_is_decisions_a_minute_in_every_bucket(stored) -> None:
    stored([at(100, inclusion_probability=0.5), at(100, inclusion_probability=0.5)])
    series = mix.mix_over(QUARTER, NOW).series(Action.DEFER)
    assert len(series) == 60
    assert sorted(series)[-2:] == [0, 4 * 60 / 15]


def test_the_newest_bucket_counts_only_the_time_that_has_passed(stored) -> None:
    end = NOW - NOW % 15 + 5
    stored([event(at=end - 1, id=id_at(end - 1), inclusion_probability=1.0)])
    found = mix.mix_over(QUARTER, end)
    assert found.until == end
    assert found.series(Action.DEFER)[-1] == pytest.approx(60 / 5)


def test_a_bucket_that_has_only_begun_is_left_out(db) -> None:
    begun = NOW - NOW % 15
    assert mix.mix_over(QUARTER, begun + 1).until == begun


def test_enterprise_is_counted_on_its_own(stored) -> None:
    stored(
        [
            at(30, tier=3, inclusion_probability=1.0),
            at(31, tier=3, action=int(Action.ADMIT), inclusion_probability=0.02),
            at(33),
        ]
    )
    assert mix.mix_over(QUARTER, NOW).share(mix.refused, mix.enterprise) == pytest.approx(1 / 51)


def test_nothing_decided_has_no_share(db) -> None:
    empty = mix.mix_over(QUARTER, NOW)
    assert empty.share(mix.refused, mix.every) is None
    assert set(empty.shares(mix.refused, mix.every)) == {0.0}
    assert mix.oldest_decision() is None


def test_settled_buckets_are_not_asked_for_again(stored, monkeypatch) -> None:
    stored([at(600), at(20)])
    before = mix.mix_over(QUARTER, NOW)
    asked: list[int] = []
    count = mix._count
    monkeypatch.setattr(
        mix, "_count", lambda since, until, width: asked.append(since) or count(since, until, width)
    )
    after = mix.mix_over(QUARTER, NOW)
    assert after.cells == before.cells
    assert asked and min(asked) >= NOW - mix.SETTLED_S - 2 * QUARTER.bucket_s


def test_the_last_minute_is_one_piece(stored) -> None:
    stored([at(30, stage=int(Stage.TRIAGE)), at(90)])
    found = mix.mix_lately(NOW)
    assert found.minutes == 1
    assert [(cell.stage, cell.count) for cell in found.cells] == [(Stage.TRIAGE, 2.0)]
