"""Roles of the database and their names. What each may do with each table is said where all tables
are known (`console.local.postgres.tables`).
"""

from __future__ import annotations

from enum import StrEnum


class DatabaseRole(StrEnum):
    """A role of PostgreSQL, and the end of its name."""

    OWNER = "owner"
    """Owns tables and functions; only migrations run as it."""
    APP = "app"
    """Console, switches, workers, beat, explainer, and commands at a shell."""
    INGEST = "ingest"
    READER = "reader"
    """Auditors and reports of people's own: reads all but secrets."""


def role_name(role: DatabaseRole, prefix: str = "sluice") -> str:
    """Return a role's name in the server. `prefix` keeps installations of one server apart."""
    return f"{prefix}_{role}"


def prefix_of(owner: str) -> str | None:
    """Return the prefix of an installation from its owner's name; None for another name."""
    end = f"_{DatabaseRole.OWNER}"
    return owner.removesuffix(end) if owner.endswith(end) and owner != end else None
