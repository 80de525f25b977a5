"""`manage.py store_users`: the users that a managed Valkey needs, one for each role."""

from __future__ import annotations

from argparse import ArgumentParser

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console.local.servers import password_path, role_password
from decider.store_users import rules
from decider.store_users.roles import Role

# Characters of a prefix. The server takes more; these need no quoting in any file or address.
PREFIX_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
# Chosen: far above any name that people give, and far below what an address may hold.
MOST_PREFIX = 40


class Command(BaseCommand):
    help = (
        "Prints the ACL SETUSER lines that make a user of Valkey (or Redis 7) for each role, for"
        " `valkey-cli`. They hold digests of passwords; the passwords are made in var/keys. What a"
        " user of this name could do before is forgotten, so run it again after an update."
    )
    # it needs no database
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--prefix",
            default="sluice",
            help="beginning of the users' names; another for each installation of one server",
        )
        parser.add_argument(
            "--file",
            action="store_true",
            help="print lines for the server's configuration or ACL file instead",
        )

        parser.add_argument(
            "--tables", action="store_true", help="print what each role may do, for people"
        )

    def handle(self, *, prefix: str, file: bool, tables: bool, **options: object) -> None:
        if tables:
            self.stdout.write(rules.tables())
            return
        if not 1 <= len(prefix) <= MOST_PREFIX or not PREFIX_CHARACTERS.issuperset(prefix):
            raise CommandError(
                f"--prefix must be 1 to {MOST_PREFIX} lowercase letters, digits, “-” or “_”."
            )
        first = "user" if file else "ACL SETUSER"
        for role in Role:
            try:
                allowed = rules.rules_of(role, role_password(settings.SLUICE_KEYS, role))
            except OSError as error:
                raise CommandError(
                    f"The password of {role} cannot be kept in {settings.SLUICE_KEYS}:"
                    f" {error.strerror or error}."
                ) from error
            name = rules.user_of(role, prefix)
            self.stdout.write(f"{first} {name} {allowed}")
            # apart from the lines, which go on to the server
            self.stderr.write(f"{name}: password in {password_path(settings.SLUICE_KEYS, role)}")
