"""What the pages of people and roles show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User

from control.audit.actors import ROLE_LABELS
from control.models import Grant
from control.people import review
from control.people.review import Access, RoleHeld
from decisions.search.export import safe

# Columns of the export.
HEADER = (
    "login",
    "name",
    "active",
    "superuser",
    "has password",
    "last sign-in",
    "role",
    "given by",
    "given at",
    "reason",
)
# Grants of a person that their page shows. Chosen: years of changes; the rest is in the audit log.
GRANTS = 50


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The last review of everyone's roles."""

    by: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """Everyone, and when somebody last looked through it."""

    people: list[Access]
    active: int
    powerless: int
    """Active people without a role."""
    reviewed: Reviewed | None


@dataclass(frozen=True, slots=True)
class PersonPage:
    """One person, and the grants of before."""

    access: Access
    grants: list[Grant]
    missing: list[tuple[str, str]]
    """Roles that they do not have: name and label."""
    oneself: bool
    """Whether this is who looks at the page."""


def people_page() -> PeoplePage:
    """Return what the list of everyone shows."""
    people, entry = review.everyone(), review.last()
    active = [one for one in people if one.active]
    return PeoplePage(
        people,
        len(active),
        sum(not one.roles and not one.everything for one in active),
        Reviewed(entry.actor, entry.at, entry.reason) if entry else None,
    )


def person_page(user: User, looks: User) -> PersonPage:
    """Return what the page of one person shows to someone who looks at it."""
    access = review.one(user)
    held = {role.role for role in access.roles}
    return PersonPage(
        access,
        list(Grant.objects.filter(person=user)[:GRANTS]),
        [(role, label) for role, label in ROLE_LABELS.items() if role not in held],
        user.pk == looks.pk,
    )


def export_rows(people: Iterable[Access]) -> Iterator[list[str]]:
    """Yield the export's lines: one for each role of each person, one for a person without any."""
    for one in people:
        seen = one.last_sign_in.isoformat() if one.last_sign_in else ""
        who = [
            one.login,
            one.name,
            _yes(one.active),
            _yes(one.everything),
            _yes(one.has_password),
            seen,
        ]
        for given in [_given(held) for held in one.roles] or [("",) * 4]:
            yield [safe(text) for text in (*who, *given)]


def _given(held: RoleHeld) -> tuple[str, str, str, str]:
    return held.role, held.by, held.at.isoformat() if held.at else "", held.reason


def _yes(value: bool) -> str:
    return "yes" if value else "no"
