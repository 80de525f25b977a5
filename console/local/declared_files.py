"""What the commands about `sluice.yaml` share: reading the file, whose token it is, an option."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

from django.core.management.base import CommandError, OutputWrapper

from control.config import requested
from control.config.gate import NeedsSecondPerson
from control.declared import yaml_text
from control.declared.yaml_text import DeclarationError
from control.errors import ControlError

if TYPE_CHECKING:
    from django.contrib.auth.models import User

TOKEN = "SLUICE_TOKEN"  # noqa: S105 - the name of a variable


def add_take(parser: ArgumentParser) -> None:
    """Add the option that says whose values win where the console changed a part of the file."""
    parser.add_argument(
        "--take",
        choices=("file", "console"),
        default=None,
        help="whose values hold where the console changed what the file owns since the last apply",
    )


def read(path: Path) -> str:
    """Return the text of a file. Raise CommandError with a sentence."""
    try:
        with path.open("rb") as file:
            # one byte more than is allowed, so that the length is told and no larger file is read
            return file.read(yaml_text.MOST_BYTES + 1).decode()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not text in UTF-8 (byte {error.start:,}).") from error


def told(path: Path, error: DeclarationError) -> CommandError:
    """Return a wrong file's faults as lines that editors can open."""
    lines = [f"{path}:{fault.line}:{fault.column}: {fault.says}" for fault in error.faults]
    return CommandError("\n".join(lines))


def owner_of_token() -> User:
    """Return the person whose API token SLUICE_TOKEN holds. Raise CommandError."""
    # here: the REST framework takes a second to import, which other commands need not wait for
    from rest_framework.exceptions import AuthenticationFailed

    from console.api.access import MachineToken

    token = os.environ.get(TOKEN, "")
    if not token:
        raise CommandError(
            f"Set {TOKEN} to an API token: the change is made by its owner. The page Tokens of the"
            " console makes one."
        )
    try:
        user, _ = MachineToken().authenticate_credentials(token.encode("utf-8", "replace"))
    except AuthenticationFailed as error:
        raise CommandError(f"{TOKEN} is no API token that is valid now.") from error
    return user


def ask(out: OutputWrapper, held: NeedsSecondPerson, user: User, reason: str, again: str) -> None:
    """Ask for what needs a second person, and say so. `again`: what to do once it was approved, a
    clause in the imperative. Raise CommandError.
    """
    try:
        made = requested.ask(held, by=user, reason=reason)
    except ControlError as error:
        raise CommandError(str(error)) from error
    out.write(
        f"{held} Asked for it: request {made.pk} on the page Approvals. Nothing has changed yet."
        f" {again} once it was approved."
    )
