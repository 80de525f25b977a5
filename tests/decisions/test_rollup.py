"""Counts kept ready say exactly what the rows say, whatever was stored, compacted, killed or sent
twice.
"""

from __future__ import annotations

import time

import pytest
from django.db import OperationalError, connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decider.contracts import store as names
from decider.contracts.event import encode_batch
from decisions.counts import append, rollup, seen_tokens
from decisions.counts.estimate import total
from decisions.models import Decision, IngestedBatch
from decisions.search import facet_counts, lookup
from decisions.search.filters import Filters
from decisions.store import worker as ingest_worker
from decisions.store.worker import Worker
from tests.database import as_owner
from tests.decisions.factory import batch, event, unranked

pytestmark = pytest.mark.django_db


def events(now: float, picks: list[tuple[int, int, int, float]]) -> list:
    """One event per pick: minutes ago, action, service and app, probability."""
    return [
        event(
            at=now - 60 * ago,
            action=action,
            service=f"s{which % 3}",
            app=f"app_{which}",
            tier=which % 4,
            inclusion_probability=p,
        )
        for ago, action, which, p in picks
    ]


picks = st.lists(
    st.tuples(
        st.integers(0, 3_000),
        st.integers(0, 4),
        st.integers(0, 5),
        st.sampled_from([1.0, 0.5, 0.02]),
    ),
    min_size=1,
    max_size=40,
)
CASES = [
    Filters(range="1h"),
    Filters(range="24h"),
    Filters(range="all", actions=frozenset({1, 4})),
    Filters(range="all", services=frozenset({"s1"})),
    Filters(range="all", out=frozenset({("action", 0), ("service", "s2")})),
    Filters(range="7d", tiers=frozenset({2})),
]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(picks, picks, st.booleans())
def test_counts_kept_ready_are_those_of_the_rows(store, some, late, compacted) -> None:
    """Whether nothing was compacted yet, or all levels were made and what is stored then comes
    late.
    """
    now = time.time()
    with as_owner():
        Decision.objects.all().delete()
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM decisions_facet; DELETE FROM decisions_appcount; DELETE FROM"
            " decisions_countlevel"
        )
    store(events(now, some))
    if compacted:
        rollup.compact(now - 3_600)
        rollup.compact(now)
    store(events(now, late))
    for _ in range(2):
        for filters in CASES:
            ready = facet_counts.ready(filters, now)
            rows = facet_counts.from_rows(
                lookup.unfiltered(lookup.interpret(""), filters, now), filters, now
            )
            assert shape(ready, filters) == shape(rows, filters)
        rollup.compact(now)


def shape(counted: facet_counts.Counted, filters: Filters) -> list:
    """What a page says: totals by value of each dimension, and the apps."""
    whole = total(t.number for t in counted.inside(filters))
    by_action = {
        k: (round(v.count, 6), v.kept)
        for k, v in facet_counts.sums(counted.inside(filters), lambda t: t.values[0]).items()
    }
    drawn = round(sum(c.count for c in counted.cells), 6)
    apps = (
        {app: (round(n.count, 6), n.kept) for app, n in counted.apps}
        if not filters.services and not filters.out
        else {}
    )
    return [
        whole.kept,
        round(whole.count, 6),
        round(whole.square, 4),
        by_action,
        drawn,
        sorted(apps.items()),
    ]


def test_compaction_takes_in_what_was_appended_once_and_drops_fine_rows_that_are_old(store) -> None:
    now = time.time()
    for _ in range(4):
        store(events(now, [(ago, 1, 0, 0.5) for ago in (5, 5, 600, 601, 3_000, 3_001)]))
    assert rollup.compact(now) > 0
    assert rollup.compact(now) == 0
    assert counted(0) == 0
    assert counted(1) == 8  # those of five minutes ago
    assert counted(30) in (
        8,
        16,
    )  # those of ten hours, and those of five minutes when a half hour ended since
    assert counted(180) >= 16


def counted(span: int) -> int:
    """Decisions in the rows of one length."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(sum(kept), 0) FROM decisions_facet WHERE span = %s", [span])
        return cursor.fetchone()[0]


def sums() -> tuple:
    """What was appended."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(kept), sum(weight), sum(square) FROM decisions_facet")
        return cursor.fetchone()


NOW = 1_795_000_000.0
MINUTE = int(NOW // 60)


@given(
    st.integers(0, 20_000),
    st.integers(1, 20_000),
    st.integers(0, 600),
    st.sampled_from([1, 5, 30, 180, 1_440]),
)
def test_a_window_is_covered_once_and_whole(ago: int, length: int, behind: int, most: int) -> None:
    """By blocks that are kept, complete and no longer than asked for; however far compaction
    came.
    """
    settled = MINUTE - 2 - behind
    complete = {level.span: settled // level.span * level.span for level in rollup.LEVELS[1:]}
    since = int(rollup.edge(60.0 * (MINUTE - ago), NOW)) // 60
    grain = rollup.grain(NOW - 60 * since)
    until = min(MINUTE + 1, since + length)
    until += -until % grain
    at = since
    for one in rollup.cover(since, until, NOW, complete, most=most):
        assert one.since == at
        assert one.since % one.span == one.until % one.span == 0
        assert one.span == 1 or one.until <= complete[one.span]
        assert one.span <= max(most, rollup.grain(NOW - 60 * one.since))
        at = one.until
    assert at >= min(until, settled // grain * grain)


def test_a_day_is_read_from_few_rows() -> None:
    settled = MINUTE - 2
    complete = {level.span: settled // level.span * level.span for level in rollup.LEVELS[1:]}
    since = (MINUTE - 1_440) // 30 * 30
    blocks = sum(
        (s.until - s.since) // s.span for s in rollup.cover(since, MINUTE + 1, NOW, complete)
    )
    assert blocks < 60


def test_a_window_never_begins_inside_a_coarse_row() -> None:
    now = time.time()
    for span in ("15m", "1h", "6h", "24h", "7d"):
        window = Filters(range=span).window(now)
        assert window.since % (60 * rollup.grain(now - window.since)) == 0


def test_counts_of_days_no_longer_stored_are_dropped(store) -> None:
    now = time.time()
    store([event(at=now - 40 * 86_400), event()])
    assert rollup.drop(30, now) == 2
    assert seen_tokens.drop(30, now) == 1
    assert sums()[0] == 1


def test_a_token_is_found_by_its_digest_alone(store) -> None:
    one, other = (
        event(token_digest="ab" * 16, app="app_a"),
        event(token_digest="cd" * 16, app="app_b"),
    )
    store([one, event(token_digest="", app="app_a"), other])
    assert seen_tokens.apps("ab" * 16) == ("app_a",)
    reading = lookup.interpret(f"token:{'ab' * 16}")
    assert reading.kind == "token"
    assert [d.id.bytes for d in lookup.rows(reading, Filters(range="all"), time.time())] == [one.id]
    assert lookup.interpret("token:zz").kind == "nothing"
    assert "No stored decision carried" in lookup.interpret(f"token:{'ef' * 16}").hint


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.mark.django_db(transaction=True)
def test_a_decision_is_counted_exactly_when_it_is_stored(valkey, monkeypatch) -> None:
    sent = batch([event(), unranked(), event(service="search")])
    for _ in range(2):
        valkey.xadd(names.EVENTS_STREAM, {"b": encode_batch(sent)})
    first = worker(valkey, "w1")
    add = append.Counts.add

    def add_and_die(self, rows) -> None:
        add(self, rows)
        raise Killed

    monkeypatch.setattr(append.Counts, "add", add_and_die)
    with pytest.raises(Killed):
        first.step()
    monkeypatch.undo()
    assert sums() == (None, None, None)
    second = worker(valkey, "w2")
    assert second.step() == 3
    valkey.xadd(names.EVENTS_STREAM, {"b": encode_batch(batch([event(), event(service="new")]))})
    assert second.step() == 2
    assert sums()[0] == Decision.objects.count() == 5
    assert sums()[1] == pytest.approx(sum(d.weight for d in Decision.objects.all()))
    assert IngestedBatch.objects.count() == 2


def worker(valkey, name: str) -> Worker:
    one = Worker(valkey, name, claim_idle_ms=0, block_ms=5)
    one.join()
    return one


@pytest.mark.django_db(transaction=True)
def test_what_a_failed_transaction_learnt_is_not_believed(valkey, monkeypatch) -> None:
    """Keys made in a transaction that was rolled back do not exist; the next one makes them
    again.
    """
    one = worker(valkey, "w1")
    copy = ingest_worker.copy_events

    def copy_and_fail(*arguments) -> None:
        copy(*arguments)
        raise OperationalError("the server went away")

    valkey.xadd(names.EVENTS_STREAM, {"b": encode_batch(batch([event()]))})
    monkeypatch.setattr(ingest_worker, "copy_events", copy_and_fail)
    with pytest.raises(OperationalError):
        one.step()
    monkeypatch.setattr(ingest_worker, "copy_events", copy)
    one._claimed_at = float("-inf")  # it asks at once for what it did not acknowledge
    assert one.step() == 1
    counted = facet_counts.ready(Filters(range="1h"), time.time())
    assert total(t.number for t in counted.tallies).kept == 1
