"""Answers in time come before complete ones: what the model is asked about, what the fallback
limiter decides, and what nobody decides, by a clock that the test sets.
"""

import asyncio

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.requests import CheckRequest, Decision
from decider.http.arrivals import BEAT_S, HALTED_S, Arrivals
from decider.http.batcher import Batcher, Stats
from decider.http.pace import FEW, GATEWAY_S, SLICE_S, WAY_BACK_S, Cost, Pace
from decider.http.responses import NGINX, Answers
from tests.decider.http_client import FakeEngine, parse

ANSWER_S, TURN_S, EXPIRY_S = GATEWAY_S / 2, GATEWAY_S / 4, GATEWAY_S - WAY_BACK_S


def pace(ranked_us: float, late_us: float) -> Pace:
    made = Pace()
    made.ranked.each_s, made.late.each_s = ranked_us * 1e-6, late_us * 1e-6
    return made


def test_the_model_is_asked_about_all_checks_while_there_is_time() -> None:
    assert pace(8, 5).cut(200, 0.0, 0.0, 0.0) == (200, 0, 0)


def test_a_batch_is_cut_to_what_the_model_can_do_in_half_of_the_time() -> None:
    ranked, late, undecided = pace(50, 5).cut(200, 0.0, 0.0, 0.0)
    assert undecided == 0
    assert TURN_S - 50e-6 <= ranked * 50e-6 + late * 5e-6 <= TURN_S


def test_the_longer_checks_have_waited_the_fewer_are_ranked() -> None:
    cuts = [pace(50, 5).cut(200, waited, 0.0, 0.0) for waited in (0.0, 0.005, 0.006, 0.007)]
    assert [cut.undecided for cut in cuts] == [0, 0, 0, 0]
    ranked = [cut.ranked for cut in cuts]
    assert ranked == sorted(ranked, reverse=True) and ranked[0] > ranked[-1] == 0


def test_what_even_the_fallback_limiter_cannot_answer_in_time_is_not_decided() -> None:
    ranked, late, undecided = pace(20, 10).cut(1_000, 0.0, 0.0, 0.0)
    assert (ranked, late + undecided) == (0, 1_000)
    assert late == pytest.approx(ANSWER_S / 10e-6, abs=1)


def test_after_a_halt_checks_are_decided_until_the_gateway_gives_up() -> None:
    assert pace(8, 5).cut(100, 0.010, 0.0, 0.0) == (0, 100, 0)
    assert pace(8, 5).cut(100, EXPIRY_S, 0.0, 0.0) == (0, 0, 100)
    assert pace(8, 5).cut(1, 5.0, 0.0, 0.0) == (0, 0, 1)


@given(
    st.integers(1, 5_000),
    st.floats(0, 0.03),
    st.floats(0, 0.03),
    st.floats(0, 1e-3),
    st.floats(0, 1e-3),
)
def test_a_cut_leaves_out_nothing_and_ends_in_time(
    count: int, waited: float, spent: float, ranked_s: float, late_s: float
) -> None:
    made = pace(ranked_s * 1e6, late_s * 1e6)
    spent = min(spent, waited)
    cut = made.cut(count, waited, spent, spent)
    assert sum(cut) == count and min(cut) >= 0
    taken = cut.ranked * max(ranked_s, late_s) + cut.late * late_s
    assert cut.ranked + cut.late == 0 or waited + taken <= EXPIRY_S + 1e-9
    assert cut.ranked == 0 or spent + cut.ranked * ranked_s <= TURN_S + 1e-9


def test_costs_follow_the_work_and_forgive_a_halt() -> None:
    cost = Cost()
    for _ in range(40):
        cost.note(1, 20e-6)
        cost.note(100, 20e-6 + 100 * 5e-6)
    assert (cost.call_s, cost.each_s) == pytest.approx((20e-6, 5e-6), rel=0.01)
    cost.note(100, 0.5)  # the process was halted for half a second
    assert cost.each_s == pytest.approx(5e-6 * 2.5, rel=0.02)
    for _ in range(20):
        cost.note(100, 20e-6 + 100 * 50e-6)
    assert cost.each_s == pytest.approx(50e-6, rel=0.05)


def test_a_model_that_was_too_slow_to_be_asked_is_asked_again() -> None:
    engine, made = Clocked(ranked_us=10, late_us=5), pace(10_000, 5)
    turns = 0
    while "decide" not in dict(engine.asked):
        turn(engine, 5 * FEW, made=made)
        turns += 1
        assert turns < 1_000
    assert turns > 10


def test_a_slice_is_short_even_if_much_fits() -> None:
    made = pace(10, 5)
    assert made.next_slice(5_000, 0.0, 0.0, 0.0)[0] == 200
    assert made.slice_of(pace(1e6, 5).ranked) == FEW


class TestArrivals:
    def test_a_check_for_which_the_loop_waited_has_just_come(self) -> None:
        turns = Arrivals(0.0)
        turns.begin(BEAT_S)
        assert turns.since == BEAT_S

    def test_a_check_that_a_turn_kept_waiting_may_be_as_old_as_that_turn(self) -> None:
        turns = Arrivals(0.0)
        turns.begin(0.003)
        turns.end(0.010)
        turns.begin(0.01001)
        assert turns.since == 0.003
        turns.end(0.012)
        turns.begin(0.01201)
        assert turns.since == 0.01001

    def test_after_a_halt_a_check_may_be_as_old_as_the_last_sign_of_life(self) -> None:
        turns = Arrivals(0.0)
        turns.beat(1.0)
        turns.begin(1.0 + HALTED_S + 2.0)
        assert turns.since == 1.0

    def test_a_beat_that_comes_late_does_not_hide_a_halt(self) -> None:
        turns = Arrivals(0.0)
        turns.beat(1.0)
        turns.beat(3.0)  # the process was halted; its timers run first
        turns.begin(3.002)
        assert turns.since == 1.0
        turns.end(3.003)
        turns.beat(3.004)
        turns.begin(3.006)
        assert turns.since == 3.006

    def test_a_turn_that_took_long_counts_until_the_next_sign_of_life(self) -> None:
        turns = Arrivals(0.0)
        turns.begin(0.003)
        turns.end(0.503)
        turns.begin(0.505)
        assert turns.since == 0.003

    def test_what_a_new_connection_sent_is_as_old_as_the_halt_in_which_it_waited(self) -> None:
        for beats_first in (True, False):
            turns = Arrivals(0.0)
            turns.beat(1.0)
            if beats_first:
                turns.beat(3.0)
            turns.begin(3.0001)
            turns.end(3.0002)
            turns.accept(3.0003)
            turns.begin(3.0010)
            assert turns.since == 1.0
            turns.end(3.0011)
            turns.begin(3.0100)
            assert turns.since > 3.0

    def test_connections_that_never_stop_coming_do_not_hand_on_an_age(self) -> None:
        turns, now = Arrivals(0.0), 2.0
        turns.begin(now)
        assert turns.since == 0.0
        for _ in range(20):
            turns.accept(now + 0.0002)
            turns.end(now + 0.0005)
            now += 0.001
            turns.begin(now)
        assert now - turns.since < HALTED_S

    def test_a_check_right_after_a_beat_is_no_older_than_the_sign_of_life_before(self) -> None:
        turns = Arrivals(0.0)
        turns.begin(0.001)
        turns.end(0.002)
        turns.beat(1.0)
        turns.beat(1.004)
        turns.begin(1.0041)
        assert turns.since == 1.0


class Clocked(FakeEngine):
    """An engine that takes its time, on a clock of its own."""

    def __init__(self, ranked_us: float, late_us: float) -> None:
        super().__init__()
        self.now, self.costs = 0.0, {"decide": ranked_us * 1e-6, "decide_late": late_us * 1e-6}
        self.asked: list[tuple[str, int]] = []

    def decide(self, requests, now=None) -> list[Decision]:
        return self._take("decide", requests)

    def decide_late(self, requests) -> tuple[list[Decision], bool]:
        return self._take("decide_late", requests), True

    def _take(self, how: str, requests) -> list[Decision]:
        self.asked.append((how, len(requests)))
        self.now += self.costs[how] * len(requests)
        return super().decide(requests)


class Caller:
    """Keeps the answers to its checks."""

    def __init__(self) -> None:
        self.waiting, self.data = 0, b""

    def answered(self, data: bytes, count: int) -> None:
        self.waiting -= count
        self.data += data

    def job_done(self, data: bytes, mark: int) -> None:
        raise NotImplementedError


def turn(
    engine: Clocked,
    count: int,
    held_s: float = 0.0,
    mark: int = 0,
    read_us: float = 0.0,
    made: Pace | None = None,
) -> tuple[list, Stats]:
    """Return the answers to `count` checks that one turn brings, after the loop was held up.

    Reading one takes `read_us`.
    """

    async def run() -> tuple[list, Stats]:
        stats, caller = Stats(), Caller()
        pace_of = made or Pace()
        batcher = Batcher(engine, Answers(0.0), stats, lambda: None, pace_of, lambda: engine.now)
        engine.now += held_s
        for _ in range(count):
            batcher.add(caller, CheckRequest("app_1", "GET", "/v2/orders/1"), mark)
            engine.now += read_us * 1e-6
        await asyncio.sleep(0)
        assert caller.waiting == 0
        return parse(caller.data), stats

    return uvloop.run(run())


def test_checks_that_the_model_has_no_time_for_are_answered_and_marked_late() -> None:
    engine = Clocked(ranked_us=100, late_us=5)
    answers, stats = turn(engine, 300)
    late = [answer.headers.get("sluice-late") for answer in answers]
    ranked = late.index("true")
    assert ranked >= FEW and late == [None] * ranked + ["true"] * (300 - ranked)
    assert (stats.late, stats.undecided, stats.decided) == (300 - ranked, 0, 300)
    assert engine.now <= EXPIRY_S
    assert {answer.status for answer in answers} == {200}


def test_the_time_of_a_turn_counts_from_its_first_check() -> None:
    """Who comes while the checks of a turn are read waits for that as well."""
    engine = Clocked(ranked_us=20, late_us=1)
    answers, stats = turn(engine, 200, read_us=10)
    assert engine.now <= TURN_S + SLICE_S
    assert stats.late > 0 and stats.decided == len(answers) == 200


def test_a_model_that_became_slow_is_found_out_within_two_slices() -> None:
    engine = Clocked(ranked_us=80, late_us=5)
    turn(engine, 200)
    assert engine.asked[0][0] == "decide" and engine.asked[1][0] == "decide_late"
    made = Pace()
    for count in (125, 50):
        made.ranked.note(count, 30e-6 + count * 80e-6)
    assert made.ranked.each_s > 40e-6


def test_refusals_say_that_they_are_late_too() -> None:
    answers = Answers(0.0)
    for mark in (0, NGINX):
        for action in range(5):
            refused = Decision(bytes(16), action, 5, 51, 2.0, 10, 10, 0, 2.0)
            said = answers.check(refused, mark | 16)
            assert said.count("\r\nsluice-late: true\r\n") == 1
            assert said.replace("sluice-late: true\r\n", "") == answers.check(refused, mark)


@pytest.mark.parametrize("mark", [0, NGINX])
def test_a_check_whose_gateway_has_given_up_is_not_decided(mark: int) -> None:
    engine = Clocked(ranked_us=5, late_us=5)
    answers, stats = turn(engine, 100, held_s=EXPIRY_S + 0.001, mark=mark)
    assert engine.asked == []
    # nginx and Envoy take a 503 for no answer, a 403 for a refusal
    assert {answer.status for answer in answers} == {503}
    assert (stats.undecided, stats.decided) == (100, 0)


def test_nothing_is_decided_after_the_gateways_time() -> None:
    engine = Clocked(ranked_us=10, late_us=10)
    answers, stats = turn(engine, 5_000)
    assert [answer.status for answer in answers] == [200] * stats.decided + [503] * stats.undecided
    assert engine.now <= GATEWAY_S
    assert stats.decided + stats.undecided == 5_000 and stats.decided > 500


def test_a_few_checks_need_no_plan() -> None:
    engine = Clocked(ranked_us=10, late_us=1)
    turn(engine, FEW)
    assert engine.asked == [("decide", FEW)]
