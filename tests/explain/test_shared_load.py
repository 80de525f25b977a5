"""Who else loaded a limit: estimated with honest ranges, and never told of fewer than five
others.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.vocabulary import Action, Reason, Stage
from decisions.models import Decision
from explain.comparison import shared_load
from explain.comparison.shared_load import FEWEST, LoadGroup
from tests.decisions.factory import event, id_at, signal_vector, unranked

pytestmark = pytest.mark.django_db
AT = shared_load.find_cell(time.time() - 900.0)[0] + 60.0


def admitted(app: str, tenant: str, *, seconds: float = 0.0, p: float = 0.5, **more):
    at = AT + seconds
    return unranked(app=app, tenant=tenant, at=at, id=id_at(at), inclusion_probability=p, **more)


def refused(reason: Reason, **more):
    base = {"reason": int(reason), "stage": int(Stage.RERANK), "at": AT, "id": id_at(AT)}
    base["signals"] = signal_vector(
        tier=1, service_price=1.1, tenant_usage=30, tenant_fair_share=10
    )
    return event(**(base | more))


def cause(store, document, decision, others) -> shared_load.SharedLoad:
    store([decision, *others])
    found = shared_load.estimate_shared_load(Decision.objects.get(id=decision.id.hex()))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("reason", "action"),
    [
        (Reason.RISK_HIGH, Action.DEFER),
        (Reason.BLOCK_LISTED, Action.BLOCK),
        (Reason.OVERRIDE_REFUSE, Action.SHED),
        (Reason.RISK_LOW, Action.ADMIT),
    ],
)
def test_no_load_is_blamed_where_no_limit_fired_that_requests_use_up(
    document, store, reason, action
) -> None:
    decision = refused(reason, action=int(action))
    store([decision, *(admitted(f"app_o{k}", f"ten_o{k}") for k in range(5))])
    d = Decision.objects.get(id=decision.id.hex())
    assert shared_load.estimate_shared_load(d) is None


def test_an_overloaded_service_is_split_into_app_tenant_and_other_tenants_by_cost(
    document, store
) -> None:
    others = [admitted("app_7q2m4kx9", "ten_tidewell") for _ in range(4)]
    others += [admitted(f"app_t{k}", "ten_tidewell") for k in range(6)]
    others += [
        admitted(f"app_o{k}", f"ten_o{k}", endpoint="/v2/orders") for k in range(5)
    ]  # 3 cost units each
    found = cause(
        store, document, refused(Reason.SERVICE_OVERLOADED, action=int(Action.SHED)), others
    )
    parts = {part.label: part for part in found.parts}
    assert parts["Other tenants"].share == pytest.approx(15 / 25)
    assert parts["Other apps of the tenant"].share == pytest.approx(6 / 25)
    assert parts["This app"].share == pytest.approx(4 / 25)
    assert parts["Other tenants"].participants == 5
    assert all(part.low < part.share < part.high for part in found.parts)
    assert "About 84% of the load on it came from others" in found.sentence
    assert found.kept == 15


def test_what_happened_elsewhere_refused_or_at_another_time_does_not_count(document, store) -> None:
    others = [admitted(f"app_o{k}", f"ten_o{k}") for k in range(5)]
    others += [admitted(f"app_x{k}", f"ten_x{k}", service="search") for k in range(9)]
    others += [admitted(f"app_y{k}", f"ten_y{k}", seconds=300.0) for k in range(9)]
    others += [admitted(f"app_w{k}", f"ten_w{k}", seconds=-61.0) for k in range(9)]
    others += [
        refused(Reason.SERVICE_OVERLOADED, app=f"app_z{k}", tenant=f"ten_z{k}") for k in range(9)
    ]
    found = cause(store, document, refused(Reason.SERVICE_OVERLOADED), others)
    assert found.kept == 5  # and none of the cell before, however near
    assert next(p for p in found.parts if p.label == "Other tenants").participants == 5


def test_the_share_of_a_tenant_is_split_among_its_apps(document, store) -> None:
    others = [admitted(f"app_t{k}", "ten_tidewell") for k in range(5)] + [
        admitted("app_o", "ten_o") for _ in range(50)
    ]
    found = cause(store, document, refused(Reason.TENANT_OVER_SHARE), others)
    assert found.limit == "Its tenant’s share of orders-read"
    assert [part.label for part in found.parts] == ["Other apps of the tenant", "This app"]
    assert found.parts[0].share == 1.0


def test_a_limit_of_the_apps_own_is_nobody_elses_but_its_credentials(document, store) -> None:
    others = [admitted("app_7q2m4kx9", "ten_tidewell", token_digest=f"{k:032d}") for k in range(6)]
    found = cause(store, document, refused(Reason.BURST_EXHAUSTED, stage=int(Stage.TRIAGE)), others)
    assert "the app’s own" in found.sentence
    assert found.parts[0].label == "Other credentials of the app"
    assert found.parts[0].participants == 6


def test_fewer_than_five_others_are_neither_named_nor_counted_nor_to_be_subtracted(
    document, store
) -> None:
    others = [admitted("app_7q2m4kx9", "ten_tidewell") for _ in range(4)]
    others += [admitted(f"app_o{k}", f"ten_o{k}") for k in range(4)]
    found = cause(store, document, refused(Reason.SERVICE_OVERLOADED), others)
    assert found.parts == ()
    assert found.suppressed
    assert found.kept is None
    assert "Fewer than five" in found.sentence


def test_what_the_tenants_own_panel_would_complete_is_not_shown(document, store) -> None:
    """With its tenant's panel, which shows what 6 apps loaded, the app's share here would tell what
    4 other tenants loaded.
    """
    others = [admitted("app_7q2m4kx9", "ten_tidewell") for _ in range(4)]
    others += [admitted(f"app_t{k}", "ten_tidewell") for k in range(6)] + [
        admitted(f"app_o{k}", f"ten_o{k}") for k in range(4)
    ]
    found = cause(store, document, refused(Reason.SERVICE_OVERLOADED), others)
    assert (found.parts, found.kept, found.suppressed) == ((), None, True)


def test_groups_too_small_apart_are_shown_joined_without_their_number_of_decisions(
    document, store
) -> None:
    others = [admitted(f"app_t{k}", "ten_tidewell") for k in range(2)] + [
        admitted(f"app_o{k}", f"ten_o{k}") for k in range(6)
    ]
    found = cause(store, document, refused(Reason.SERVICE_OVERLOADED), others)
    assert [part.label for part in found.parts] == ["All others", "This app"]
    assert found.kept is None


@given(st.floats(0, 4e9), st.floats(-1000, 1000))
def test_two_decisions_look_at_the_same_requests_or_at_none_in_common(at, apart) -> None:
    (a, b), (c, d) = shared_load.find_cell(at), shared_load.find_cell(max(0.0, at + apart))
    assert a <= at < b == a + 240.0
    assert (a, b) == (c, d) or b <= c or d <= a


@given(
    loads=st.lists(
        st.tuples(
            st.floats(0, 480, exclude_max=True), st.sampled_from("abcdefghij"), st.floats(0.5, 50)
        ),
        min_size=1,
    ),
    moments=st.tuples(st.floats(0, 480, exclude_max=True), st.floats(0, 480, exclude_max=True)),
)
def test_what_one_request_added_cannot_be_had_from_two_overlapping_decisions(
    loads, moments
) -> None:
    """Whatever is asked, two answers rest on the same requests, and are equal, or share none that
    could be subtracted.
    """

    def answer(at: float):
        since, until = shared_load.find_cell(at)
        seen = [one for one in loads if since <= one[0] < until]
        own, others = ([one for one in seen if (one[1] == "a") == mine] for mine in (True, False))
        groups = [
            LoadGroup(
                key,
                sum(load for _, _, load in some),
                0.0,
                len(some),
                len({who for _, who, _ in some}),
            )
            for key, some in (("own", own), ("tenants", others))
            if some
        ]
        return {id(one) for one in seen}, shared_load.compute_shares(groups, "This app")

    (one, first), (two, second) = answer(moments[0]), answer(moments[1])
    assert not one & two or (one == two and first == second)


def test_two_decisions_a_minute_apart_are_told_the_same(document, store) -> None:
    others = [admitted(f"app_o{k}", f"ten_o{k}", seconds=float(k)) for k in range(6)] + [
        admitted("app_new", "ten_new", seconds=150.0)
    ]
    one, two = (
        refused(Reason.SERVICE_OVERLOADED, at=AT + s, id=id_at(AT + s)) for s in (0.0, 60.0)
    )
    found = cause(store, document, one, [two, *others])
    assert found == shared_load.estimate_shared_load(Decision.objects.get(id=two.id.hex()))
    assert found.parts


def test_a_cell_is_looked_at_when_it_is_over(document, store) -> None:
    one = refused(Reason.SERVICE_OVERLOADED)
    store([one, *(admitted(f"app_o{k}", f"ten_o{k}") for k in range(6))])
    d, until = Decision.objects.get(id=one.id.hex()), shared_load.find_cell(AT)[1]
    early = shared_load.estimate_shared_load(d, now=until)
    assert (early.parts, early.kept) == ((), 0)
    assert "is not said before" in early.sentence
    assert shared_load.estimate_shared_load(d, now=until + shared_load.LATE_S).parts


def test_without_kept_requests_it_says_so(document, store) -> None:
    found = cause(store, document, refused(Reason.SERVICE_OVERLOADED), [])
    assert found.parts == ()
    assert "cannot be said" in found.sentence


group = st.builds(
    LoadGroup,
    key=st.sampled_from(["own", "apps", "tenants"]),
    load=st.floats(0.1, 1e4),
    variance=st.floats(0.0, 1e6),
    kept=st.integers(1, 1000),
    participants=st.integers(1, 12),
)


@given(st.lists(group, min_size=1, max_size=3, unique_by=lambda g: g.key))
def test_no_group_of_others_under_five_can_be_told_apart(groups) -> None:
    parts, held = shared_load.compute_shares(groups, "This app")
    assert all(part.participants is None or part.participants >= FEWEST for part in parts)
    others = [g for g in groups if g.key != "own"]
    if parts and others:  # what is left after taking away every shown part belongs to nobody
        assert sum(part.share for part in parts) == pytest.approx(1.0)
        assert sum(part.percent for part in parts) == 100
        assert sum(g.participants for g in others) >= FEWEST
    assert held == any(g.participants < FEWEST for g in others)
    assert all(0.0 <= part.low <= part.share <= part.high <= 1.0 for part in parts)
    for part in parts:  # whole percents, whoever reads it
        assert all(value == round(value * 100) / 100 for value in (part.share, part.low, part.high))


def test_the_ranges_hold_about_95_times_in_100() -> None:
    rng = np.random.default_rng(8)
    truth, hits, runs = 300 / 1000, 0, 400
    for _ in range(runs):
        groups = []
        for key, count, p in (("own", 300, 0.2), ("tenants", 700, 0.1)):
            kept = int((rng.random(count) < p).sum())
            groups.append(LoadGroup(key, kept / p, kept * (1 - p) / p**2, kept, 9))
        own = next(
            part
            for part in shared_load.compute_shares(groups, "This app")[0]
            if part.label == "This app"
        )
        hits += own.low <= truth <= own.high
    assert 0.93 <= hits / runs <= 0.99  # rounded outwards, so a little more often


def test_a_group_that_has_all_of_three_kept_decisions_need_not_have_all_of_the_load() -> None:
    sampled = [LoadGroup("own", 150.0, 3 * 0.98 / 0.02**2, 3, 1)]
    (part,) = shared_load.compute_shares(sampled, "This app")[0]
    assert (part.share, part.high) == (1.0, 1.0)
    assert 0.3 <= part.low <= 0.5
    (part,) = shared_load.compute_shares([LoadGroup("own", 3.0, 0.0, 3, 1)], "This app")[0]
    assert (part.low, part.high) == (1.0, 1.0)  # every decision was kept
