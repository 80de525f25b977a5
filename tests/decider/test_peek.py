"""Looking into a decider's buckets changes nothing; filling one happens once, and only when the
console says so.
"""

from __future__ import annotations

import math
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from decider import policy
from decider.contracts import config as configs
from decider.contracts import defaults
from decider.contracts.config import Override
from decider.contracts.vocabulary import Action, Tier
from decider.engine import lists, quota
from decider.engine.buffers import Batch
from decider.engine.engine import Engine
from decider.engine.memory import app_state, error_budget
from decider.engine.memory.windows import EPOCH
from decider.engine.text_hash import TextHash
from decider.node import commands
from decider.whatif.plan import override_of, plan_of
from tests.decider.test_engine import NOW, ask, config, engine, of_tier

KEY = Ed25519PrivateKey.generate()
KEYS = {configs.key_id(KEY.public_key()): KEY.public_key()}
LONG_AGO = NOW - 3_600


def command(
    verb: commands.Verb = "peek",
    app: str = "app_1",
    nonce: str = "0" * 32,
    at: float = NOW,
    **more: object,
) -> bytes:
    said = commands.Command(verb, app, nonce, at, at + commands.LIFE_S)
    return commands.sign(msgspec.structs.replace(said, **more), KEY)


def desk(made: Engine, started_at: float = LONG_AGO) -> commands.Desk:
    return commands.Desk(made, KEYS, started_at)


def everything(made: Engine) -> list[bytes]:
    arrays: list = [
        *made.state,
        *made.shared,
        *made.sample,
        *(a for a in made.batch if isinstance(made.batch, Batch)),
    ]
    return [a.tobytes() for a in arrays]


@settings(max_examples=25)
@given(
    gaps=st.lists(st.floats(0, 4_000), min_size=1, max_size=8),
    counts=st.lists(st.integers(1, 500), min_size=8, max_size=8),
    wait=st.floats(0, 200_000),
    tier=st.sampled_from(Tier),
)
def test_a_look_changes_no_bit_and_sees_what_the_next_request_finds(
    gaps, counts, wait, tier
) -> None:
    made, now = engine(), NOW
    of_tier(made, tier)
    for gap, count in zip(gaps, counts, strict=False):
        now += gap
        ask(made, now, count=count)
    now += wait
    before = everything(made)
    answer = desk(made).obey(command(at=now), now)
    assert everything(made) == before
    seen, slot = answer.view, made.slot_of("app_1")
    assert seen is not None
    rate, burst = made.rules.tiers[tier, policy.T_RATE], made.rules.tiers[tier, policy.T_BURST]
    assert seen.quota_left == quota.left(
        made.state, slot, now, made.rules.tiers[tier, policy.T_QUOTA]
    )
    assert seen.quota_used == made.state.clock[slot, app_state.QUOTA_USED]
    assert seen.tokens == app_state.refill(made.state, slot, now, rate, burst)
    budget = error_budget.left(made.state, slot, now, made.rules.tiers[tier, policy.T_ERROR_BUDGET])
    assert seen.errors_left == budget
    app_state.roll(made.state, slot, now)
    window = made.state.counts[slot, app_state.C_60S : app_state.C_60S + 2].tolist()
    share = 1 - (now - EPOCH) / 60 % 1
    assert seen.pace == pytest.approx((window[0] + window[1] * share) / 60)


def test_an_app_that_is_not_tracked_has_nothing_to_see() -> None:
    made = engine()
    before = everything(made)
    answer = desk(made).obey(command(app="app_none"), NOW)
    assert (answer.view, answer.done, answer.node) == (None, False, "d01")
    assert everything(made) == before


def test_a_decider_without_a_config_sees_nothing() -> None:
    assert desk(Engine("d01", "local", b"k" * 32, capacity=64)).obey(command(), NOW).view is None


def emptied() -> Engine:
    made = engine()
    of_tier(made, Tier.STANDARD)
    ask(made, NOW, count=320)
    return made


def test_a_filled_burst_admits_again_and_leaves_the_quota_alone() -> None:
    made = emptied()
    assert ask(made, NOW)[0].action == Action.DEFER
    answer = desk(made).obey(command("fill_burst"), NOW)
    assert answer.done
    assert answer.before.tokens < 1
    assert answer.view.tokens == answer.view.burst == 300
    assert answer.view.quota_used == answer.before.quota_used == 300
    assert {a.action for a in ask(made, NOW, count=300)} == {Action.ADMIT}
    assert ask(made, NOW)[0].action == Action.DEFER


def test_a_filled_burst_lifts_the_wait_that_was_told() -> None:
    made = emptied()
    assert made.state.clock[made.slot_of("app_1"), app_state.RETRY_UNTIL] > NOW
    assert desk(made).obey(command("fill_burst"), NOW).view.wait_until <= NOW


def test_a_look_shows_what_the_hour_and_the_day_hold_of_the_error_budget() -> None:
    made = engine()
    of_tier(made, Tier.ENTERPRISE)
    ask(made, NOW, count=1_000)
    slot = made.slot_of("app_1")
    error_budget.note_ml_refused(made.state, slot, 0.96)
    seen = desk(made).obey(command(), NOW).view
    hour, day = seen.spending
    assert (hour.window_s, day.window_s) == (3_600.0, 86_400.0)
    assert (hour.requests, hour.refusals) == (day.requests, day.refusals) == (1_000, 1)
    assert hour.spent == pytest.approx(0.04)
    assert seen.errors_left == hour.left == pytest.approx(0.06)
    assert (seen.error_budget, seen.errors_per_hour) == (0.0001, pytest.approx(0.1))


def test_a_tier_without_an_error_budget_has_none_to_see() -> None:
    tiers = [msgspec.structs.replace(t, error_budget=1.0) for t in defaults.TIERS]
    made = engine(msgspec.structs.replace(defaults.config(), tiers=tiers))
    of_tier(made, Tier.STANDARD)
    ask(made, NOW)
    seen = desk(made).obey(command(), NOW).view
    assert (seen.error_budget, seen.spending, seen.errors_left, seen.errors_per_hour) == (
        1.0,
        (),
        0.0,
        0.0,
    )


def test_an_answer_of_an_older_decider_is_read() -> None:
    seen = desk(emptied()).obey(command(), NOW).view
    older = msgspec.to_builtins(seen)[:-2]
    assert msgspec.convert(older, commands.View).error_budget == 0.0


def test_a_filled_error_budget_forgets_what_was_spent() -> None:
    made = engine()
    of_tier(made, Tier.ENTERPRISE)
    ask(made, NOW, count=1_000)
    error_budget.note_ml_refused(made.state, made.slot_of("app_1"), 0.96)
    answer = desk(made).obey(command("fill_errors"), NOW)
    assert answer.done
    assert answer.before.errors_left == pytest.approx(0.06)
    assert answer.view.errors_left == pytest.approx(0.1)
    assert answer.view.spending[0].refusals == 0
    assert answer.view.tokens == answer.before.tokens


def test_the_same_command_is_done_once() -> None:
    made = emptied()
    here = desk(made)
    assert here.obey(command("fill_burst"), NOW).done
    ask(made, NOW, count=300)
    again = here.obey(command("fill_burst"), NOW + 1)
    assert (again.done, again.error) == (False, "it was done already")
    assert again.view.tokens < 20


@pytest.mark.parametrize("late", [commands.LIFE_S + 0.1, 60.0, 86_400.0])
def test_an_expired_command_fills_nothing(late: float) -> None:
    made = emptied()
    answer = desk(made).obey(command("fill_burst"), NOW + late)
    assert (answer.done, "expired" in answer.error) == (False, True)


@given(
    skew=st.floats(-60, 60),
    done_after=st.floats(0, 10),
    down=st.floats(0, 60),
    replayed_after=st.floats(0, 60),
)
def test_a_restart_never_replays_a_filling(
    skew: float, done_after: float, down: float, replayed_after: float
) -> None:
    """Whatever the clocks say: what was done before a restart is not done after it."""
    said = command("fill_burst", at=NOW + skew)
    first = desk(emptied()).obey(said, NOW + done_after)
    started = NOW + done_after + down
    second = desk(emptied(), started).obey(said, started + replayed_after)
    assert not (first.done and second.done)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        (
            "another's key",
            commands.sign(
                commands.Command("fill_burst", "app_1", "0" * 32, NOW, NOW + 5),
                Ed25519PrivateKey.generate(),
            ),
        ),
        ("a long life", command("fill_burst", expires_at=NOW + 3_600)),
        ("no time", command("fill_burst", issued_at=math.nan, expires_at=math.nan)),
        ("backwards", command("fill_burst", expires_at=NOW - 1)),
        ("no app id", command("fill_burst", app="a b")),
        ("no nonce", command("fill_burst", nonce="x")),
        ("another verb", command("drop_all")),
        ("a config document", configs.sign(defaults.config(1, NOW), KEY)),
        ("rubbish", b"\xff\xfe rubbish"),
        ("nothing", b""),
    ],
)
def test_what_the_console_did_not_say_is_refused(what: str, data: bytes) -> None:
    made = emptied()
    before = everything(made)
    with pytest.raises(commands.CommandError):
        desk(made).obey(data, NOW)
    assert everything(made) == before


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_refused(place: int, bit: int) -> None:
    data = bytearray(command("fill_burst"))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(commands.CommandError):
        commands.verify(bytes(data), KEYS)


def test_a_command_is_no_config_document() -> None:
    with pytest.raises(configs.ConfigError):
        configs.verify(command("fill_burst"), KEYS)


def test_a_node_whose_clock_is_far_behind_fills_nothing() -> None:
    answer = desk(emptied()).obey(command("fill_burst", at=NOW + commands.SKEW_S + 1), NOW)
    assert (answer.done, "clock" in answer.error) == (False, True)


_override = st.builds(
    Override,
    id=st.just("o"),
    kind=st.sampled_from(["app", "tenant"]),
    subject=st.sampled_from(["x", "y"]),
    until=st.sampled_from([NOW - 1, NOW, NOW + 1]),
    action=st.sampled_from([None, 0, 1, 4]),
    multiplier=st.sampled_from([0.5, 1.0, 2.0]),
)


@settings(max_examples=300)
@given(overrides=st.lists(_override, max_size=6), tenant=st.sampled_from(["x", "z"]))
def test_the_plain_plan_is_the_compiled_one(overrides: list[Override], tenant: str) -> None:
    import numpy as np

    document, text_hash = config(overrides=overrides), TextHash(b"k" * 32)
    found, compiled = (
        np.array([0.0, 0.0, -1.0, 1.0]),
        lists.compile_subjects(document, text_hash),
    )
    lists.consult(compiled, lists.APP, text_hash.one("y"), NOW, found)
    lists.consult(compiled, lists.TENANT, text_hash.one(tenant), NOW, found)
    counts = override_of(document, app="y", tenant=tenant, now=NOW)
    action = counts.action if counts and counts.action is not None else -1
    assert (found[2], found[3]) == (action, counts.multiplier if counts else 1.0)
    plan = plan_of(document, app="y", tenant=tenant, tier=1, now=NOW)
    assert (plan.rate, plan.burst) == (15 * found[3], 300 * found[3])


def test_a_look_is_quick() -> None:
    made, here, data = emptied(), desk(emptied()), command()
    assert made.apps == 1
    here.obey(data, NOW)
    started = time.perf_counter()
    for _ in range(50):
        here.obey(data, NOW)
    assert (time.perf_counter() - started) / 50 < 0.005, "the event loop waits for it"
