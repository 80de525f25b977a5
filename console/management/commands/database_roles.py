"""`manage.py database_roles`: the roles that a managed PostgreSQL needs, one for each process."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console.local.postgres import grants
from console.local.servers import database_password, database_password_path
from control.database_roles import server
from control.database_roles.roles import DatabaseRole, role_name

# Characters of a prefix and of a database's name. PostgreSQL takes more; these mean the same
# without quotes, too.
NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
# Chosen: with a role's end it stays below the 63 bytes of a name in PostgreSQL.
MOST_NAME = 40


class Command(BaseCommand):
    help = (
        "Prints the SQL that makes a role of PostgreSQL for each kind of process and hands the"
        " database over to its owner, for `psql` as an administrator. It holds verifiers of"
        " passwords; the passwords are made in var/keys. What the roles may do, `manage.py migrate`"
        " says as the owner. Run it again after an update."
    )
    # it needs no database
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--prefix",
            default="sluice",
            help="beginning of the roles' names; another for each installation of one server",
        )
        parser.add_argument("--database", default="sluice", help="name of the database")
        parser.add_argument(
            "--tables", action="store_true", help="print what each role may do, for people"
        )

    def handle(self, *, prefix: str, database: str, tables: bool, **options: object) -> None:
        if tables:
            self.stdout.write(grants.tables())
            return
        for option, name in (("--prefix", prefix), ("--database", database)):
            if not 1 <= len(name) <= MOST_NAME or not NAME_CHARACTERS.issuperset(name):
                raise CommandError(
                    f"{option} must be 1 to {MOST_NAME} lowercase letters, digits or “_”."
                )
        for statement in self._statements(prefix, database):
            self.stdout.write(f"{statement};")

    def _statements(self, prefix: str, database: str) -> Iterator[str]:
        keys, passwords = settings.SLUICE_KEYS, {}
        for role in DatabaseRole:
            try:
                passwords[role] = database_password(keys, role)
            except OSError as error:
                raise CommandError(
                    f"The password of {role} cannot be kept in {keys}: {error.strerror or error}."
                ) from error
            # apart from the statements, which go on to the server
            name = role_name(role, prefix)
            self.stderr.write(f"{name}: password in {database_password_path(keys, role)}")
        yield from server.roles(passwords, prefix)
        yield from server.handed_over(database, prefix)
