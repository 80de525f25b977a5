"""What the engine remembers of addresses, and of an app's last ten minutes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts.features import INDEX as F
from decider.contracts.requests import CheckRequest, Outcome
from decider.contracts.store import Profile
from decider.engine.engine import Engine
from decider.engine.memory import source_table
from decider.engine.memory.source_table import V_APPS, V_FAILED_SHARE, V_NEW
from tests.decider.test_engine import NOW, engine

ADDRESS = "198.51.100.7"


def sent(made: Engine, at: float, app: str = "app_1", path: str = "/v2/orders/1", **more) -> None:
    made.decide([CheckRequest(app, more.pop("method", "GET"), path, **more)], at)


def seen(made: Engine, name: str) -> float:
    return float(made.features[0][F[name]])


def answered(made: Engine, at: float, status: int, count: int = 1, app: str = "app_1") -> None:
    made.learn([Outcome(app, "orders-read", at, status, 5.0)] * count, at)


def test_an_app_id_taken_anew_is_counted_at_its_address() -> None:
    made = engine()
    for k in range(8):
        sent(made, NOW + k, app=f"name-{k}", source=ADDRESS)
    assert seen(made, "new_apps_of_source_600s") == 8
    assert seen(made, "apps_of_source_600s") == pytest.approx(8, abs=2)
    sent(made, NOW + 9, app="name-0", source="203.0.113.1")
    assert seen(made, "new_apps_of_source_600s") == 0
    assert seen(made, "apps_of_source_600s") == pytest.approx(1, abs=0.1)


def test_an_app_with_a_profile_is_not_new() -> None:
    made = engine()
    made.know([Profile("app_1", "One", "t", 1, NOW - 9e6, True)], NOW)
    sent(made, NOW + 1, source=ADDRESS)
    assert seen(made, "new_apps_of_source_600s") == 0


def test_failures_stay_with_the_address_when_the_app_id_changes() -> None:
    made = engine()
    sent(made, NOW, app="first", source=ADDRESS)
    answered(made, NOW + 1, 404, 9, app="first")
    answered(made, NOW + 1, 200, 1, app="first")
    sent(made, NOW + 2, app="second", source=ADDRESS)
    assert seen(made, "source_error_share_600s") == pytest.approx(0.9)
    assert seen(made, "client_error_share_600s") == 0.0
    sent(made, NOW + 1_300, app="second", source=ADDRESS)
    assert seen(made, "source_error_share_600s") == 0.0


def test_without_an_address_nothing_is_known_of_it() -> None:
    made = engine()
    sent(made, NOW)
    answered(made, NOW, 404)
    sent(made, NOW + 1)
    names = ("apps_of_source_600s", "new_apps_of_source_600s", "source_error_share_600s")
    assert [seen(made, name) for name in names] == [0.0, 0.0, 0.0]


def test_refusing_a_client_does_not_clear_its_record() -> None:
    """It gets no answers then: the minute forgets its failures, ten minutes do not."""
    made = engine()
    sent(made, NOW, method="POST", path="/v2/login")
    answered(made, NOW, 401, 20)
    sent(made, NOW + 150, method="POST", path="/v2/login")
    assert seen(made, "auth_error_share_60s") == seen(made, "auth_errors_60s") == 0.0
    assert seen(made, "auth_error_share_600s") == seen(made, "client_error_share_600s") == 1.0
    assert 0 < seen(made, "client_errors_600s") <= 20
    sent(made, NOW + 1_350, method="POST", path="/v2/login")
    assert seen(made, "auth_error_share_600s") == seen(made, "client_errors_600s") == 0.0


def test_sign_ins_and_the_paths_they_go_to_are_counted() -> None:
    made = engine()
    for k in range(30):
        sent(made, NOW + k / 10, method="POST", path="/v2/auth/token")
    assert seen(made, "sign_ins_60s") == 30
    assert seen(made, "sign_in_share_600s") == seen(made, "write_share_600s") == 1.0
    assert seen(made, "busiest_path_share_600s") == 1.0
    assert seen(made, "path_entropy_600s") == 0.0
    for k in range(300):
        sent(made, NOW + 3, path=f"/v2/orders/{k}")
    assert seen(made, "path_entropy_600s") > 3.5
    assert seen(made, "sign_in_share_600s") == pytest.approx(30 / 330)


HISTORY = st.lists(
    st.tuples(
        st.floats(0.0, 700.0),
        st.integers(1, 6),  # address
        st.integers(1, 40),  # app
        st.booleans(),  # new
        st.lists(st.booleans(), max_size=3),  # answers, failed or not
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(HISTORY, st.floats(0.0, 1_500.0))
def test_an_address_is_counted_as_two_windows_of_ten_minutes_say(history, later) -> None:
    table, view, now = source_table.allocate(64), np.zeros(3), NOW
    told = defaultdict(list)
    for gap, address, app, new, answers in history:
        now += gap
        key = np.uint64(address * 0x9E3779B97F4A7C15 % 2**64)
        source_table.note_request(table, key, np.uint64(app << 40), new, now)
        told[address].append((now, app, new, answers))
        for failed in answers:
            source_table.note_answer(table, key, failed, now)
    at = now + later
    number, keep = (at - source_table.EPOCH) // 600, 1 - (at - source_table.EPOCH) / 600 % 1
    for address, events in told.items():
        key = np.uint64(address * 0x9E3779B97F4A7C15 % 2**64)
        source_table.look(table, key, at, view)
        age = [int(number - (t - source_table.EPOCH) // 600) for t, *_ in events]
        weight = [(1.0, keep, 0.0)[min(a, 2)] for a in age]
        apps = {e[1] for e, a in zip(events, age, strict=True) if a <= 1}
        new = sum(w for e, w in zip(events, weight, strict=True) if e[2])
        total = sum(w * len(e[3]) for e, w in zip(events, weight, strict=True))
        failed = sum(w * sum(e[3]) for e, w in zip(events, weight, strict=True))
        assert view[V_NEW] == pytest.approx(new, abs=1e-3)
        assert view[V_APPS] == pytest.approx(len(apps), rel=0.3)
        if total > 1e-3:
            assert view[V_FAILED_SHARE] == pytest.approx(failed / total, abs=1e-3)
        before = [a.copy() for a in table]
        source_table.look(table, key, at, view)
        assert all((a == b).all() for a, b in zip(before, table, strict=True))


def test_addresses_without_end_use_bounded_memory_and_the_recent_ones_stay() -> None:
    table, view = source_table.allocate(1_024), np.zeros(3)
    rng = np.random.default_rng(5)
    for key in rng.integers(1, 2**63, 20_000):
        source_table.note_request(table, np.uint64(key), np.uint64(1 << 40), True, NOW)
    mine = np.uint64(rng.integers(1, 2**63))
    source_table.note_request(table, mine, np.uint64(7 << 40), True, NOW + 900)
    source_table.look(table, mine, NOW + 901, view)
    assert len(table.key) == 1_024
    assert view[V_NEW] == 1.0
