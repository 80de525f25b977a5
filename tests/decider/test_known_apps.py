"""A paying app is never a stranger: its tier and its tenant's rules hold before its profile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts import defaults
from decider.contracts.config import ListEntry, Override, UnknownApps
from decider.contracts.requests import CheckRequest
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action, Reason, Tier
from decider.engine.engine import Engine
from decider.engine.known_apps import table as known_apps
from decider.engine.known_apps.table import KnownApps
from decider.engine.memory import app_state
from decider.engine.shared.state import SHARED_ROWS
from decider.engine.text_hash import TextHash
from tests.decider.test_engine import NOW, ask, config, engine, of_tier

HASH = TextHash(b"k" * 32)
FREE, TOP = defaults.TIERS[0], defaults.TIERS[int(Tier.ENTERPRISE)]
SEED = 25


def table(**apps: tuple[str, int]) -> KnownApps:
    """Of apps by id, each with its tenant and tier."""
    return known_apps.build(
        HASH.many(list(apps)),
        HASH.many([tenant for tenant, _ in apps.values()]),
        np.array([tier for _, tier in apps.values()]),
    )


def holding(*, ml: bool = False, document=None, capacity: int = 4096, **apps) -> Engine:
    made = engine(document, ml=ml, capacity=capacity)
    made.hold_known(table(**(apps or {"big": ("acme", int(Tier.ENTERPRISE))})))
    return made


def flood(made: Engine, at: float) -> None:
    """Send made-up apps, many times as many as there are slots."""
    for k in range(40):
        made.decide([CheckRequest(f"s{k}-{i}", "GET", "/") for i in range(200)], at + k)


@pytest.mark.parametrize("ml", [False, True])
def test_the_first_request_is_told_the_whole_bucket_of_its_tier(ml: bool) -> None:
    first = ask(holding(ml=ml), NOW, "big")[0]
    assert (first.action, first.limit, first.remaining) == (Action.ADMIT, TOP.burst, TOP.burst - 1)


def test_without_the_table_it_would_be_a_stranger() -> None:
    first = ask(engine(), NOW, "big")[0]
    assert (first.limit, first.remaining) == (FREE.burst, FREE.burst - 1)


def test_with_ml_off_a_burst_of_its_tier_is_admitted_at_once() -> None:
    made = holding()
    assert sum(d.action == Action.ADMIT for d in ask(made, NOW, "big", 2_000)) == 2_000


def test_after_an_eviction_it_still_has_its_tier() -> None:
    made = holding(capacity=1_000)
    ask(made, NOW, "big")
    # later than a known app is kept
    flood(made, NOW + 2 * app_state.KEEP_KNOWN_S)
    assert made.slot_of("big") < 0
    again = ask(made, NOW + 3 * app_state.KEEP_KNOWN_S, "big")[0]
    assert (again.limit, again.remaining) == (TOP.burst, TOP.burst - 1)


def test_a_flood_of_ids_does_not_push_it_out() -> None:
    made = holding(capacity=1_000)
    ask(made, NOW, "big")
    flood(made, NOW + 1)
    assert made.slot_of("big") >= 0


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize(
    ("verdict", "reason"),
    [("block", Reason.BLOCK_LISTED), ("compliance", Reason.COMPLIANCE)],
)
def test_a_rule_about_a_tenant_holds_at_the_first_request(tier, verdict, reason) -> None:
    rules = [ListEntry(verdict=verdict, kind="tenant", subject="acme")]
    made = holding(document=config(lists=rules), one=("acme", int(tier)), two=("other", int(tier)))
    first, other = ask(made, NOW, "one")[0], ask(made, NOW, "two")[0]
    assert (first.action, first.reason) == (Action.BLOCK, reason)
    assert other.action == Action.ADMIT


def test_an_override_of_a_tenant_stretches_the_first_bucket() -> None:
    stretch = Override(id="o1", kind="tenant", subject="acme", until=NOW + 60, multiplier=2.0)
    first = ask(holding(document=config(overrides=[stretch])), NOW, "big")[0]
    assert first.limit == 2 * TOP.burst


@pytest.mark.parametrize("treatment", ["share", "refuse"])
def test_it_is_no_unknown_app(treatment: str) -> None:
    unknown = UnknownApps(treatment=treatment, rate=1.0, burst=1.0)
    made = holding(document=config(unknown_apps=unknown))
    sent = ask(made, NOW, "big", 500, source="198.51.100.7")
    assert all(d.action == Action.ADMIT for d in sent)
    assert made.sources.counts[:, 0].sum() == 0.0


def test_its_profile_is_still_wanted_once() -> None:
    made = holding()
    ask(made, NOW, "big", 3)
    assert list(made.wanted_profiles) == ["big"]
    made.wanted_profiles.clear()
    ask(made, NOW + 1, "big")
    assert not made.wanted_profiles
    made.know([Profile("big", "Big", "acme", int(Tier.ENTERPRISE), NOW - 9e6, True)], NOW + 1)
    assert made.state.profile[made.slot_of("big"), app_state.P_KNOWN] == app_state.KNOWN
    # two in this second, and the bucket is as the table left it
    assert ask(made, NOW + 1, "big")[0].remaining == TOP.burst - 2


def test_it_stands_in_the_fair_share_of_its_tier() -> None:
    made = holding()
    ask(made, NOW, "big")
    row = int(made.state.tenant[made.slot_of("big")])
    assert row == SHARED_ROWS + Tier.ENTERPRISE
    rows = slice(SHARED_ROWS, SHARED_ROWS + 4)
    assert made.shared.tier[rows].tolist() == [0, 1, 2, 3]
    assert made.shared.weight[rows].tolist() == [t.weight for t in defaults.TIERS]


# ---- a table that comes or changes later


def test_an_app_that_came_first_gets_its_tier_and_what_it_used_stays_used() -> None:
    made = engine()
    ask(made, NOW, "big", 20)
    made.hold_known(table(big=("acme", int(Tier.ENTERPRISE))))
    after = ask(made, NOW, "big")[0]
    assert (after.limit, after.remaining) == (TOP.burst, TOP.burst - 21)


def test_holding_the_same_table_again_refills_nothing() -> None:
    made = holding()
    ask(made, NOW, "big", 100)
    for _ in range(5):
        made.hold_known(table(big=("acme", int(Tier.ENTERPRISE))))
    assert ask(made, NOW, "big")[0].remaining == TOP.burst - 101


def test_an_app_that_is_gone_from_the_table_is_a_stranger_again() -> None:
    made = holding()
    ask(made, NOW, "big")
    made.hold_known(known_apps.empty())
    assert ask(made, NOW, "big")[0].limit == FREE.burst
    assert made.state.tenant_key[made.slot_of("big")] == 0


def test_a_profile_outlives_the_table_and_is_asked_for_anew_where_they_differ() -> None:
    made = engine()
    of_tier(made, Tier.PREMIUM, "big", "acme")
    made.hold_known(table(big=("acme", int(Tier.ENTERPRISE))))
    assert ask(made, NOW, "big")[0].limit == defaults.TIERS[int(Tier.PREMIUM)].burst
    assert list(made.wanted_profiles) == ["big"]
    of_tier(made, Tier.ENTERPRISE, "big", "acme")
    made.hold_known(known_apps.empty())
    assert ask(made, NOW, "big")[0].limit == TOP.burst


def test_changes_reach_tracked_apps_and_those_to_come() -> None:
    made = engine()
    ask(made, NOW, "one")
    keys, tenants = HASH.many(["one", "two"]), HASH.many(["acme", "acme"])
    changed = known_apps.change(made.known.table, keys, tenants, np.array([3, 3]))
    made.known.change(changed, keys.view(np.uint64))
    assert [ask(made, NOW, app)[0].limit for app in ("one", "two")] == [TOP.burst] * 2
    gone = known_apps.change(made.known.table, keys, tenants, np.array([known_apps.REMOVED, 1]))
    made.known.change(gone, keys.view(np.uint64))
    limits = [ask(made, NOW, app)[0].limit for app in ("one", "two")]
    assert limits == [FREE.burst, defaults.TIERS[1].burst]


# ---- the table itself


def test_a_million_entries_take_less_than_32_mb_and_no_stranger_is_among_them() -> None:
    rng = np.random.default_rng(SEED)
    million = 1_000_000
    keys = HASH.many([f"app_{k}" for k in range(million)])
    held = known_apps.build(keys, keys, rng.integers(0, 4, million))
    grown = known_apps.change(
        held,
        rng.integers(0, 2**63, known_apps.MERGE_FROM),
        np.zeros(known_apps.MERGE_FROM),
        np.ones(known_apps.MERGE_FROM),
    )
    assert sum(array.nbytes for array in grown) < 32e6
    strangers = HASH.many([f"made-up-{k}" for k in range(million)]).view(np.uint64)
    assert not any(known_apps.look_up(grown, key)[0] >= 0 for key in strangers)
    assert all(known_apps.look_up(grown, k)[0] >= 0 for k in keys.view(np.uint64)[:1000])


step = st.dictionaries(
    st.integers(0, 40).map(lambda k: k * 0x9E3779B97F4A7C15 % 2**64),
    st.tuples(st.integers(-5, 5), st.sampled_from([0, 1, 2, 3, known_apps.REMOVED])),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(step, st.booleans()), max_size=8))
def test_it_holds_what_a_plain_dict_would(steps) -> None:
    held, plain = known_apps.empty(), {}
    for changes, merged in steps:
        held = known_apps.change(
            held,
            np.array(list(changes), np.uint64),
            np.array([tenant for tenant, _ in changes.values()], np.int64),
            np.array([tier for _, tier in changes.values()], np.uint8),
        )
        plain.update(changes)
        plain = {key: row for key, row in plain.items() if row[1] != known_apps.REMOVED}
        if merged:
            held = known_apps.merge(held)
        assert known_apps.count(held) == len(plain)
        for k in range(41):
            key = k * 0x9E3779B97F4A7C15 % 2**64
            tenant, tier = plain.get(key, (0, -1))
            assert known_apps.look_up(held, np.uint64(key)) == (tier, tenant)


def test_what_is_no_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    key, tenant, tier = np.array([1, 2], np.uint64), np.zeros(2, np.int64), np.zeros(2, np.uint8)
    for bad in ((key[::-1], tenant, tier), (key * 0, tenant, tier), (key, tenant, tier + 4)):
        with pytest.raises(known_apps.KnownAppsError):
            known_apps.checked(*bad)
    with pytest.raises(known_apps.KnownAppsError):
        known_apps.change(known_apps.empty(), key, tenant, tier + 4)
    monkeypatch.setattr(known_apps, "MOST_ENTRIES", 1)
    with pytest.raises(known_apps.KnownAppsError):
        known_apps.checked(key, tenant, tier)
