"""Notes people leave about an app for their colleagues: added, never edited."""

from __future__ import annotations

from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused
from control.models import AppNote

PERMISSION = "control.add_appnote"
# Characters, as wide as the column.
LONGEST = 1000


def add(*, by: Actor, app: str, text: str) -> AppNote:
    """Store a note with its audit row and return it. Raise Refused when the note is empty or too
    long, or `app` is not an app id.
    """
    text = text.strip()
    if not text:
        raise Refused("The note is empty. Write what a colleague should know.")
    if len(text) > LONGEST:
        raise Refused(f"The note has {len(text):,} characters; the limit is {LONGEST:,}.")
    if not app or len(app) > 128 or not app.isprintable():
        raise Refused("This is not an app id. An app id has 1 to 128 printable characters.")
    # the note's text is the entry's reason, so the log stays complete without the notes
    with chain.changing():
        chain.append(
            by=by,
            reason=text,
            action="note.add",
            subject=app,
            summary=f"added a note about app {app}",
        )
        return AppNote.objects.create(app=app, text=text, by=by.name, by_role=by.role)


def latest_notes(app: str, most: int = 50) -> list[AppNote]:
    """Return the latest notes about an app, newest first."""
    return list(AppNote.objects.filter(app=app)[:most]) if app.isprintable() else []
