"""Looking into an app's buckets and having one filled, across deciders."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from control.deciders import buckets
from control.errors import KeysError, NotAllowed, Refused, StoreUnavailable
from control.models import AuditEntry
from decider.contracts import store
from decider.engine.engine import Engine
from decider.engine.memory import error_budget
from tests.control.conftest import DELE, beat, status
from tests.control.played import Played, warm_up

pytestmark = pytest.mark.django_db
WHY = {"by": DELE, "reason": "SUP-48119: their queue was replayed by mistake"}


@pytest.fixture
def decider(
    valkey: redis.Redis, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Played]]:
    """Starts deciders that report and answer, however busy this machine is."""
    monkeypatch.setattr(buckets, "WAIT_S", 10.0)
    running: list[Played] = []

    def start(node: str = "d01") -> Played:
        # it reports only once it answers: a heartbeat that is older may have expired by then
        running.append(Played(valkey, keys, node))
        beat(valkey, status(node))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def test_each_decider_that_knows_the_app_shows_its_own_bucket(decider) -> None:
    one, at = decider("d01"), time.time()
    # no time passes for it, so nothing comes back however slow this machine is
    one.clock = lambda: at
    one.track("app_1", 120)
    decider("d02")
    found = buckets.peek("app_1")
    assert [n.name for n in found.nodes] == ["d01", "d02"]
    assert [n.name for n in found.tracking] == ["d01"]
    view = found.tracking[0].view
    assert (view.tokens, view.burst) == (180, 300)
    assert (view.quota_used, view.quota_per_day) == (120, 2_000_000)
    assert found.silent == ()


def test_a_played_decider_reports_only_when_it_decides_at_once(
    decider, valkey, monkeypatch
) -> None:
    decide, reports = Engine.decide, []

    def spy(*args, **kwargs):
        reports.append(valkey.exists(store.NODE_PREFIX + "d01"))
        return decide(*args, **kwargs)

    monkeypatch.setattr(Engine, "decide", spy)
    warm_up.cache_clear()
    decider("d01").track("app_1", 1)
    assert reports == [0, 1]


def test_a_look_leaves_no_row_and_takes_nothing_out(decider) -> None:
    one = decider()
    one.track("app_1", 10)
    slot = one.engine.slot_of("app_1")
    before = one.engine.state.clock[slot].tobytes()
    for _ in range(3):
        buckets.peek("app_1")
    assert one.engine.state.clock[slot].tobytes() == before
    assert not AuditEntry.objects.exists()


def test_one_that_reports_and_does_not_answer_is_named(decider, valkey, monkeypatch) -> None:
    monkeypatch.setattr(buckets, "WAIT_S", 0.2)
    decider("d01").track("app_1", 1)
    beat(valkey, status("d02"))
    assert buckets.peek("app_1").silent == ("d02",)


def test_an_answer_that_cannot_be_read_costs_itself_only(
    decider, valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    decider("d01").track("app_1", 1)
    nonce = "ab" * 16
    monkeypatch.setattr(buckets.secrets, "token_hex", lambda _: nonce)
    valkey.rpush(store.ANSWERS_PREFIX + nonce, b"\xff rubbish", b"\x91" * 5_000)
    assert [node.name for node in buckets.peek("app_1").tracking] == ["d01"]


def test_a_reset_fills_the_bucket_and_is_written_down_before_and_after(decider) -> None:
    one = decider("d01")
    one.track("app_1", 310)
    decider("d02")
    found = buckets.reset("burst", app="app_1", **WHY)
    assert found.done == ("d01",)
    assert found.tracking[0].answer.before.tokens < 200
    assert found.tracking[0].view.tokens == 300
    asked, acked = AuditEntry.objects.order_by("seq")
    assert (asked.action, asked.actor, asked.subject, asked.after) == (
        "bucket.reset",
        "Dele Okafor",
        "app_1",
        {"bucket": "burst"},
    )
    assert acked.action == "bucket.reset_acked"
    assert acked.after["nodes"] == {
        "d01": "filled",
        "d02": "this node does not track the app, so there is nothing to fill",
    }


def test_the_false_throttle_budget_is_filled_the_same_way(decider) -> None:
    one = decider()
    one.track("app_1", 1)
    slot = one.engine.slot_of("app_1")
    error_budget.note_ml_refused(one.engine.state, slot, 0.25)
    buckets.reset("errors", app="app_1", **WHY)
    assert not one.engine.state.spent[slot].any()


def test_the_message_of_a_reset_played_again_by_another_fills_nothing(decider, valkey) -> None:
    one = decider()
    one.track("app_1", 310)
    buckets.reset("burst", app="app_1", **WHY)
    one.track("app_1", 310)
    valkey.publish(store.COMMANDS_CHANNEL, one.heard[-1])
    assert buckets.peek("app_1").tracking[0].view.tokens < 200


@pytest.mark.parametrize("reason", ["", "   ", "a\x00b", "x" * 1001])
def test_without_a_reason_nobody_is_asked(decider, reason: str) -> None:
    one = decider()
    one.track("app_1", 310)
    with pytest.raises(Refused):
        buckets.reset("burst", app="app_1", by=DELE, reason=reason)
    assert buckets.peek("app_1").tracking[0].view.tokens < 200
    assert not AuditEntry.objects.exists()


def test_another_bucket_is_none(decider) -> None:
    with pytest.raises(Refused, match="burst, errors"):
        buckets.reset("quota", app="app_1", **WHY)


@pytest.mark.parametrize("app", ["", "a b", "a\x00", "x" * 129, "ü"])
def test_what_is_no_app_id_is_refused_before_it_is_written_down(app: str) -> None:
    with pytest.raises(Refused, match="not an app id"):
        buckets.reset("burst", app=app, **WHY)
    assert not AuditEntry.objects.exists()


def test_without_valkey_it_says_so_and_the_log_has_what_was_tried(settings) -> None:
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(StoreUnavailable):
        buckets.reset("burst", app="app_1", **WHY)
    assert [row.action for row in AuditEntry.objects.order_by("seq")] == [
        "bucket.reset",
        "bucket.reset_acked",
    ]
    assert "heard from no decider" in AuditEntry.objects.first().summary


def test_without_the_signing_key_nobody_is_asked(settings, tmp_path: Path) -> None:
    settings.SLUICE_KEYS = tmp_path / "none"
    with pytest.raises(KeysError):
        buckets.peek("app_1")


def test_only_those_who_may_reset_pass_the_check() -> None:
    class Person:
        def has_perm(self, name: str) -> bool:
            return name == buckets.PERMISSION

    buckets.check_may_reset(Person())
    with pytest.raises(NotAllowed):
        buckets.check_may_reset(object())


def test_a_decider_that_is_not_there_any_more_is_not_waited_for(decider, valkey) -> None:
    decider("d01").track("app_1", 1)
    valkey.zadd(store.NODES_KEY, {"d09": status().at - 60})
    assert [n.name for n in buckets.peek("app_1").nodes] == ["d01"]
