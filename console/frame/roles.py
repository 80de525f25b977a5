"""The six roles: their permissions, and the sentence that says which roles may do something.

A role is a Django group. `ensure` makes the groups after every migration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.contrib.auth.models import Group, Permission
from django.db import connections
from django.db.models import Q

from control.audit.actors import ROLE_LABELS

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

# Permissions of every role but the administrator's: to see what was decided, for whom, and who
# changed what.
_READ = (
    "decisions.view_decision",
    "control.view_app",
    "control.view_switchflip",
    "control.view_audit",
    "control.view_appnote",
    "decisions.view_dispute",
    "decisions.view_outcome",
    "decisions.view_buriedevent",
    "approvals.view_request",
    "control.view_declaration",
)

# Opening disputes, and deciding those that someone else opened.
_DISPUTES = ("decisions.open_dispute", "decisions.adjudicate_dispute")

# Exporting decisions as a file, which the audit log records.
_EXPORT = "decisions.view_decision_export"

# Replaying and discarding events that could not be stored.
_SETTLE = "decisions.settle_buriedevent"

# Seeing who has which role, and recording a review of that. Policy admins review what
# administrators gave.
_REVIEW = ("control.view_people", "control.review_access")

# Permissions of each role, "app.codename".
PERMISSIONS: dict[str, tuple[str, ...]] = {
    "support": (
        *_READ,
        "decisions.view_token_digest",
        _EXPORT,
        "control.add_appnote",
        "decisions.open_dispute",
    ),
    "sre": (
        *_READ,
        _EXPORT,
        "control.engage_switch",
        "control.add_appnote",
        "control.reset_bucket",
        "approvals.approve_switches",
        "approvals.approve_rule",
        _SETTLE,
        *_DISPUTES,
    ),
    "ml_owner": (
        *_READ,
        "control.add_appnote",
        "approvals.approve_rollouts",
        *_DISPUTES,
        "decisions.report_outcome",
    ),
    "policy_admin": (
        *_READ,
        "control.engage_switch",
        "control.add_appnote",
        "control.reset_bucket",
        "control.view_looks",
        "approvals.approve_policies",
        "approvals.approve_rule",
        "control.apply_declaration",
        "control.import_apps",
        _SETTLE,
        *_DISPUTES,
        "decisions.report_outcome",
        *_REVIEW,
    ),
    "auditor": (
        *_READ,
        "decisions.view_token_digest",
        _EXPORT,
        "control.view_looks",
        "control.view_people",
    ),
    # Makes people and gives roles, and nothing else: it reads no decision and flips no switch.
    "administrator": ("control.manage_people", *_REVIEW),
}


@dataclass(frozen=True)
class DemoPerson:
    """A person whom one can sign in as in the demo; there is one for each role."""

    role: str
    first: str
    last: str

    @property
    def email(self) -> str:
        """Also the user name."""
        return f"{self.role.replace('_', '-')}@demo.sluice.example"


DEMO_PEOPLE = (
    DemoPerson("support", "Mara", "Lindqvist"),
    DemoPerson("sre", "Dele", "Okafor"),
    DemoPerson("ml_owner", "Ines", "Caldeira"),
    DemoPerson("policy_admin", "Priya", "Raman"),
    DemoPerson("auditor", "Tomasz", "Wrona"),
    DemoPerson("administrator", "Aiko", "Tanaka"),
)


def ensure() -> list[str]:
    """Make the six groups and give each exactly its permissions.

    Return the permissions that do not exist yet, sorted: a migration makes those of one Django app
    after the other.
    """
    wanted = {name for names in PERMISSIONS.values() for name in names}
    found = _permissions(wanted)
    for role, names in PERMISSIONS.items():
        group, _ = Group.objects.get_or_create(name=role)
        group.permissions.set(found[name] for name in names if name in found)
    return sorted(wanted - set(found))


def ensure_after_migrate(using: str, **_: object) -> None:
    """Make the roles when a migration is done (receiver of `post_migrate`).

    Do nothing as long as the table of groups does not exist: the migration may be of a single app.
    """
    if Group._meta.db_table in connections[using].introspection.table_names():
        ensure()


def _permissions(names: set[str]) -> dict[str, Permission]:
    match = Q()
    for name in names:
        app, _, codename = name.partition(".")
        match |= Q(content_type__app_label=app, codename=codename)
    rows = Permission.objects.filter(match).select_related("content_type")
    return {f"{row.content_type.app_label}.{row.codename}": row for row in rows}


def who_can(permission: str) -> str:
    """Return the roles with a permission as a sentence: "SRE or Policy admin can do this"."""
    names = [ROLE_LABELS[role] for role, granted in PERMISSIONS.items() if permission in granted]
    if not names:
        return "No role can do this"
    listed = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
    return f"{listed} can do this"


def label(user: AbstractUser | AnonymousUser) -> str:
    """Return a person's role in words: the first in the order of ROLE_LABELS if there are several.

    Without a role, return "Superuser" for a superuser and "No role" for others.
    """
    groups = set(user.groups.values_list("name", flat=True))
    held = [text for role, text in ROLE_LABELS.items() if role in groups]
    if held:
        return held[0]
    return "Superuser" if user.is_superuser else "No role"
