"""`manage.py audit verify`: checks the hash chains of the audit log and the data-access log, and
the anchors. `manage.py audit anchor` anchors the end of the audit log now.
"""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from control.audit import anchoring, anchors, chain, look_months
from control.config import lies
from control.errors import ControlError


class Command(BaseCommand):
    help = (
        "verify: checks the hash chains of the audit log and of the data-access log, the"
        " checkpoints of what was dropped from it, which config versions needed a second person,"
        " and the anchors outside the database. Says where one breaks. anchor: anchors the end of"
        " the audit log now, as the worker does."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=["verify", "anchor"])

    def handle(self, *, verb: str, **options: object) -> None:
        if verb == "anchor":
            if why := anchoring.run().why:
                raise CommandError(why)
            self.stdout.write(f"The end of the audit log is anchored in {anchors.path()}.")
            return
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
            self._verify_anchors()
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

    def _verify_anchors(self) -> None:
        """Check the anchors. Raise CommandError at the first that disagrees, ControlError."""
        state = anchors.verify()
        if state.broken is not None:
            raise CommandError(
                f"Line {state.broken.line} of the anchors in {anchors.path()} is wrong:"
                f" {state.broken.why}. The {state.anchors:,} anchors before it agree with the log."
            )
        if state.newest is not None:
            self.stdout.write(
                f"The audit log is as anchored: {state.anchors:,} anchors, the newest of entry"
                f" {state.newest.seq:,} at {state.newest.at}."
            )
