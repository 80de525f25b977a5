"""`manage.py demo_users`: makes a person for each role, all with the same random password."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand
from django.db import transaction

from console.frame import roles
from control.audit.actors import ROLE_LABELS


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


@transaction.atomic
def make_people(password: str) -> None:
    """Make the five people of the demo; reset names, password and role of those that exist."""
    roles.ensure()
    for person in roles.DEMO_PEOPLE:
        user, _ = User.objects.get_or_create(
            username=person.email, defaults={"email": person.email}
        )
        user.first_name, user.last_name, user.is_active = person.first, person.last, True
        # setting the same password again would end that person's sessions
        if not user.check_password(password):
            user.set_password(password)
        user.save()
        user.groups.set([Group.objects.get(name=person.role)])
