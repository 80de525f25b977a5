"""`manage.py demo_users`: makes a person for each role, all with the same random password."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand

from console.frame import roles
from control.audit.actors import ROLE_LABELS, SYSTEM
from control.people import accounts, grants


class Command(BaseCommand):
    help = (
        "Makes the demo's people, one for each role, and prints how to sign in. Running it again"
        " changes nothing."
    )

    def handle(self, *args: object, **options: object) -> None:
        password = demo_password(settings.SLUICE_KEYS)
        make_people(password)
        for person in roles.DEMO_PEOPLE:
            self.stdout.write(
                f"{person.email}  {person.first} {person.last}, {ROLE_LABELS[person.role]}"
            )
        self.stdout.write(f"Password for all of them: {password}")


def demo_password(folder: Path) -> str:
    """Return the demo's password. It is made once and kept in `folder`, for its owner alone."""
    path = folder / "demo-password"
    if path.is_file() and (kept := path.read_text().strip()):
        return kept
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # 64 random bits in groups that people can type
    password = "-".join(secrets.token_hex(2) for _ in range(4))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(password + "\n")
    return password


def make_people(password: str) -> None:
    """Make the people of the demo who do not exist yet, each with their role, and give all of them
    this password. Somebody who was deactivated, or given another role, stays as they are.
    """
    roles.ensure()
    reason = "The demo has a person for each role."
    for one in roles.DEMO_PEOPLE:
        user = accounts.find(one.email)
        if user is None:
            user = accounts.make(
                by=SYSTEM, email=one.email, first=one.first, last=one.last, reason=reason
            )
            grants.give(by=SYSTEM, person=user, role=one.role, reason=reason)
        # setting the same password again would end that person's sessions
        if user.is_active and not user.check_password(password):
            user.set_password(password)
            user.save(update_fields=["password"])
