"""Made-up app ids buy nothing: not a plan each, not another app's slot, not another's tenant."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts import defaults
from decider.contracts.config import ListEntry, UnknownApps
from decider.contracts.requests import CheckRequest
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action, Reason, Stage, Tier
from decider.engine.engine import Engine
from decider.engine.shared import tenants
from tests.decider.test_engine import NOW, config, engine

PLAN = defaults.TIERS[0]


def sharing(**more: float) -> Engine:
    apps = UnknownApps(treatment="share", **more)
    return engine(msgspec.structs.replace(config(), unknown_apps=apps), capacity=20_000)


def admitted(made: Engine, requests: list[CheckRequest], at: float = NOW) -> int:
    return sum(d.action == Action.ADMIT for d in made.decide(requests, at))


def strangers(count: int, first: int = 0, source: str = "198.51.100.7") -> list[CheckRequest]:
    return [
        CheckRequest(f"made-up-{k}", "GET", "/v2/orders/1", source=source)
        for k in range(first, first + count)
    ]


def test_by_default_each_has_the_plan_of_the_unknown_tier() -> None:
    assert admitted(engine(capacity=20_000), strangers(1_000)) == 1_000


def test_those_of_one_address_share_one_plan() -> None:
    made = sharing()
    assert admitted(made, strangers(1_000)) == PLAN.burst
    assert admitted(made, strangers(1_000, 1_000), NOW + 4.0) == 4 * PLAN.rate
    last = made.decide(strangers(1, 3_000), NOW + 4.0)[0]
    assert (last.action, last.stage, last.reason) == (
        Action.DEFER,
        Stage.GUARD,
        Reason.UNKNOWN_APP,
    )
    assert admitted(made, strangers(1, 4_000), NOW + 4.0 + last.retry_after) == 1


def test_all_together_share_one_bucket_whatever_their_addresses() -> None:
    made = sharing(rate=10.0, burst=200.0)
    many = [strangers(1, k, f"198.51.{k // 256}.{k % 256}")[0] for k in range(2_000)]
    assert admitted(made, many) == 200
    assert admitted(made, many, NOW + 3.0) == 30


def test_without_an_address_they_share_one_plan_too() -> None:
    assert admitted(sharing(), strangers(1_000, source="")) == PLAN.burst


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 5.0), st.integers(1, 60), st.integers(0, 3)),
        min_size=1,
        max_size=25,
    )
)
def test_no_mix_of_ids_and_addresses_gets_more_than_the_bucket_of_all(steps) -> None:
    made, now, total = sharing(rate=7.0, burst=80.0), NOW, 0
    for n, (gap, count, address) in enumerate(steps):
        now += gap
        total += admitted(made, strangers(count, 100 * n, f"203.0.113.{address}"), now)
    assert total <= 80.0 + 7.0 * (now - NOW) + 1e-6


def test_a_known_app_is_not_held_up_by_strangers_and_spends_nothing_of_theirs() -> None:
    made = sharing(rate=1.0, burst=10.0)
    made.know([Profile("app_1", "One", "t", int(Tier.STANDARD), NOW - 9e6, True)], NOW)
    own = [CheckRequest("app_1", "GET", "/v2/orders/1", source="198.51.100.7")] * 100
    assert admitted(made, own) == 100
    assert admitted(made, strangers(100)) == 10
    assert admitted(made, own) == 100


def test_they_can_be_refused_altogether_but_for_the_allow_list() -> None:
    apps = UnknownApps(treatment="refuse")
    listed = [ListEntry(verdict="allow", kind="app", subject="made-up-7")]
    made = engine(msgspec.structs.replace(config(), unknown_apps=apps, lists=listed))
    answers = made.decide(strangers(10), NOW)
    assert [a.action == Action.ADMIT for a in answers] == [k == 7 for k in range(10)]
    assert all(a.reason == Reason.UNKNOWN_APP and a.retry_after >= 30.0 for a in answers[:7])
    made.know([Profile("made-up-1", "One", "t", 0, NOW - 9e6, False)], NOW)
    assert admitted(made, strangers(1, 1), NOW + 1) == 1


def test_with_ml_the_answers_are_the_same() -> None:
    apps = UnknownApps(treatment="share")
    plain, ranked = (
        engine(msgspec.structs.replace(config(), unknown_apps=apps), ml=ml, capacity=5_000)
        for ml in (False, True)
    )
    assert admitted(ranked, strangers(500)) <= admitted(plain, strangers(500)) == PLAN.burst


def test_a_flood_of_ids_pushes_out_no_known_and_no_refused_app() -> None:
    made = engine(capacity=4_000)
    made.know([Profile(f"known-{k}", "K", "t", 1, NOW - 9e6, True) for k in range(500)], NOW)
    spender = [CheckRequest("spender", "GET", "/v2/orders/1")] * 120
    assert admitted(made, spender, NOW + 1) == PLAN.burst
    for k in range(30):
        made.decide(strangers(1_000, 1_000 * k), NOW + 2 + k)
    assert all(made.slot_of(f"known-{k}") >= 0 for k in range(500))
    # not the full burst that a forgotten app would have
    assert admitted(made, spender, NOW + 33) <= 32 * PLAN.rate < 4 * PLAN.burst


def test_where_all_are_worth_keeping_the_one_seen_longest_ago_gives_way() -> None:
    made = engine(capacity=16)
    for k in range(40):
        made.know([Profile(f"known-{k}", "K", "t", 1, NOW - 9e6, True)], NOW + k)
    assert made.apps == 16
    assert made.slot_of("known-39") >= 0
    assert made.slot_of("known-0") < 0


def test_past_the_last_row_nobody_gets_another_tenants_name_or_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tenants, "MAX_TENANTS", 12)
    listed = [ListEntry(verdict="block", kind="tenant", subject="tenant-3")]
    listed.append(ListEntry(verdict="block", kind="tenant", subject="tenant-90"))
    made = engine(msgspec.structs.replace(config(), lists=listed))
    made.know(
        [Profile(f"app-{k}", "A", f"tenant-{k}", k % 4, NOW - 9e6, True) for k in range(100)], NOW
    )
    names = [made.tenant_in(made.slot_of(f"app-{k}")) for k in range(100)]
    assert names == [f"tenant-{k}" for k in range(100)]
    answers = made.decide([CheckRequest(f"app-{k}", "GET", "/") for k in range(100)], NOW)
    assert [k for k, a in enumerate(answers) if a.action == Action.BLOCK] == [3, 90]
    # those that share a row share one of their own tier
    rows = made.state.tenant[[made.slot_of(f"app-{k}") for k in range(100)]]
    assert (made.shared.tier[rows] == np.arange(100) % 4).all()
    assert rows.max() < 12


def test_the_names_of_tenants_are_bounded_by_the_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "MAX_TENANTS", 64)
    made = engine(capacity=64)
    for k in range(400):
        made.know([Profile(f"app-{k}", "A", f"tenant-{k}", 0, NOW - 9e6, True)], NOW + k)
    assert len(made.tenants) <= 2 * 64 + 1
    assert made.tenant_in(made.slot_of("app-399")) == "tenant-399"
