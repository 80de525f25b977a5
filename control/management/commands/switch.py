"""`manage.py switch`: the kill switch at a shell, which also works with PostgreSQL or Valkey
down.
"""

from __future__ import annotations

import re
import time
from argparse import ArgumentParser
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from control.audit.actors import Actor
from control.config import requested
from control.config.gate import NeedsSecondPerson
from control.deciders import acks
from control.errors import ControlError, StoreUnavailable
from control.switches import offline, switches
from decider.contracts.config import version_text

# Seconds to wait for acks with --wait. Chosen: a decider acks a push within milliseconds and a
# polled document within seconds. A decider that is silent for longer must be looked into by itself.
WAIT_S = 5.0
# Seconds between two readings of the acks: short enough for a person who waits, and hardly any
# load.
LOOK_EVERY_S = 0.1
# What the command can do, each with its help text.
VERBS = {
    "engage": "engage the switch",
    "extend": "give an engaged switch another end",
    "clear": "clear the switch",
    "reconcile": "import the flips that were made while PostgreSQL was down",
}
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_LENGTH = re.compile(r"([0-9]{1,5})([mhd])")


class Command(BaseCommand):
    help = "Engages, extends or clears a kill switch."
    # an emergency tool must not wait for checks that it does not need
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        # optional, as --reconcile imports the flips of every switch
        parser.add_argument("name", nargs="?", help=f"the switch: {', '.join(switches.CATALOGUE)}")
        verb = parser.add_mutually_exclusive_group(required=True)
        for name, help_text in VERBS.items():
            verb.add_argument(
                f"--{name}", dest="verb", action="store_const", const=name, help=help_text
            )
        end = parser.add_mutually_exclusive_group()
        end.add_argument(
            "--for", dest="lasts", metavar="2h", help="end by itself after this time: 30m, 2h or 1d"
        )
        end.add_argument(
            "--until-cleared", action="store_true", help="stay engaged until someone clears it"
        )
        parser.add_argument("--reason", default="", help="what is wrong, and where to read more")
        parser.add_argument(
            "--by",
            default="",
            metavar="EMAIL",
            help="who decides the flip; default: the user who runs the command",
        )
        parser.add_argument(
            "--wait", action="store_true", help=f"wait up to {WAIT_S:.0f} s for every decider's ack"
        )
        parser.add_argument(
            "--file",
            nargs="*",
            metavar="PATH",
            help="also write the signed document to these files; default: var/nodes/*/switch.bin",
        )

    def handle(self, **options: Any) -> None:  # argparse gives its values no types
        try:
            if options["verb"] == "reconcile":
                self._reconcile()
            else:
                self._flip(**options)
        except ControlError as error:
            raise CommandError(str(error)) from error

    def _reconcile(self) -> None:
        try:
            said = offline.reconcile()
        except (OperationalError, InterfaceError) as error:
            raise CommandError(
                "PostgreSQL does not answer, so nothing was imported. The journal is kept: import"
                " it when PostgreSQL answers again."
            ) from error
        self.stdout.write("\n".join(said) or "The journal is empty: nothing to import.")

    def _flip(
        self,
        *,
        verb: switches.Verb,
        name: str | None,
        reason: str,
        by: str,
        wait: bool,
        **options: Any,
    ) -> None:
        if not name:
            raise CommandError(f"Name the switch: {', '.join(switches.CATALOGUE)}.")
        until = self._end(verb, options["lasts"], bool(options["until_cleared"]))
        kind = switches.kind(name)
        files = offline.node_files(list(options["file"])) if options["file"] is not None else None
        # always try PostgreSQL first: the flip goes offline only when PostgreSQL does not answer
        try:
            row = switches.flip(verb, name, by=self._actor(by), reason=reason, until=until)
        except NeedsSecondPerson as held:
            self._ask(held, by, reason)
            return
        except (OperationalError, InterfaceError):
            reached = offline.flip(
                verb, name, by=Actor.at_shell(by), reason=reason, until=until, files=files
            )
            self._say_journalled(reached)
            made, version = reached.made_at, reached.version
        else:
            made, version = row.made_at, row.version
            for path in files or []:
                offline.write_file(path, bytes(row.signed))
        self._say_done(verb, kind, until, version, files or [])
        self._say_acks(version, made, wait)

    def _ask(self, held: NeedsSecondPerson, by: str, reason: str) -> None:
        """Ask for what needs a second person, in the name of someone who may flip."""
        if (user := self._user(by)) is None:
            raise CommandError(f"{held} Say who asks for it: --by EMAIL.")
        made = requested.ask(held, by=user, reason=reason)
        self.stdout.write(
            f"{held} Asked for it: request {made.pk} on the page Approvals. Nothing has changed"
            f" yet; undecided, it ends {made.expires_at:%d %b %H:%M} UTC."
        )

    def _actor(self, by: str) -> Actor:
        if not by:
            return Actor.at_shell()
        # whoever is named answers for the flip, so it must be someone who may flip
        user = self._user(by)
        if user is None:
            raise CommandError(
                f"There is no user {by}. Leave out --by to act as the user who runs the command."
            )
        switches.check_may_flip(user)
        return Actor.of(user)

    def _user(self, by: str) -> User | None:
        named = User.objects.filter(email__iexact=by).first() if by else None
        return named or User.objects.filter(username=by).first()

    def _end(self, verb: switches.Verb, lasts: object, until_cleared: bool) -> datetime | None:
        if verb == "clear":
            return None
        if until_cleared:
            return None
        # no default: a forgotten switch should not stay engaged because an option was left out
        if not lasts:
            raise CommandError("Say when it ends: --for 2h, or --until-cleared.")
        if (match := _LENGTH.fullmatch(str(lasts))) is None or not int(match[1]):
            raise CommandError(f"“{lasts}” is not a length of time. Use for example 30m, 2h or 1d.")
        return timezone.now() + timedelta(**{UNITS[match[2]]: int(match[1])})

    def _say_done(
        self,
        verb: switches.Verb,
        kind: switches.SwitchKind,
        until: datetime | None,
        version: int,
        files: list[Path],
    ) -> None:
        done = {"engage": "engaged", "extend": "extended", "clear": "cleared"}[verb]
        end = (
            ""
            if verb == "clear"
            else f" until {until:%d %b %H:%M} UTC"
            if until
            else " until someone clears it"
        )
        self.stdout.write(
            f"“{kind.label}” is {done}{end}, config {version_text(version)}."
            f" {kind.cleared if verb == 'clear' else kind.consequence}"
        )
        for path in files:
            self.stdout.write(f"Wrote {path}.")

    def _say_journalled(self, reached: offline.Reached) -> None:
        self.stdout.write(
            f"PostgreSQL does not answer. The flip is journalled in {reached.journal.name} and is"
            " imported when PostgreSQL answers again."
        )

    def _say_acks(self, version: int, made: datetime, wait: bool) -> None:
        try:
            reached = self._wait_for_acks(version, made, wait)
        except StoreUnavailable as error:
            # the switch is flipped all the same, so the command has not failed
            self.stdout.write(
                f"{error} Acks come through Valkey, so they cannot be read now; deciders poll"
                " their switch file."
            )
            return
        self._say_nodes(reached)
        if not reached.total:
            self.stdout.write("No decider was heard of in the last hour.")
        elif reached.complete:
            self.stdout.write(f"All {reached.total} deciders acked.")
            if reached.ms is not None:
                after = f"{reached.ms:.0f} ms after the change"
                self.stdout.write(f"The last decision under the old state was {after}.")
        else:
            self.stdout.write(
                f"{reached.acked} of {reached.total} deciders acked so far. The page /switches"
                " shows the acks that are still to come."
            )

    def _wait_for_acks(self, version: int, made: datetime, wait: bool) -> acks.Propagation:
        """Return how far the flip has reached once all have acked or the time is up. Raise
        StoreUnavailable.
        """
        # without --wait still a second: a push takes milliseconds, so most acks come within it
        stop = time.monotonic() + (WAIT_S if wait else 1.0)
        while True:
            reached = acks.reach(version, made.timestamp(), True, time.time())
            if reached.complete or time.monotonic() >= stop:
                return reached
            time.sleep(LOOK_EVERY_S)

    def _say_nodes(self, reached: acks.Propagation) -> None:
        for node in reached.nodes:
            took = (
                f"last old decision after {node.ms:.0f} ms"
                if node.ms is not None
                else node.error or ""
            )
            self.stdout.write(f"  {node.region} {node.name}: {node.state.value} {took}".rstrip())
