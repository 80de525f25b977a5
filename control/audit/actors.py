"""Who does something: a signed-in person, someone at a shell, or the system itself."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

ROLE_LABELS: dict[str, str] = {
    "support": "Support",
    "sre": "SRE",
    "ml_owner": "ML owner",
    "policy_admin": "Policy admin",
    "auditor": "Auditor",
    "administrator": "Administrator",
}


@dataclass(frozen=True)
class Actor:
    """The one who is answerable for a change, as the audit log names them."""

    name: str
    """For people to read."""
    login: str
    """What they sign in with; the operating system's name at a shell."""
    role: str
    """Roles in words, comma separated; "System" or "Shell" when there is no person signed in."""

    @classmethod
    def of(cls, user: AbstractUser) -> Actor:
        """Return a signed-in person with the roles that they hold now."""
        # as words in the entry: roles change later, and the log must say what held then
        groups = set(user.groups.values_list("name", flat=True))
        roles = [label for group, label in ROLE_LABELS.items() if group in groups]
        if user.is_superuser:
            roles.append("Superuser")
        return cls(
            user.get_full_name() or user.get_username(),
            user.get_username(),
            ", ".join(roles) or "No role",
        )

    @classmethod
    def at_shell(cls, login: str = "") -> Actor:
        """Return whoever runs a command on this machine. The operating system vouches for them, not
        the console.
        """
        login = login or getpass.getuser()
        return cls(login, login, "Shell")


SYSTEM = Actor("System", "", "System")
