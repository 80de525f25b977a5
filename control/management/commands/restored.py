"""`manage.py restored`: makes every decider follow a database that was restored from a backup."""

from __future__ import annotations

import time
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from control.audit.actors import Actor
from control.config import restored
from control.deciders import acks, known_apps, publish
from control.errors import ControlError
from control.models import ConfigVersion
from decider.contracts.config import version_text

# Seconds to wait for every decider, and between two looks. Chosen: a decider that missed the push
# polls every two seconds, and one that starts takes a few.
WAIT_S, LOOK_EVERY_S = 20.0, 0.2


class Command(BaseCommand):
    help = (
        "After the database was restored from a backup: publishes its config under a version that"
        " every decider follows, fills the config store again, and waits until all follow."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--reason", required=True, help="which backup was restored, and why")

    def handle(self, *, reason: str, **options: object) -> None:
        try:
            row = restored.follow_database(by=Actor.at_shell(), reason=reason, now=time.time())
            profiles = publish.rebuild()
            known_apps.pending()
            if row is None:
                self.stdout.write("No decider follows a newer config than this database knows.")
            else:
                self.stdout.write(f"Published config {version_text(row.version)}.")
            self.stdout.write(f"Filled the config store: {profiles:,} profiles.")
            newest = ConfigVersion.objects.order_by("-version")[0]
            self._wait(newest)
        except ControlError as error:
            raise CommandError(str(error)) from error

    def _wait(self, newest: ConfigVersion) -> None:
        stop = time.monotonic() + WAIT_S
        while True:
            reached = acks.propagation(newest, time.time())
            if reached.complete or time.monotonic() >= stop:
                break
            time.sleep(LOOK_EVERY_S)
        if not reached.total:
            raise CommandError("No decider was heard of in the last hour. Start them, then repeat.")
        if not reached.complete:
            late = "; ".join(f"{n.name}: {n.error or n.state.value}" for n in reached.late)
            raise CommandError(f"Not every decider follows yet: {late}. Repeat this command.")
        self.stdout.write(f"All {reached.total} deciders follow it.")
