"""Daily quotas on nodes that lease from one pool: strict whatever happens, and nobody is told that
one is used up which is not.
"""

from __future__ import annotations

from itertools import count

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts import defaults
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.engine import quota
from decider.engine.answers.waits import JITTER
from decider.engine.engine import Engine
from decider.engine.memory import app_state
from decider.node import process
from tests.decider.test_engine import NOW, ask, config, engine


def test_a_lease_lets_an_app_go_on_past_this_nodes_own_share() -> None:
    made = engine(
        config(tiers=[msgspec.structs.replace(t, quota_per_day=100) for t in defaults.TIERS]),
        quota_share=0.05,
    )
    assert [a.action for a in ask(made, NOW, count=6)].count(Action.ADMIT) == 5
    assert "app_1" in made.leases.wanted
    made.leases.grant("app_1", 10)
    assert [a.action for a in ask(made, NOW, count=11)].count(Action.ADMIT) == 10


def leased(per_day: int = 100) -> Engine:
    """An engine whose own share of a quota is a twentieth."""
    return engine(
        config(tiers=[msgspec.structs.replace(t, quota_per_day=per_day) for t in defaults.TIERS]),
        quota_share=0.05,
    )


def test_while_a_lease_is_awaited_no_app_is_told_that_its_quota_is_used_up() -> None:
    made = leased()
    ask(made, NOW, count=5)
    waits = []
    for later in (0.0, 0.5, 10.0, 4_000.0):
        told = ask(made, NOW + later)[0]
        assert (told.action, told.stage, told.reason) == (
            Action.DEFER,
            Stage.GUARD,
            Reason.LEASE_AWAITED,
        )
        waits.append(told.retry_after)
        made.leases.heard(NOW + later, answered=False)
    # as long again as the store is silent, and some jitter in whole seconds
    for wait, least in zip(waits, [1.0, 1.0, 10.0, 300.0], strict=True):
        assert least <= wait <= least + max(1.0, JITTER * least)
    made.leases.heard(NOW + 4_000.0, answered=True)
    assert 1.0 <= ask(made, NOW + 4_000.0)[0].retry_after <= 2.0
    made.leases.grant("app_1", 1)
    assert [a.action for a in ask(made, NOW + 4_000.0, count=2)] == [Action.ADMIT, Action.DEFER]


def test_a_quota_that_is_all_leased_out_is_used_up_until_the_day_ends_or_the_plan_grows() -> None:
    made = leased()
    ask(made, NOW, count=6)
    made.leases.leased_out("app_1", 100.0)
    made.leases.leased_out("app_unknown", 100.0)
    made.leases.wanted.clear()
    told = ask(made, NOW + 1)[0]
    assert (told.reason, made.leases.wanted) == (Reason.QUOTA_EXHAUSTED, {})
    assert 0.0 <= (NOW + 1 + told.retry_after) % 86_400 <= 60.0
    made.apply(
        config(
            version=2, tiers=[msgspec.structs.replace(t, quota_per_day=101) for t in defaults.TIERS]
        ),
        None,
    )
    assert ask(made, NOW + 2)[0].reason == Reason.LEASE_AWAITED
    assert made.leases.wanted == {"app_1": (101.0, 5)}
    made.leases.leased_out("app_1", 101.0)
    tomorrow = ask(made, NOW + 86_400, count=7)
    assert [a.action for a in tomorrow].count(Action.ADMIT) == 5
    assert tomorrow[-1].reason == Reason.LEASE_AWAITED


def admitted(made: Engine, now: float, requests: int) -> int:
    return [a.action for a in ask(made, now, count=requests)].count(Action.ADMIT)


def test_a_lease_is_half_a_minute_of_the_plan_at_first_and_grows_with_what_is_used() -> None:
    made = engine(
        config(tiers=[msgspec.structs.replace(t, quota_per_day=1_000_000) for t in defaults.TIERS]),
        quota_share=0.0,
    )
    ask(made, NOW)
    plan = defaults.TIERS[0]
    assert made.leases.wanted == {"app_1": (1e6, plan.rate * 30 + plan.burst)}
    slot = made.slot_of("app_1")
    made.state.clock[slot, app_state.QUOTA_USED] = 9_000.0
    made.leases.wanted.clear()
    ask(made, NOW + 1)
    assert made.leases.wanted == {"app_1": (1e6, 9_000)}
    made.state.clock[slot, app_state.QUOTA_USED] = 900_000.0
    ask(made, NOW + 2)
    assert made.leases.wanted == {"app_1": (1e6, 50_000)}


def test_another_tier_or_plan_changes_what_the_node_owns_at_once() -> None:
    made = leased(1_000)
    assert admitted(made, NOW, 40) == 40  # of 50
    made.apply(
        config(
            version=2,
            tiers=[msgspec.structs.replace(t, quota_per_day=2_000) for t in defaults.TIERS],
        ),
        None,
    )
    assert admitted(made, NOW + 100, 49) == 49
    made.apply(
        config(
            version=3, tiers=[msgspec.structs.replace(t, quota_per_day=400) for t in defaults.TIERS]
        ),
        None,
    )
    assert admitted(made, NOW + 200, 49) == 0
    slot = made.slot_of("app_1")
    assert made.state.clock[slot, app_state.QUOTA_LEFT] == 20 - 89
    assert made.leases.give_back(NOW + 200) == {}


def test_what_was_leased_and_not_used_goes_back_and_the_nodes_own_share_does_not() -> None:
    made = leased()
    assert admitted(made, NOW, 3) == 3
    made.leases.grant("app_1", 4)
    assert made.leases.give_back(NOW) == {"app_1": 4}
    assert admitted(made, NOW, 9) == 2
    made.leases.grant("app_1", 4)
    assert admitted(made, NOW, 3) == 3
    assert made.leases.give_back(NOW) == {"app_1": 1}
    assert admitted(made, NOW, 3) == 0
    made.leases.grant("app_1", 4)
    assert made.leases.give_back(NOW + 86_400) == {}  # of yesterday
    assert made.leases.give_back(NOW) == {}  # only once


LIVES = 4
WHAT = st.sampled_from(["ask", "ask", "lease", "kill", "end", "plan"])
STEPS = st.lists(st.tuples(WHAT, st.integers(0, 2), st.integers(1, 40)), min_size=40, max_size=150)


@settings(max_examples=30)
@given(steps=STEPS, per_day=st.integers(20, 200))
def test_nodes_that_lease_die_and_come_back_never_admit_more_than_the_quota(
    steps, per_day: int
) -> None:
    """Three nodes, which share the half that is not leased over their lives; the pool as
    `lease.lua` keeps it.
    """
    nodes, lives = [leased_node(per_day) for _ in range(3)], [1, 1, 1]
    pool, used, later, largest = 0, 0, count(), per_day

    def lease(node: Engine) -> int:
        taken = 0
        for app, (of, requests) in list(node.leases.wanted.items()):
            granted = min(requests, int(of * quota.POOL_SHARE) - pool - taken)
            taken += max(0, granted)
            if granted > 0:
                node.leases.grant(app, granted)
            else:
                node.leases.leased_out(app, of)
        node.leases.wanted.clear()
        return taken

    for step, which, size in steps:
        now = NOW + next(later)
        match step:
            case "ask":
                used += admitted(nodes[which], now, size)
            case "lease":
                pool += lease(nodes[which])
            case "kill" | "end" if lives[which] < LIVES:
                if step == "end":
                    pool -= sum(nodes[which].leases.give_back(now).values())
                nodes[which], lives[which] = leased_node(per_day), lives[which] + 1
            case "plan":
                per_day = max(1, per_day + size - 20)
                largest = max(largest, per_day)
                for node in nodes:
                    node.apply(
                        config(
                            tiers=[
                                msgspec.structs.replace(t, quota_per_day=per_day)
                                for t in defaults.TIERS
                            ]
                        ),
                        None,
                    )
    for node in nodes:  # until nothing is left
        while more := admitted(node, NOW + next(later), 50) + (taken := lease(node)):
            used, pool = used + more - taken, pool + taken
    assert 0 <= pool <= largest
    assert used <= largest
    if not {"kill", "plan"} & {step for step, _, _ in steps}:
        assert (
            used >= quota.POOL_SHARE * per_day - 1
        )  # the pool at least: what is given back is not lost


def leased_node(per_day: int) -> Engine:
    tiers = [
        msgspec.structs.replace(t, quota_per_day=per_day, rate=1e6, burst=1e6)
        for t in defaults.TIERS
    ]
    return engine(config(tiers=tiers), quota_share=(1 - quota.POOL_SHARE) / 3 / LIVES)


def test_the_lives_of_a_node_share_what_it_owns_and_none_is_left_with_nothing(tmp_path) -> None:
    parts = [process.own_share(tmp_path, nodes=8) for _ in range(200)]
    assert sum(parts) < (1 - quota.POOL_SHARE) / 8
    assert parts[0] > 0.35 * (1 - quota.POOL_SHARE) / 8
    assert parts == sorted(parts, reverse=True)
    assert parts[19] * defaults.TIERS[0].quota_per_day > 1
    assert parts[-1] * defaults.TIERS[-1].quota_per_day > 30
    (tmp_path / "starts").write_text("20200101 9")
    assert process.own_share(tmp_path, nodes=8) == parts[0]  # of another day
    (tmp_path / "starts").write_text("rubbish")
    assert process.own_share(tmp_path, nodes=8) == parts[0]
