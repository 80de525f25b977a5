"""The table of what needs a second person, from both sides: nothing that needs one is let through,
nothing that needs none is held back.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from control.audit.actors import SYSTEM
from control.config import gate, part_words, parts
from control.config.gate import Clearance, NeedsSecondPerson, Wanted
from control.config.second_person import Circumstances, Kind, kinds_of, second_person
from control.errors import Refused
from decider.contracts.config import Switch
from tests.control.approvals import edits
from tests.control.approvals.edits import NOW, SEEN, start

# How many; `make test-long` asks for 100,000.
EDITS = int(os.environ.get("SLUICE_RANDOM_EDITS", "2000"))
WANTED = Wanted(SYSTEM, "x", "policy.change", "x", "changed it")


@pytest.fixture(autouse=True)
def installation() -> None:
    """None: these tests need no server."""


@pytest.fixture
def pure_gate(monkeypatch) -> None:
    """The gate without a database: four eyes is on, the circumstances are those of the cases."""
    monkeypatch.setattr("control.approvals.mode.is_on", lambda: True)
    monkeypatch.setattr("control.config.gate._circumstances", lambda *given: SEEN)


def passes(case: edits.Case) -> bool:
    """Whether the gate lets one person make this change."""
    try:
        standing = gate.pass_through(
            case.before, case.after, WANTED, now=datetime.fromtimestamp(NOW, UTC)
        )
    except NeedsSecondPerson as held:
        assert held.verdict.needs
        return False
    assert standing == Clearance()
    return True


def check(case: edits.Case) -> None:
    assert passes(case) != case.needs, case.places
    verdict = second_person(case.before, parts.decoded(case.after), NOW, SEEN)
    # what a request holds makes the same document out of the old one, and is told by its digest
    again = parts.patch(case.before, parts.read_payload(verdict.payload), NOW)
    assert parts.differences(again, parts.decoded(case.after), NOW) == ()
    assert parts.digest_of(verdict.payload) == verdict.digest


def test_random_edits_are_judged_as_the_table_says(pure_gate) -> None:
    rng, outcome = random.Random(66), Counter()
    for _ in range(EDITS):
        case = edits.case(rng)
        check(case)
        outcome[case.needs] += 1
    # both sides were tried
    assert min(outcome[True], outcome[False]) > EDITS / 10, outcome


def test_the_digest_is_of_the_change_and_of_nothing_beside_it() -> None:
    one, other = start(), replace(start(), nodes=99, version=40)
    digests = {
        second_person(old, replace(old, ml_time_limit_ms=9.0), NOW, SEEN).digest
        for old in (one, other)
    }
    assert len(digests) == 1
    assert second_person(one, replace(one, ml_time_limit_ms=8.0), NOW, SEEN).digest not in digests


def test_a_part_that_changed_meanwhile_is_not_overwritten() -> None:
    asked = second_person(start(), replace(start(), ml_time_limit_ms=9.0), NOW, SEEN).change
    with pytest.raises(parts.Overtaken, match="/ml_time_limit_ms was changed"):
        parts.patch(replace(start(), ml_time_limit_ms=7.0), asked, NOW)
    beside = parts.patch(replace(start(), nodes=99), asked, NOW)
    assert (beside.nodes, beside.ml_time_limit_ms) == (99, 9.0)


def test_two_entries_of_one_identity_are_one_part_and_need_someone() -> None:
    twice = replace(start(), switches=[Switch("all_ml", NOW + 60), Switch("all_ml")])
    verdict = second_person(start(), twice, NOW, SEEN)
    assert ([d.part for d in verdict.change], len(verdict.needs)) == (["/switches"], 1)


def test_what_a_later_version_cannot_place_is_refused() -> None:
    for part in ("/nothing", "/services/none/capacity", "/tiers/gold/burst", "/version/x"):
        odd = parts.Difference(parts.steps(part), None, 3)
        with pytest.raises(Refused):
            parts.patch(start(), [odd], NOW)
    for part in (
        "/services/search/prefixes/x",
        "/switches/all_ml/until/x",
        "/x",
    ):
        assert parts.value_at(start(), parts.steps(part), NOW) is None


def test_the_kind_follows_from_the_parts() -> None:
    def kinds(after) -> frozenset[Kind]:
        return kinds_of(second_person(start(), after, NOW, Circumstances()).change)

    assert kinds(replace(start(), switches=[])) == {Kind.SWITCHES}
    assert kinds(replace(start(), model=edits.NEW)) == {Kind.ROLLOUTS}
    both = replace(start(), switches=[], nodes=99)
    assert kinds(both) == {Kind.SWITCHES, Kind.POLICIES}


@pytest.mark.parametrize("section", ["switches", "overrides", "lists", "model", "tenants", "other"])
@pytest.mark.parametrize("value", [{}, {"until": "soon"}, {"action": 9}, {"verdict": 3}, [], [{}]])
def test_words_survive_whatever_is_asked(section: str, value: object) -> None:
    for before, after in ((value, None), (None, value), (value, 3)):
        odd = parts.Difference((section, "x"), before, after)
        assert part_words.clause(odd).startswith("it ")
        assert part_words.said(odd).what


def test_words_survive_an_end_that_no_calendar_has() -> None:
    far = replace(start(), switches=[Switch("all_ml", 1.8e12)])
    (clause,) = second_person(start(), far, NOW, SEEN).needs
    assert clause.endswith("until 1800000000000 (unix seconds) now")


@pytest.mark.parametrize(
    ("after", "clause"),
    [
        (replace(start(), switches=[]), "it clears the switch “All ML”"),
        (
            replace(start(), ml_time_limit_ms=9.0),
            "it raises time limit of scoring (ms) from 5 to 9",
        ),
        (replace(start(), model=edits.NEW), "it changes model from risk v2 to risk v3"),
        (replace(start(), model=None), "it removes model"),
        (replace(start(), tenants=[]), "it removes tenant ten_a, weight"),
    ],
)
def test_a_clause_says_what_a_change_does(after, clause: str) -> None:
    assert clause in second_person(start(), after, NOW, SEEN).needs
