"""The audit log as this room reaches it.

The log belongs to the control room, which this one does not know; the console, which knows both,
hands it in. Every write of a person in this room goes through it, in the transaction of the write;
without a log nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Json = dict[str, object] | None


class Person(Protocol):
    """Who is answerable for a write (`control.actors.Actor`)."""

    @property
    def name(self) -> str: ...

    @property
    def login(self) -> str: ...

    @property
    def role(self) -> str: ...


class Append(Protocol):
    """Writes one entry of the log, in the transaction that is open. Raises `errors.Refused`."""

    def __call__(
        self,
        *,
        by: Person,
        reason: str,
        action: str,
        subject: str,
        summary: str,
        before: Json = None,
        after: Json = None,
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class Journal:
    """What this room needs of the audit log."""

    lock: Callable[[], None]
    """Waits for the turn to write, inside a transaction and before reading what will be written."""
    check_reason: Callable[[str], str]
    """The reason without surrounding space. Raises `errors.Refused` when it says nothing or cannot
    be kept.
    """
    append: Append


_in_use: list[Journal] = []


def use(journal: Journal) -> None:
    """Says which log this process writes to."""
    _in_use[:] = [journal]


def journal() -> Journal:
    """The log. Raises RuntimeError in a process that was given none: an unaudited write is a
    defect.
    """
    if not _in_use:
        raise RuntimeError("no audit log was handed in: call decisions.audited.use first")
    return _in_use[0]
