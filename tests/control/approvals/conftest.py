"""What the tests of four eyes share: people with roles, an installation, and asking for things."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User

from console.frame import roles
from control.approvals import mode, requests
from control.approvals.models import Request, Vote
from control.approvals.requests import Ballot
from control.audit.actors import SYSTEM, Actor
from control.config import changes, gate, requested
from control.config.gate import NeedsSecondPerson
from control.switches import switches
from tests.audited import audited
from tests.control.conftest import installation  # noqa: F401 - the same installation


def make_person(name: str, *held: str) -> User:
    """Someone with roles."""
    with audited():
        user = User.objects.create(username=f"{name}@example.org", first_name=name.capitalize())
        user.groups.set(Group.objects.filter(name__in=held))
    return user


@pytest.fixture
def people(db) -> Callable[..., User]:
    roles.ensure()
    return make_person


def approve(row: Request, by: User, **more) -> Vote:
    ballot = Ballot(Vote.Verdict.APPROVE, more.pop("digest", row.digest), "I looked at it.")
    return requests.vote(row.pk, ballot, by=by, needed=gate.permissions_of)


def veto(row: Request, by: User) -> Vote:
    ballot = Ballot(Vote.Verdict.VETO, row.digest, "Not now.")
    return requests.vote(row.pk, ballot, by=by, needed=gate.permissions_of)


EFFECTS = {"switches": switches.apply_request, "four_eyes": mode.apply_request}


def apply(row: Request) -> bool:
    return requested.apply(row, EFFECTS)


def turn_on(one: User, other: User) -> None:
    """Turns four eyes on by two people."""
    asked = mode.ask(True, by=one, reason="Two are here now")
    approve(asked, other)
    assert apply(asked)


@pytest.fixture
def dele(people) -> User:
    return people("dele", "sre")


@pytest.fixture
def noor(people) -> User:
    return people("noor", "sre")


@pytest.fixture
def priya(people) -> User:
    return people("priya", "policy_admin")


@pytest.fixture
def four_eyes(dele, priya) -> None:
    """An installation with a first config in which four eyes is on."""
    changes.first(by=SYSTEM, reason="A new installation")
    turn_on(dele, priya)


def engage(by: User, until=None) -> None:
    switches.engage("all_ml", by=Actor.of(by), reason="Scores look wrong", until=until)


def ask_to_clear(by: User) -> Request:
    """Asks for what the gate holds back."""
    with pytest.raises(NeedsSecondPerson) as held:
        switches.clear("all_ml", by=Actor.of(by), reason="The model is well again")
    return requested.ask(held.value, by=by, reason="The model is well again")
