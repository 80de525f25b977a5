"""Grants of roles: who gave which role to whom, when, and until when.

What a person may do follows from Django's groups. Each time a role is given, a grant is kept as
well, so that it can be asked later who made somebody powerful.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import Group, User
from django.utils import timezone

from control.audit import chain
from control.audit.actors import ROLE_LABELS, Actor
from control.errors import NotAllowed, Refused
from control.models import AuditEntry, Grant
from control.permissions import holds

# To make and deactivate people, and to give and take roles.
MANAGE = "control.manage_people"
# To see who has which role since when, and to export it.
VIEW = "control.view_people"
# To record that the roles of everyone were reviewed.
REVIEW = "control.review_access"


def check_may_manage(user: object) -> None:
    """Raise NotAllowed for a person who may not make people or give roles."""
    if not holds(user, MANAGE):
        raise NotAllowed(f"{user} may not change people and roles.")


def check_not_oneself(by: Actor | User, person: User) -> None:
    """Raise Refused when someone would change their own account: nobody raises their own power, and
    the last administrator cannot lock everybody out.
    """
    if isinstance(by, User) and by.pk == person.pk:
        raise Refused("This is your own account. Another administrator must change it.")


def give(*, by: Actor | User, person: User, role: str, reason: str) -> Grant:
    """Give a role to a person, and return the grant. `by` is a signed-in person, or an actor who is
    none: someone at a shell, or sign-in itself.

    Raise Refused for an unknown role, one's own account, a deactivated person, and a role that the
    person has.
    """
    check_role(role)
    check_not_oneself(by, person)
    actor = as_actor(by)
    with chain.changing():
        locked = lock(person)
        if not locked.is_active:
            raise Refused(f"{name_of(locked)} is deactivated. Activate them first.")
        if locked.groups.filter(name=role).exists():
            raise Refused(f"{name_of(locked)} has the role {ROLE_LABELS[role]} already.")
        entry = _entry(actor, locked, "role.give", f"gave the role {ROLE_LABELS[role]} to", reason)
        locked.groups.add(Group.objects.get(name=role))
        return Grant.objects.create(
            person=locked,
            role=role,
            granted_by=by if isinstance(by, User) else None,
            by=actor.name,
            by_login=actor.login,
            at=entry.at,
            reason=entry.reason,
        )


def take(*, by: Actor | User, person: User, role: str, reason: str) -> None:
    """Take a role from a person. Raise Refused for an unknown role, one's own account, and a role
    that the person does not have.
    """
    check_role(role)
    check_not_oneself(by, person)
    actor = as_actor(by)
    with chain.changing():
        locked = lock(person)
        if not locked.groups.filter(name=role).exists():
            raise Refused(f"{name_of(locked)} does not have the role {ROLE_LABELS[role]}.")
        said = f"took the role {ROLE_LABELS[role]} from"
        entry = _entry(actor, locked, "role.take", said, reason)
        locked.groups.remove(Group.objects.get(name=role))
        Grant.objects.filter(person=locked, role=role, taken_at=None).update(
            taken_at=entry.at, taken_by=actor.name, taken_login=actor.login
        )


def granted_within(granter: User, grantee: User, hours: float, now: datetime | None = None) -> bool:
    """Return whether `granter` gave `grantee` any role within the last `hours`, whether or not it
    was taken again since.
    """
    since = (now or timezone.now()) - timedelta(hours=hours)
    return Grant.objects.filter(granted_by=granter, person=grantee, at__gt=since).exists()


def check_role(role: str) -> None:
    """Raise Refused for a role that does not exist."""
    if role not in ROLE_LABELS:
        raise Refused(f"There is no such role. Roles are {', '.join(ROLE_LABELS)}.")


def as_actor(by: Actor | User) -> Actor:
    """Return who does something, as the audit log names them."""
    return Actor.of(by) if isinstance(by, User) else by


def lock(person: User) -> User:
    """Return a person's row, which nobody else changes until the transaction ends."""
    return User.objects.select_for_update(no_key=True).get(pk=person.pk)


def name_of(person: User) -> str:
    """Return a person's name, or what they sign in with when they have none."""
    return person.get_full_name() or person.get_username()


def subject_of(person: User) -> str:
    """Return what the audit log calls a person."""
    return f"person {person.get_username()}"


def _entry(actor: Actor, person: User, action: str, said: str, reason: str) -> AuditEntry:
    held = sorted(person.groups.values_list("name", flat=True))
    return chain.append(
        by=actor,
        reason=reason,
        action=action,
        subject=subject_of(person),
        summary=f"{said} {name_of(person)}",
        before={"roles": held},
    )
