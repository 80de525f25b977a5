"""The access review: who may do what, since when, by whom, and that someone looked through it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User

from control.audit import chain
from control.audit.actors import ROLE_LABELS, Actor
from control.models import AuditEntry, Grant

ACTION = "access.review"
SUBJECT = "people and roles"


@dataclass(frozen=True, slots=True)
class RoleHeld:
    """A role that a person has now."""

    role: str
    label: str
    by: str
    """Who gave it; empty when no grant of it is kept."""
    at: datetime | None
    """When it was given; None when no grant of it is kept."""
    reason: str


@dataclass(frozen=True, slots=True)
class Access:
    """One person and what they may do."""

    number: int
    login: str
    name: str
    active: bool
    everything: bool
    """Whether Django lets them do everything, whatever their roles (a superuser)."""
    has_password: bool
    """Whether they chose a password; without one they cannot sign in."""
    last_sign_in: datetime | None
    roles: tuple[RoleHeld, ...]


def everyone() -> list[Access]:
    """Return every person with the roles they have, active ones first, then by name."""
    grants = {(grant.person_id, grant.role): grant for grant in Grant.objects.filter(taken_at=None)}
    people = User.objects.prefetch_related("groups")
    found = [_access(user, grants) for user in people]
    return sorted(found, key=lambda one: (not one.active, one.name.lower(), one.login))


def one(user: User) -> Access:
    """Return what one person may do."""
    grants = {
        (grant.person_id, grant.role): grant
        for grant in Grant.objects.filter(person=user, taken_at=None)
    }
    return _access(user, grants)


def record(*, by: User, reason: str) -> AuditEntry:
    """Record that someone reviewed the roles of everyone, with what they saw."""
    seen = everyone()
    return chain.append(
        by=Actor.of(by),
        reason=reason,
        action=ACTION,
        subject=SUBJECT,
        summary=f"reviewed the roles of {len(seen)} people",
        after={
            "people": [
                {
                    "login": access.login,
                    "active": access.active,
                    "everything": access.everything,
                    "roles": [held.role for held in access.roles],
                }
                for access in seen
            ]
        },
    )


def last() -> AuditEntry | None:
    """Return the entry of the last review; None when there was none."""
    return AuditEntry.objects.filter(action=ACTION).order_by("-seq").first()


def _access(user: User, grants: dict[tuple[int, str], Grant]) -> Access:
    names = {group.name for group in user.groups.all()}
    return Access(
        user.pk,
        user.get_username(),
        user.get_full_name() or user.get_username(),
        user.is_active,
        user.is_superuser,
        user.has_usable_password(),
        user.last_login,
        tuple(_held(role, grants.get((user.pk, role))) for role in ROLE_LABELS if role in names),
    )


def _held(role: str, grant: Grant | None) -> RoleHeld:
    if grant is None:
        return RoleHeld(role, ROLE_LABELS[role], "", None, "")
    return RoleHeld(role, ROLE_LABELS[role], grant.by, grant.at, grant.reason)
