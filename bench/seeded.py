"""People of a measurement's installation."""

from __future__ import annotations


def make_person(role: str, name: str = "") -> None:
    """Make a person with a role, who signs in as `name` (by default the role) at bench.example.

    Django must be set up and the database migrated.
    """
    from control.audit.actors import SYSTEM
    from control.people import accounts, grants

    name, reason = name or role, "A measurement"
    user = accounts.make(
        by=SYSTEM, email=f"{name}@bench.example", first=name, last="Bench", reason=reason
    )
    grants.give(by=SYSTEM, person=user, role=role, reason=reason)
