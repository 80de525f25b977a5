"""How many of the waiting checks fit into a turn of the event loop: the model is asked about the
first ones, the next ones get the fallback limiter's decision, and the rest comes too late for any.

A gateway waits for a decision for a few milliseconds and then goes on without one, so an answer in
time is worth more than the model's. Nothing here reads a clock; times are seconds.
"""

from __future__ import annotations

from typing import NamedTuple

# Seconds that a gateway waits for a decision, as `examples/gateway` has it.
GATEWAY_S = 0.015
# Share of that time within which checks are answered. Chosen: 7.5 ms, which leaves 2.5 ms of the
# 10 ms within which checks are promised an answer for the ways from and to the gateway.
ANSWER_SHARE = 0.5
# Share of it that a turn takes which asks the model, reading its checks included. Checks that come
# while it runs wait for all of it and then for their own turn, so each may have half of the time.
TURN_SHARE = ANSWER_SHARE / 2
# Seconds for the way back: a check that has waited for longer than the gateway's time less this is
# not decided.
WAY_BACK_S = 0.001
# Least time for decisions of the fallback limiter in a turn, so that a process that was halted, or
# a model that took too long, leaves time for what gateways still wait for. Chosen: as long as a
# usual turn under full load.
LEAST_S = 0.002
# Time of one slice, after which the rest is planned again. Chosen: a model that became ten times
# slower then holds up one turn at most.
SLICE_S = 0.001
# Checks of a slice, at least: below this, the costs of a call outweigh those of its checks. Calls
# with fewer checks tell the costs of a call.
FEW = 8
# Costs before any were measured: usual ones of a core of 2020.
CALL_S, EACH_S = 30e-6, 8e-6
# Weight of a new measurement above the estimate, and of one below it. Chosen: two slices show that
# the model became ten times slower, since each one that is too long makes checks late. That it is
# fast again is found out within some milliseconds.
UP, DOWN = 0.5, 0.2
# A measurement counts as no more than so many times the estimate: the system may have halted the
# process within it, which says nothing of the work.
MOST_TIMES = 4.0
# What an estimate loses with each turn that could not test it, so that a model which was slow for
# a moment is asked again. Chosen: it halves within 70 turns, about a quarter of a second.
FORGET = 0.99


class Cost:
    """What checks decided in one way cost, as it was measured lately."""

    __slots__ = ("call_s", "each_s")

    def __init__(self) -> None:
        self.call_s, self.each_s = CALL_S, EACH_S
        """Seconds of a call, and of each check in it."""

    def note(self, count: int, seconds: float) -> None:
        """Note that a call with `count` checks took so long."""
        if count < FEW:
            self.call_s = _moved(self.call_s, seconds)
        else:
            self.each_s = _moved(self.each_s, max(0.0, seconds - self.call_s) / count)

    def forget(self) -> None:
        """Believe a little less in an estimate that no call tested in this turn."""
        self.each_s *= FORGET


def _moved(estimate: float, found: float) -> float:
    found = min(found, MOST_TIMES * estimate)
    return estimate + (UP if found > estimate else DOWN) * (found - estimate)


class Cut(NamedTuple):
    """How the checks that wait are to be decided, in the order in which they came."""

    ranked: int
    """The model may be asked about these."""
    late: int
    """The fallback limiter decides these."""
    undecided: int
    """These cannot be answered in time, and are not decided."""


class Pace:
    """The costs of one batcher, and what fits."""

    __slots__ = ("_answer_s", "_expiry_s", "_turn_s", "late", "ranked")

    def __init__(self, gateway_s: float = GATEWAY_S) -> None:
        """Keep to a gateway that waits for `gateway_s` seconds."""
        self.ranked, self.late = Cost(), Cost()
        self._answer_s, self._turn_s = gateway_s * ANSWER_SHARE, gateway_s * TURN_SHARE
        self._expiry_s = gateway_s - WAY_BACK_S

    def cut(self, count: int, waited: float, spent: float, hurried: float) -> Cut:
        """Cut `count` checks, the first of which has waited for `waited` seconds. Of these, this
        turn took `spent`, reading included, and `hurried` passed since it asked the model last or
        began to decide.
        """
        each = max(self.late.each_s, 1e-9)
        end = min(self._expiry_s, max(self._answer_s, waited - hurried + LEAST_S))
        answered = min(count, max(0, int((end - waited) / each)))
        room = min(self._answer_s - waited, self._turn_s - spent)
        dearer = self.ranked.each_s - each
        if answered * max(self.ranked.each_s, each) <= room:
            ranked = answered
        elif dearer <= 0.0:
            ranked = max(0, int(room / each))
        else:
            ranked = max(0, int((room - answered * each) / dearer))
        ranked = min(ranked, answered)
        return Cut(ranked, answered - ranked, count - answered)

    def slice_of(self, cost: Cost) -> int:
        """Return how many checks of this cost to decide before planning again."""
        return max(FEW, int(SLICE_S / max(cost.each_s, 1e-9)))

    def next_slice(
        self, count: int, waited: float, spent: float, hurried: float
    ) -> tuple[int, Cost | None]:
        """Return how many checks to decide next, and the cost of the way in which they are decided;
        None when they, all that are left, cannot be answered in time. Arguments as for `cut`.
        """
        cut = self.cut(count, waited, spent, hurried)
        if cut.ranked:
            return min(cut.ranked, self.slice_of(self.ranked)), self.ranked
        if cut.late:
            return min(cut.late, self.slice_of(self.late)), self.late
        return count, None
