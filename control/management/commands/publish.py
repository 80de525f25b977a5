"""`manage.py publish`: brings the config store up to date by hand."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from control.deciders import known_apps, publish
from control.errors import ControlError
from control.switches import offline


class Command(BaseCommand):
    help = (
        "Publishes the newest config version if it is not published yet; with --all, publishes"
        " everything again: config, live model, known apps, profiles."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--all",
            action="store_true",
            dest="everything",
            help="publish everything again, whatever is there",
        )

    def handle(self, *, everything: bool, **options: object) -> None:
        try:
            for said in offline.reconcile():
                self.stdout.write(said)
            did = (
                f"published everything, {publish.rebuild():,} profiles"
                if everything
                else publish.pending()
            )
            table = known_apps.pending()
        except ControlError as error:
            raise CommandError(str(error)) from error
        for said in filter(None, (did, table)):
            self.stdout.write(said.capitalize())
        if not did and not table:
            self.stdout.write("Nothing was waiting.")
