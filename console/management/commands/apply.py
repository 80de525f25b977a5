"""`manage.py apply FILE`: makes an installation what a `sluice.yaml` says."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from console.frame import permissions
from console.local import declared_files
from console.management.commands.plan import tell
from control.audit.actors import Actor
from control.config.gate import NeedsSecondPerson
from control.declared import applying
from control.declared.planning import Take
from control.declared.yaml_text import DeclarationError
from control.errors import ControlError

PERMISSION = "control.apply_declaration"


class Command(BaseCommand):
    help = (
        "Makes the installation what a sluice.yaml says, as the owner of the API token in"
        f" {declared_files.TOKEN}. What somebody changed in the console since the last apply stops"
        " it until --take says whose values hold."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        declared_files.add_take(parser)
        parser.add_argument("--reason", required=True, help="why, and where to read more")

    def handle(self, *, file: Path, take: Take | None, reason: str, **options: object) -> None:
        text, user = declared_files.read(file), declared_files.owner_of_token()
        if not user.has_perm(PERMISSION):
            raise CommandError(f"{user} may not apply a file. {permissions.refusal(PERMISSION)}")
        try:
            done = applying.apply(text, by=Actor.of(user), reason=reason, take=take)
        except DeclarationError as error:
            raise declared_files.told(file, error) from error
        except NeedsSecondPerson as held:
            declared_files.ask(self.stdout, held, user, reason, "Apply the file again")
            return
        except ControlError as error:
            raise CommandError(str(error)) from error
        self.stdout.write("\n".join(tell(done.plan, take)))
        if done.version is not None:
            self.stdout.write(f"Applied as {done.version}.")
        elif done.plan.changes:
            self.stdout.write("Applied; deciders had nothing new to be told.")
