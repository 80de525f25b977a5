"""A state machine over requests, votes, edits of the config, roles and time, against the database.

A model in Python says what each step must lead to; after each step the database must agree, and
nothing that needs a second person may be in force without one.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from unittest import mock

import msgspec
import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from console.frame import roles
from control.approvals import requests
from control.approvals.lifecycle import State
from control.approvals.models import Request, Vote
from control.audit.actors import SYSTEM, Actor
from control.config import changes, lies, requested
from control.config.gate import NeedsSecondPerson
from control.config.parts import Overtaken
from control.errors import ControlError, Refused
from control.models import ConfigVersion
from tests.control.approvals.conftest import (
    EFFECTS,
    approve,
    engage,
    make_person,
    turn_on,
    veto,
)
from tests.database import as_owner

pytestmark = pytest.mark.django_db
ROLES = ("sre", "policy_admin")
PEOPLE = st.integers(0, 3)
TIMES = st.sampled_from([1, 1, 1, 8, 11, 60, 60 * 25])


class Undone(Exception):
    """Ends the transaction of one run."""


# How often the runs reached what they are for.
reached: Counter[str] = Counter()


class FourEyes(RuleBasedStateMachine):
    """Four people, two of each role, in an installation with four eyes on."""

    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.now = timezone.now()
        self.clock = mock.patch.object(timezone, "now", lambda: self.now)
        self.clock.start()
        self.atomic = transaction.atomic()
        # each run is undone, as each test is
        self.atomic._from_testcase = True
        self.atomic.__enter__()

    def teardown(self) -> None:
        reached.update(Request.objects.values_list("state", flat=True))
        self.atomic.__exit__(Undone, Undone(), None)
        self.clock.stop()

    @initialize()
    def begin(self) -> None:
        roles.ensure()
        self.people = [make_person(f"p{k}", ROLES[k % 2]) for k in range(4)]
        self.held = {k: ROLES[k % 2] for k in range(4)}
        changes.first(by=SYSTEM, reason="x")
        turn_on(self.people[0], self.people[1])
        self.kind: dict[int, str] = {}
        self.votes: dict[int, dict[int, str]] = {}

    def person(self, k: int) -> User:
        return User.objects.get(pk=self.people[k].pk)

    def may(self, k: int, number: int) -> bool:
        """Whether the model lets this person decide this request."""
        proposer = Request.objects.get(pk=number).requested_by_id
        return self.held[k] == self.kind[number] and self.people[k].pk != proposer

    def is_open(self, number: int) -> bool:
        row = Request.objects.get(pk=number)
        return row.state == State.OPEN and self.now < row.expires_at

    def remember(self, row: Request, kind: str):
        self.kind[row.pk] = kind
        self.votes[row.pk] = {}
        return row.pk

    def change(self, k: int, do) -> Request | None:
        """Tries a change alone; asks for it where it is held back."""
        by = self.person(k)
        try:
            do(Actor.of(by))
        except NeedsSecondPerson as held:
            try:
                return requested.ask(held, by=by, reason="x")
            except Refused:
                # somebody asks for the same already
                return None
        except Refused:
            return None
        return None

    @rule(target=asked, k=PEOPLE, factor=st.sampled_from([0.5, 2.0, 3.0]))
    def change_a_limit(self, k: int, factor: float):
        def edit(config):
            tier = msgspec.structs.replace(config.tiers[0], burst=50.0 * factor)
            return msgspec.structs.replace(config, tiers=[tier, *config.tiers[1:]])

        before = changes.current().tiers[0].burst
        row = self.change(
            k,
            lambda by: changes.make_version(
                by=by, reason="x", action="policy.x", subject="x", summary="x", edit=edit
            ),
        )
        # whatever the direction, nobody does it alone
        assert changes.current().tiers[0].burst == before
        return multiple() if row is None else self.remember(row, "policy_admin")

    @rule(k=PEOPLE, hours=st.sampled_from([None, 1, 30]))
    def engage(self, k: int, hours: int | None) -> None:
        there = bool(changes.current().switches)
        ends = None if hours is None else self.now + timedelta(hours=hours)
        try:
            engage(self.person(k), ends)
        except Refused:
            assert there

    @rule(target=asked, k=PEOPLE)
    def clear(self, k: int):
        from control.switches import switches

        row = self.change(k, lambda by: switches.clear("all_ml", by=by, reason="x"))
        return multiple() if row is None else self.remember(row, "sre")

    @rule(number=asked, k=PEOPLE, verdict=st.sampled_from(["approve", "approve", "veto"]))
    def vote(self, number: int, k: int, verdict: str) -> None:
        row, wanted = Request.objects.get(pk=number), self.is_open(number) and self.may(k, number)
        wanted = wanted and k not in self.votes[number]
        try:
            (approve if verdict == "approve" else veto)(row, self.person(k))
        except ControlError:
            assert not wanted
            return
        assert wanted
        self.votes[number][k] = verdict

    @rule(number=asked, verdict=st.sampled_from(["approve", "approve", "veto"]))
    def vote_as_someone_who_may(self, number: int, verdict: str) -> None:
        if self.is_open(number) and (able := [k for k in range(4) if self.may(k, number)]):
            self.vote(number, able[0], verdict)

    @rule(number=asked)
    def approve_and_lose_the_role(self, number: int) -> None:
        able = [k for k in range(4) if self.may(k, number) and k not in self.votes[number]]
        if self.is_open(number) and able:
            self.vote(number, able[-1], "approve")
            self.change_role(able[-1], "")
            self.apply(number)

    @rule(number=asked, k=PEOPLE)
    def withdraw(self, number: int, k: int) -> None:
        row = Request.objects.get(pk=number)
        wanted = self.is_open(number) and row.requested_by_id == self.people[k].pk
        try:
            requests.withdraw(number, by=self.person(k), reason="x")
        except Refused:
            assert not wanted
            return
        assert wanted

    @rule(number=asked)
    def apply(self, number: int) -> None:
        row, version = Request.objects.get(pk=number), changes.latest().version
        counts = [k for k, said in self.votes[number].items() if said == "approve"]
        counts = [k for k in counts if self.may(k, number)]
        wanted = self.is_open(number) and bool(counts) and not requested.overtaken(row, self.now)
        try:
            made = requested.apply(row, EFFECTS)
        except (requests.NotApproved, Overtaken):
            assert not wanted
            assert changes.latest().version == version
            reached["a vote that does not count"] += len(self.votes[number]) > len(counts)
            return
        row.refresh_from_db()
        if made:
            assert wanted
            assert (row.state, changes.latest().request_id) == (State.APPLIED, number)
        else:
            # approved, and overtaken by a state in which the verb is impossible
            assert (row.state, changes.latest().version) == (State.FAILED, version)

    @rule(target=asked, number=asked, k=PEOPLE)
    def rebase(self, number: int, k: int):
        row = Request.objects.get(pk=number)
        try:
            made = requested.rebase(row, by=self.person(k), reason="x")
        except ControlError:
            return multiple()
        assert made.votes.count() == 0
        reached["rebased"] += 1
        return self.remember(made, self.kind[number])

    @rule(k=PEOPLE, role=st.sampled_from(["", *ROLES]))
    def change_role(self, k: int, role: str) -> None:
        self.people[k].groups.set(Group.objects.filter(name=role))
        self.held[k] = role

    @rule(minutes=TIMES)
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        requests.expire(self.now)

    @invariant()
    def the_database_would_commit_it(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")

    @invariant()
    def nothing_that_needs_someone_is_in_force_without(self) -> None:
        for row in ConfigVersion.objects.filter(loosens=True).select_related("request"):
            votes = Vote.objects.filter(request=row.request, verdict="approve")
            assert row.request.state == State.APPLIED
            assert votes.exclude(voter=row.request.requested_by).filter(digest=row.change).exists()

    @invariant()
    def no_version_lies(self) -> None:
        assert lies.find().lies == ()

    @invariant()
    def states_fit_the_votes(self) -> None:
        for row in Request.objects.exclude(action__startswith="four_eyes"):
            votes = set(row.votes.values_list("verdict", flat=True))
            assert ("veto" in votes) == (row.state == State.VETOED)
            assert (row.state == State.OPEN) == (row.closed_at is None)


@pytest.fixture
def clock_of_the_database(db, monkeypatch) -> datetime:
    """The triggers read the database's clock, which nobody can move; the machine moves its own.
    Their two checks of time are tried by themselves (`test_triggers`).
    """
    with as_owner(), connection.cursor() as cursor:
        for function in ("approvals_request_moves", "approvals_vote_counts"):
            cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [function])
            (text,) = cursor.fetchone()
            cursor.execute(
                text.replace("clock_timestamp() >=", "NULL::timestamptz >=").replace(
                    "clock_timestamp() <", "NULL::timestamptz <"
                )
            )
    return timezone.now()


def test_no_path_of_steps_goes_round_four_eyes(clock_of_the_database) -> None:
    run_state_machine_as_test(
        FourEyes,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    rare = {str(state) for state in State} | {"rebased", "a vote that does not count"}
    assert set(+reached) >= rare - {"failed"}, reached
