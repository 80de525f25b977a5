"""`manage.py audit verify`: checks the audit log's hash chain."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from control.audit import chain


class Command(BaseCommand):
    help = "Checks the hash chain of the audit log and says where it breaks."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=["verify"])

    def handle(self, **options: object) -> None:
        state = chain.verify()
        if state.broken is not None:
            raise CommandError(
                f"The audit log breaks at entry {state.broken.seq}: {state.broken.why}. "
                f"The {state.entries:,} entries before it are intact."
            )
        self.stdout.write(
            f"The audit log is intact: {state.entries:,} entries, the last with hash {state.head}."
        )
