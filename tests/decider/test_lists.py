"""The table of guard rules: every rule is found by its subject, however the subjects collide."""

from __future__ import annotations

import numpy as np
import pytest

from decider.contracts.config import ListEntry
from decider.contracts.normalise.addresses import address
from decider.contracts.requests import CheckRequest
from decider.contracts.vocabulary import Action
from decider.engine import lists
from decider.engine.buffers import NO_SOURCE
from decider.engine.text_hash import TextHash
from tests.decider.test_engine import engine
from tests.decider.test_peek import NOW, config

HASH = TextHash(b"k" * 32)


def verdict(compiled: lists.Subjects, kind: int, subject: str, now: float = NOW) -> float:
    found = np.array([0.0, 0.0, -1.0, 1.0])
    lists.consult(compiled, kind, HASH.one(subject), now, found)
    return float(found[0])


@pytest.mark.parametrize("count", [1, 3, 500])
def test_each_listed_app_has_its_own_verdict_and_no_other_app_has_one(count: int) -> None:
    entries = [
        ListEntry(verdict=("allow", "block")[k % 2], kind="app", subject=f"app_{k}")
        for k in range(count)
    ]
    compiled = lists.compile_subjects(config(lists=entries), HASH)
    assert [verdict(compiled, lists.APP, f"app_{k}") for k in range(count)] == [
        1.0 + k % 2 for k in range(count)
    ]
    assert not any(verdict(compiled, lists.APP, f"other_{k}") for k in range(2_000))
    assert verdict(compiled, lists.SOURCE, "app_0") == 0.0


def test_rules_of_one_subject_are_told_apart_by_kind_and_end() -> None:
    entries = [
        ListEntry(verdict="allow", kind="source", subject="x"),
        ListEntry(verdict="block", kind="app", subject="x", until=NOW + 1),
        ListEntry(verdict="allow", kind="app", subject="x"),
    ]
    compiled = lists.compile_subjects(config(lists=entries), HASH)
    assert verdict(compiled, lists.APP, "x") == 2.0  # a block outweighs an allow
    assert verdict(compiled, lists.APP, "x", NOW + 1) == 1.0
    assert verdict(compiled, lists.SOURCE, "x") == 1.0
    assert verdict(compiled, lists.TENANT, "x") == 0.0


def verdict_on(entries: list[ListEntry], source: str, now: float = NOW) -> float:
    """The verdict about a source, by its own entries and those of the networks around it."""
    document, found = config(lists=entries), np.array([0.0, 0.0, -1.0, 1.0])
    compiled = lists.compile_subjects(document, HASH)
    lists.consult(compiled, lists.SOURCE, HASH.one(source), now, found)
    if (network_of := lists.Networks(document, HASH).finder()) is not None:
        lists.consult(compiled, lists.SOURCE, network_of(source), now, found)
    return float(found[0])


def listed(**verdicts: str) -> list[ListEntry]:
    return [ListEntry(verdict=v, kind="source", subject=s) for s, v in verdicts.items()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("subject", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7/32", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.7:443", "192.0.2.7", "192.0.2.8"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("2001:DB8:0:7::/64", "2001:db8:0:7::abcd", "2001:db8:0:8::"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
    ],
)
def test_a_listed_network_is_that_of_every_source_inside(
    subject: str, inside: str, outside: str
) -> None:
    entries = listed(**{subject: "block"})
    assert verdict_on(entries, address(inside)) == 2.0
    assert verdict_on(entries, address(outside)) == 0.0
    assert verdict_on(entries, "") == 0.0


def test_all_networks_around_a_source_count_and_a_block_outweighs_an_allow() -> None:
    entries = [
        *listed(**{"10.0.0.0/8": "block", "10.1.0.0/16": "allow", "10.1.1.1": "allow"}),
        ListEntry(verdict="block", kind="source", subject="172.16.0.0/12", until=NOW + 1),
        *listed(**{"172.16.0.0/12": "allow", "172.16.0.0/16": "allow"}),
    ]
    for order in (entries, entries[::-1]):
        assert verdict_on(order, "10.1.1.1") == verdict_on(order, "10.1.9.9") == 2.0
        assert verdict_on(order, "10.9.9.9") == 2.0
        assert verdict_on(order, "172.16.0.1") == 2.0
        assert verdict_on(order, "172.16.0.1", NOW + 1) == 1.0
        assert verdict_on(order, "11.0.0.1") == 0.0


def test_an_old_entry_that_is_no_address_finds_nobody_and_stops_nothing() -> None:
    entries = listed(**{"banana": "block", "192.0.2.*": "block", "192.0.2.1\n": "block"})
    entries += listed(**{"2001:db8::1": "block"})
    assert verdict_on(entries, "192.0.2.1") == 0.0
    assert verdict_on(entries, address("2001:db8::2")) == 2.0


def test_without_networks_no_request_is_looked_up() -> None:
    document = config(
        lists=listed(**{"192.0.2.1": "block", "2001:db8::/64": "block", "x": "allow"})
    )
    assert lists.Networks(document, HASH).finder() is None


def test_the_engine_blocks_a_network_and_counts_requests_without_a_source() -> None:
    made = engine(config(lists=listed(**{"192.0.2.0/24": "block"})))
    inside, outside, unknown = (
        CheckRequest("app_1", "GET", "/v2/orders/1", source=source)
        for source in ("192.0.2.9", "198.51.100.1", "")
    )
    found = made.decide([inside, outside, unknown], NOW) + made.decide([inside], NOW)
    assert [d.action == Action.BLOCK for d in found] == [True, False, False, True]
    assert made.batch.serial[NO_SOURCE] == 1
