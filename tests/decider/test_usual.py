"""What is usual: answers of endpoints, paces of tiers, tenants and of an app itself, steps between
endpoints, and a quota's use over the day.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from decider.contracts.features import INDEX as F
from decider.contracts.requests import CheckRequest, Outcome
from decider.contracts.store import Profile
from decider.engine.engine import Engine
from decider.engine.memory import app_state, usual
from decider.engine.memory.windows import EPOCH
from tests.decider.test_engine import NOW, engine

SIGN_IN = "POST /v2/auth/session"
DAY_S = 86_400.0


def sent(made: Engine, at: float, app: str = "app_1", path: str = "/v2/orders/1") -> None:
    made.decide([CheckRequest(app, "GET", path)], at)


def answered(
    made: Engine, at: float, app: str, status: int, size: int, count: int = 1, where: str = SIGN_IN
) -> None:
    made.know([Profile(app)], at)
    told = Outcome(app, "orders-read", at, status, 5.0, bytes_out=size, endpoint=where)
    made.learn([told] * count, at)


def seen(made: Engine, name: str) -> float:
    return float(made.features[0][F[name]])


def of(made: Engine, at: float, app: str, name: str) -> float:
    sent(made, at, app)
    return seen(made, name)


def portal(apps: int = 40) -> Engine:
    """An engine that saw each of `apps` sign in ten times: redirected to its start page."""
    made = engine()
    for k in range(apps):
        answered(made, NOW, f"usual-{k}", 303, 0, 10)
    return made


@pytest.mark.parametrize(("status", "size"), [(200, 4_200), (401, 90), (302, 0)])
def test_a_failed_sign_in_is_told_by_what_others_get_whatever_its_status(status, size) -> None:
    made = portal()
    answered(made, NOW + 1, "stuffer", status, size, 30)
    unlike = status != 302
    found = of(made, NOW + 2, "stuffer", "unusual_answer_share_600s")
    assert found > 0.8 if unlike else found == 0.0
    assert of(made, NOW + 2, "stuffer", "unusual_answers_600s") == pytest.approx(
        30 * found, rel=0.01
    )
    assert of(made, NOW + 2, "usual-1", "unusual_answer_share_600s") == 0.0


def test_a_page_of_another_size_is_another_answer() -> None:
    made = engine()
    for k in range(40):
        answered(made, NOW, f"usual-{k}", 200, 30_000, 5)
    answered(made, NOW + 1, "stuffer", 200, 1_800, 20)
    assert of(made, NOW + 2, "stuffer", "unusual_answer_share_600s") > 0.8


def test_an_endpoint_that_answers_in_many_sizes_makes_nobody_unusual() -> None:
    made, rng = engine(), np.random.default_rng(8)
    for k in range(200):
        for size in rng.lognormal(9, 2, 10):
            answered(made, NOW, f"usual-{k}", 200, int(size))
    found = [of(made, NOW + 1, f"usual-{k}", "unusual_answer_share_600s") for k in range(50, 200)]
    assert np.mean(found) < usual.RARE / 2
    answered(made, NOW + 2, "lost", 404, 90, 20)
    assert of(made, NOW + 3, "lost", "unusual_answer_share_600s") > 0.9


def test_a_loud_client_does_not_make_its_own_answers_the_usual_ones() -> None:
    made = portal()
    answered(made, NOW + 1, "stuffer", 200, 4_200, 20_000)
    assert of(made, NOW + 2, "stuffer", "unusual_answer_share_600s") > 0.5
    answered(made, NOW + 3, "late", 303, 0, 5)
    assert of(made, NOW + 4, "late", "unusual_answer_share_600s") == 0.0


def test_nothing_is_unusual_where_little_is_known_or_the_service_failed() -> None:
    made = portal(apps=4)
    answered(made, NOW + 1, "first", 200, 4_200, 30)
    assert of(made, NOW + 2, "first", "unusual_answer_share_600s") == 0.0
    made = portal()
    answered(made, NOW + 1, "unlucky", 503, 90, 30)
    answered(made, NOW + 1, "unlucky", 200, 4_200, 30, where="")
    assert of(made, NOW + 2, "unlucky", "unusual_answers_600s") == 0.0


def test_what_is_unusual_is_forgotten_after_two_windows() -> None:
    made = portal()
    answered(made, NOW + 1, "stuffer", 200, 4_200, 30)
    assert of(made, NOW + 1_300, "stuffer", "unusual_answers_600s") == 0.0
    assert seen(made, "unusual_answer_share_600s") == 0.0


def test_what_is_usual_follows_a_release() -> None:
    made = portal()
    for k in range(400):
        answered(made, NOW + 10 + k, f"after-{k}", 200, 512, 10)
    answered(made, NOW + 500, "late", 200, 512, 5)
    assert of(made, NOW + 501, "late", "unusual_answer_share_600s") == 0.0


def test_made_up_endpoints_do_not_push_out_a_known_one() -> None:
    table = usual.allocate(8)
    known = np.uint64(0x5BD1E9955BD1E995)
    for k in range(100):
        usual.note_answer(table, known, 303, 0.0, k % 3)
    rng = np.random.default_rng(3)
    for hashed in rng.integers(1, 2**63, 50_000):
        usual.note_answer(table, np.uint64(hashed), 404, 90.0, 0.0)
    assert usual.note_answer(table, known, 404, 90.0, 0.0) == 1.0
    assert len(table.key) == usual.ENDPOINTS


def test_every_answer_has_a_kind_of_its_own_group() -> None:
    kinds = [usual.kind_of(status, 0.0) for status in (304, 303, 401, 402, 404, 429, 418, 100)]
    assert kinds == list(range(usual.UNCHANGED, usual.KINDS))
    assert usual.kind_of(403, 0.0) == usual.DENIED
    assert usual.kind_of(410, 0.0) == usual.MISSING
    sizes = [usual.kind_of(200, float(2**k)) for k in range(54)]
    assert sizes == sorted(sizes)
    assert set(sizes) == set(range(usual.SIZES))


def test_paces_are_compared_with_those_of_the_tier_and_of_the_tenant() -> None:
    made = engine()
    tenants = {"quiet": 3, "busy": 48}
    known = [
        Profile(f"{tenant}-{k}", "One", tenant, 1, NOW - 9e6)
        for tenant in tenants
        for k in range(20)
    ]
    made.know([*known, Profile("loud", "One", "quiet", 1, NOW - 9e6)], NOW)
    for second in range(900):
        for tenant, a_minute in tenants.items():
            for k in range(20):
                if (second + k) % 60 < a_minute:
                    sent(made, NOW + second, f"{tenant}-{k}")
    for k in range(600):
        sent(made, NOW + 900 + k / 1_000, "loud")
    assert seen(made, "pace_over_tenant") == pytest.approx(200, rel=0.3)
    assert seen(made, "pace_over_tier") == pytest.approx(50, rel=0.3)
    assert of(made, NOW + 901, "busy-3", "pace_over_tenant") == pytest.approx(1.0, abs=0.7)


def test_paces_are_as_usual_while_nobody_is_known() -> None:
    made = engine()
    sent(made, NOW)
    names = ("tier", "tenant", "own_hours", "own_days")
    assert [seen(made, f"pace_over_{name}") for name in names] == [1.0] * 4


def test_an_app_is_compared_with_its_own_past_traffic_and_not_with_its_silence() -> None:
    made, at = engine(), NOW - (NOW - EPOCH) % 60 + 60
    for minute in range(300):
        if minute == 150:
            at += DAY_S  # quiet for a day
        for k in range(6):
            sent(made, at + k * 10)
        if minute == 28:
            assert seen(made, "pace_over_own_hours") == 1.0
        at += 60.0
    assert seen(made, "pace_over_own_hours") == pytest.approx(1.0, abs=0.2)
    assert seen(made, "pace_over_own_days") == pytest.approx(1.0, abs=0.2)
    for k in range(120):
        sent(made, at + k / 2)
    assert seen(made, "pace_over_own_hours") == pytest.approx(20, rel=0.15)
    assert seen(made, "pace_over_own_days") == pytest.approx(20, rel=0.15)


def test_one_minute_does_not_set_the_pace_of_hours() -> None:
    made, at = engine(), NOW - (NOW - EPOCH) % 60 + 60
    for minute in range(40):
        for k in range(60 if minute == 39 else 3):
            sent(made, at + k)
        at += 60.0
    sent(made, at + 60)
    assert made.state.counts[made.slot_of("app_1"), app_state.PACE_HOURS] == pytest.approx(
        (39 * 3 + 60) / 40 / 60, rel=0.01
    )


def test_steps_from_endpoint_to_endpoint_are_counted() -> None:
    made = engine()
    for k in range(30):
        sent(made, NOW + k)
    assert seen(made, "busiest_step_share_600s") == 1.0
    for k in range(300):
        sent(made, NOW + 40 + k, path="/v2/search" if k % 2 else "/v2/ledger/entries")
    assert seen(made, "busiest_step_share_600s") == pytest.approx(0.5, abs=0.05)
    sent(made, NOW + 3_000)
    assert seen(made, "busiest_step_share_600s") == 1.0  # its own step from the last endpoint
    made.features[0][:] = 0.0
    sent(made, NOW, app="new")
    assert seen(made, "busiest_step_share_600s") == 0.0


@pytest.mark.parametrize(("hour", "expected"), [(0.1, 24.0), (6.0, 4.0), (12.0, 2.0), (24.0, 1.0)])
def test_the_quotas_use_is_compared_with_the_day(hour: float, expected: float) -> None:
    made, midnight = engine(), NOW // DAY_S * DAY_S
    at = midnight + hour * 3_600.0 - (1.0 if hour == 24.0 else 0.0)
    sent(made, at)
    slot = made.slot_of("app_1")
    made.state.clock[slot, app_state.QUOTA_USED] = 25_000  # of a free app's 50,000
    sent(made, at)
    assert seen(made, "quota_used") == pytest.approx(0.5, abs=0.001)
    assert seen(made, "quota_pace") == pytest.approx(0.5 * expected, rel=0.01)


def test_a_decider_that_just_started_takes_nobody_with_a_past_for_new() -> None:
    made = engine()
    made.know([Profile("old", "One", "t", 1, NOW - 400 * DAY_S)], NOW)
    assert of(made, NOW + 1, "old", "seconds_since_first") == pytest.approx(400 * DAY_S, rel=0.001)
    assert of(made, NOW + 1, "stranger", "seconds_since_first") == 0.0
    assert of(made, NOW + 8, "stranger", "seconds_since_first") == pytest.approx(7.0)


def test_an_outcome_of_before_endpoints_is_read_and_an_older_decider_reads_ours() -> None:
    class Before(msgspec.Struct, array_like=True):
        app: str
        service: str
        at: float
        status: int
        latency_ms: float
        request_id: str = ""
        decision: str = ""
        bytes_out: int = 0

    now = Outcome("a", "s", NOW, 200, 5.0, bytes_out=7, endpoint=SIGN_IN)
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(now), type=Before)
    assert (read.app, read.bytes_out) == ("a", 7)
    older = msgspec.msgpack.encode(Before("a", "s", NOW, 200, 5.0, bytes_out=7))
    assert msgspec.msgpack.decode(older, type=Outcome).endpoint == ""
