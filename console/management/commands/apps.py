"""`manage.py apps import FILE`: adds and changes apps, many at once."""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from console.frame import permissions
from console.local import declared_files
from control.audit.actors import Actor
from control.config.gate import NeedsSecondPerson
from control.directory import app_import, app_rows
from control.directory.app_rows import BadRows
from control.errors import ControlError, StoreUnavailable

PERMISSION = "control.import_apps"


class Command(BaseCommand):
    help = (
        "Adds and changes apps from a CSV file (its first line names columns) or from JSON Lines,"
        f" by their ids, all or none of them: {', '.join(app_rows.COLUMNS)}. A column that is left"
        " out or empty stays as it is; a new app needs tenant and tier. Deciders know them when the"
        " command ends. The change is made by the owner of the API token in"
        f" {declared_files.TOKEN}."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=("import",))
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument(
            "--format", choices=("csv", "jsonl"), help="default: as the file's name ends"
        )
        parser.add_argument(
            "--make-tenants",
            action="store_true",
            help="add the tenants that there are not, with their id for a name",
        )
        parser.add_argument("--reason", required=True, help="where the apps are from")
        parser.add_argument(
            "--dry-run", action="store_true", help="check the file and count, but keep nothing"
        )

    def handle(
        self,
        *,
        file: Path,
        format: app_rows.Form | None,
        make_tenants: bool,
        reason: str,
        dry_run: bool,
        **options: object,
    ) -> None:
        user = declared_files.owner_of_token()
        if not user.has_perm(PERMISSION):
            raise CommandError(f"{user} may not import apps. {permissions.refusal(PERMISSION)}")
        form = format or ("csv" if file.suffix.lower() == ".csv" else "jsonl")
        digest = hashlib.sha256()
        try:
            with file.open("rb") as lines:
                rows = app_rows.read(_hashed(lines, digest), form)
            with tqdm(
                total=len(rows), unit=" apps", desc="Store", leave=False, disable=None
            ) as bar:
                done = app_import.import_apps(
                    rows,
                    by=Actor.of(user),
                    reason=reason,
                    digest=digest.hexdigest(),
                    make_tenants=make_tenants,
                    dry_run=dry_run,
                    advance=bar.update,
                )
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.") from error
        except NeedsSecondPerson as held:
            declared_files.ask(self.stdout, held, user, reason, "Import the same file again")
            return
        except BadRows as error:
            raise CommandError(f"{file}: nothing was imported.\n{error}") from error
        except ControlError as error:
            raise CommandError(str(error)) from error
        tenants = f" {done.tenants:,} tenants added." if done.tenants else ""
        counts = f"{done.added:,} apps added, {done.changed:,} changed, {done.same:,} as before."
        self.stdout.write(counts + tenants)
        if dry_run:
            self.stdout.write("Nothing was kept: this was a dry run.")
        else:
            self._tell(done)

    def _tell(self, done: app_import.Imported) -> None:
        count = done.added + done.changed
        try:
            with _bar("Tell", count) as bar:
                app_import.publish_import(done.number, bar.update)
        except StoreUnavailable as error:
            self.stderr.write(
                f"The apps are stored. Deciders are told once Valkey answers: {error}"
            )
        else:
            self.stdout.write("Deciders were told.")


def _bar(what: str, total: int) -> tqdm:
    return tqdm(total=total, unit=" apps", desc=what, leave=False, disable=None)


def _hashed(lines: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line
