"""Config versions that say of themselves what their documents do not: `manage.py audit verify`.

The database holds a version that says it needs a second person to its request. Whether it needs one
only its document can say, which the database cannot read; so it is computed again here.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.audit.actors import Actor
from control.config import gate
from control.models import AuditEntry, ConfigVersion
from decider.contracts import config as document
from decider.contracts.config import Config, ConfigError, version_text


@dataclass(frozen=True)
class Judged:
    """What a check of all config versions found."""

    versions: int
    """Versions that were judged again."""
    lies: tuple[str, ...]
    """A sentence for each version that is not what it says."""


def find() -> Judged:
    """Judge each stored document against the one before it. Versions of before four eyes are not
    judged.
    """
    judged, lies = 0, []
    was: Config | None = None
    for row in ConfigVersion.objects.order_by("version").iterator(chunk_size=50):
        try:
            becomes = document.decode(bytes(row.payload))
        except ConfigError as error:
            lies.append(f"Config {version_text(row.version)} cannot be read: {error}.")
            was = None
            continue
        if was is not None and row.loosens is not None:
            judged += 1
            if why := _lie(row, was, becomes):
                lies.append(f"Config {version_text(row.version)} {why}.")
        was = becomes
    return Judged(judged, tuple(lies))


def _lie(row: ConfigVersion, was: Config, becomes: Config) -> str:
    """Return what is wrong with what a version says of itself; empty when nothing is."""
    entry = AuditEntry.objects.filter(config_version=row).order_by("seq").first()
    by = Actor(entry.actor, entry.actor_login, entry.actor_role) if entry else Actor("", "", "")
    verdict = gate.judge(was, becomes, by, row.made_at, row.version)
    if verdict.needs and not row.loosens:
        return f"needed a second person and says that it did not: {'; '.join(verdict.needs)}"
    if row.change and row.change != verdict.digest:
        return "is not the change that its digest says"
    return ""
