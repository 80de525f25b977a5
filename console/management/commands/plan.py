"""`manage.py plan FILE`: shows what applying a `sluice.yaml` would change."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console.local import declared_files
from console.pages.declaration import effect
from control.declared import applying
from control.declared.planning import Plan, Take
from control.declared.yaml_text import DeclarationError
from control.errors import ControlError
from learning.logs.access_log import LogError
from learning.logs.playback import ReplayError

# Status with --check where something would change. Not 1, with which a command ends that failed,
# nor 2, with which argparse refuses its arguments.
DIFFERS = 3


class Command(BaseCommand):
    help = (
        "Shows what `apply` would change: the difference between a sluice.yaml and what is in"
        " force, and what it would have done in the last hour or, with --log, to an access log."
        " Parts that somebody changed in the console since the last apply are listed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        declared_files.add_take(parser)
        parser.add_argument(
            "--log",
            type=Path,
            metavar="LOG",
            help="show the effect on this access log (as `replay` reads it), not on the last hour",
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help=f"end with status {DIFFERS} where something would change",
        )

    def handle(
        self, *, file: Path, take: Take | None, log: Path | None, check: bool, **options: object
    ) -> None:
        try:
            planned = applying.plan(declared_files.read(file), take)
            lines = tell(planned.plan, take)
            if planned.after != planned.before:
                lines += ["", *_effect(planned, log)]
        except DeclarationError as error:
            raise declared_files.told(file, error) from error
        except (ControlError, LogError, ReplayError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write("\n".join(lines))
        if check and planned.plan.changes:
            raise SystemExit(DIFFERS)


def _effect(planned: applying.Planned, log: Path | None) -> Iterator[str]:
    if log is None:
        return effect.on_last_hour(planned, effect.preview_of(planned))
    return effect.on_log(planned, log, settings.SLUICE_REGION)


def tell(made: Plan, take: Take | None) -> list[str]:
    """Return a plan as lines for people."""
    signs = {"add": "+", "change": "~", "remove": "-"}
    lines: list[str] = []
    for change in made.changes:
        lines.append(f"{signs[change.verb]} {change.verb} {change.name}")
        lines += [f"    {line}" for line in change.lines()]
    lines += [
        f"  {' '.join(part)}: the file no longer names it, and it stays as it is"
        for part in made.released
    ]
    if made.conflicts and take is None:
        lines.append("Changed in the console since the last apply:")
        lines += [f"! {conflict.says()}." for conflict in made.conflicts]
        lines.append("Take the file's values or the console's: --take file or --take console.")
    counts = {verb: sum(c.verb == verb for c in made.changes) for verb in signs}
    if made.changes:
        lines.append(
            f"{counts['add']} to add, {counts['change']} to change, {counts['remove']} to remove."
        )
    else:
        lines.append("Nothing to change.")
    return lines
