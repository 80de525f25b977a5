"""`manage.py audit verify`: checks the hash chains of the audit log and the data-access log."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from control.audit import chain, look_months
from control.config import lies
from control.errors import ControlError


class Command(BaseCommand):
    help = (
        "Checks the hash chains of the audit log and of the data-access log, the checkpoints of"
        " what was dropped from it, and which config versions needed a second person. Says where"
        " one breaks."
    )

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
        self._verify_versions()
        try:
            self._verify_looks()
        except ControlError as error:
            raise CommandError(str(error)) from error

    def _verify_versions(self) -> None:
        """Judge each config version again by its document. Raise CommandError for lies."""
        judged = lies.find()
        if judged.lies:
            raise CommandError(" ".join(judged.lies))
        self.stdout.write(
            f"Each of {judged.versions:,} config versions needed the people that it says."
        )

    def _verify_looks(self) -> None:
        """Check the data-access log. Raise CommandError where it breaks, ControlError."""
        looks = look_months.verify()
        if looks.broken is not None:
            raise CommandError(
                f"The data-access log breaks at look {looks.broken.seq}: {looks.broken.why}. "
                f"The {looks.entries:,} looks before it that are kept are intact."
            )
        gone = f" after {looks.dropped:,} that were dropped lawfully" if looks.dropped else ""
        self.stdout.write(
            f"The data-access log is intact: {looks.entries:,} looks{gone}, the last with hash"
            f" {looks.head}."
        )
