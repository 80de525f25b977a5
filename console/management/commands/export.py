"""`manage.py export`: writes what the installation is as a `sluice.yaml`."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from control.declared import applying, schema
from control.errors import ControlError


class Command(BaseCommand):
    help = (
        "Writes the present state as a sluice.yaml: always the same text for the same state."
        " Switches, overrides and rules with an end are not in it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--tenants",
            action="store_true",
            help="all tenants, not only those with a weight or in the last applied file",
        )
        parser.add_argument(
            "--schema", action="store_true", help="the JSON Schema of the file instead"
        )

    def handle(self, *, tenants: bool, schema: bool, **options: object) -> None:
        if schema:
            self.stdout.write(_schema(), ending="")
            return
        try:
            self.stdout.write(applying.export_text(tenants), ending="")
        except ControlError as error:
            raise CommandError(str(error)) from error


def _schema() -> str:
    return schema.text()
