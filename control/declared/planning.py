"""What a file would change: its parts against those in force and those last applied.

A file owns what it names. What somebody changed in the console since the last apply is a conflict,
which `apply` resolves only as it is told: by the file's value or by the console's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Struct

from control.declared import export, yaml_text
from control.declared.parts import LASTING, Part, Parts

Take = Literal["file", "console"]

_KINDS = {
    "gateways": "gateway",
    "services": "service",
    "tiers": "tier",
    "tenants": "tenant",
    "unknown_apps": "unknown apps",
    "sampling": "sampling",
    "retention": "retention",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One part that a file would change."""

    part: Part
    before: Struct | None
    """None: the part is new."""
    after: Struct | None
    """None: the part goes."""

    @property
    def verb(self) -> Literal["add", "change", "remove"]:
        """Return what happens to the part."""
        return "add" if self.before is None else "remove" if self.after is None else "change"

    @property
    def name(self) -> str:
        """Return what people call the part: "service orders"."""
        return name_of(self.part)

    def lines(self) -> list[str]:
        """Return what changes within the part, a line each: "capacity: 400, becomes 300"."""
        if self.part[0] == "lists" or self.after is None:
            return []
        before = export.plain(self.before) or {}
        return list(_differences(before, export.plain(self.after)))


@dataclass(frozen=True, slots=True)
class Conflict:
    """A part that was changed in the console since the last apply."""

    part: Part
    applied: Struct | None
    """As the last apply left it; None: it was not there."""
    now: Struct | None
    """As it is in force; None: it was removed."""
    wanted: Struct | None
    """As the file has it; None: the file does not name it any more."""

    def says(self) -> str:
        """Return the conflict in a sentence."""
        if self.now is None:
            did = "was removed in the console"
        elif self.applied is None:
            did = "was added in the console"
        else:
            before, now = export.plain(self.applied), export.plain(self.now)
            lines = _differences(before, now, verb="now")
            did = f"was changed in the console ({'; '.join(lines)})"
        wants = "no longer names it" if self.wanted is None else "has another value"
        return f"{name_of(self.part)} {did}; the file {wants}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying a file would do."""

    changes: tuple[Change, ...]
    """With conflicts resolved as asked; without an answer, as if the file's values were taken."""
    conflicts: tuple[Conflict, ...]
    released: tuple[Part, ...]
    """Parts that the file no longer names and that stay as they are."""
    effective: Parts
    """What the file owns afterwards, with the values that will be in force."""

    @property
    def gone(self) -> list[Part]:
        """Return the parts that are removed."""
        return [change.part for change in self.changes if change.after is None]


def make_plan(named: Parts, present: Parts, last: Parts, take: Take | None) -> Plan:
    """Return what applying a file does.

    `named`: the file's parts. `present`: those in force. `last`: those that the last apply left
    in force, empty before the first one.
    """
    changes: list[Change] = []
    conflicts: list[Conflict] = []
    released: list[Part] = []
    effective: Parts = {}
    for part in [*named, *(part for part in last if part not in named)]:
        now, wanted = present.get(part), named.get(part)
        if wanted is None and (part[0] in LASTING or now is None):
            if now is not None:
                released.append(part)
            continue
        overtaken = part in last and last[part] != now and now != wanted
        if overtaken:
            conflicts.append(Conflict(part, last[part], now, wanted))
        if overtaken and take == "console":
            if now is not None:
                effective[part] = now
            continue
        if wanted is not None:
            effective[part] = wanted
        if now != wanted:
            changes.append(Change(part, now, wanted))
    return Plan(tuple(changes), tuple(conflicts), tuple(released), effective)


def name_of(part: Part) -> str:
    """Return what people call a part: "service orders", "block list: app app_1"."""
    if part[0] == "lists":
        return f"{part[1]} list: {part[2]} {part[3]}"
    return " ".join((_KINDS[part[0]], *part[1:]))


def _differences(
    before: object, after: object, path: str = "", verb: str = "becomes"
) -> Iterator[str]:
    """Yield each leaf that differs between two plain values, as a clause."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}, {key}" if path else str(key)
            yield from _differences(before.get(key), after.get(key), inner, verb)
        return
    if before == after:
        return
    name = f"{path}: " if path else ""
    if before is None:
        yield f"{name}{_shown(after)}"
    elif after is None:
        yield f"{name}{_shown(before)}, {verb} the default"
    else:
        yield f"{name}{_shown(before)}, {verb} {_shown(after)}"


def _shown(value: object) -> str:
    """Return a plain value in a line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "defaults"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value) or "none"
    return yaml_text.inline(value)


def encode_parts(parts: Parts) -> list[list[object]]:
    """Return parts as JSON values: names and plain values, in order."""
    return [[list(part), msgspec.to_builtins(value)] for part, value in parts.items()]
