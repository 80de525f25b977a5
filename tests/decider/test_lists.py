"""The table of guard rules: every rule is found by its subject, however the subjects collide."""

from __future__ import annotations

import numpy as np
import pytest

from decider.contracts.config import ListEntry
from decider.engine import lists
from decider.engine.text_hash import TextHash
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
