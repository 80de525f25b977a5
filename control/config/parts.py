"""The difference between two config documents, part by part, and putting it into a third one.

A part is named by a JSON pointer (RFC 6901) whose steps are identities, not places: a service's
name, a tier's, an override's id. So a change of one part stays the same change, whatever others
changed beside it, and its digest is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct, structs

from control.errors import Refused
from decider.contracts import config as document
from decider.contracts.config import (
    Config,
    EndpointPolicy,
    ListEntry,
    Override,
    Service,
    Switch,
    TenantPolicy,
    in_force,
)
from decider.contracts.vocabulary import Tier

# A value as JSON has it; None where there is no such part.
Value = Any
# The last step of a part that is the order of a list.
ORDER = "#order"
# What each version has of its own; it is no change of what deciders do.
_OWN = frozenset({"version", "issued_at", "format"})


@dataclass(frozen=True, slots=True)
class Entries:
    """How a list of the document is compared: by the identity of its entries."""

    kind: type[Struct]
    key: Callable[[Any], str]
    deep: bool = False
    """Whether an entry that changed is compared field by field, or is one part."""
    ordered: bool = True
    """Whether deciders read the list in order."""


def _but_end(switch: Switch) -> str:
    """Return what a switch is apart from its end, whatever fields it has."""
    named = (getattr(switch, name) for name in switch.__struct_fields__ if name != "until")
    return " ".join(str(value) for value in named)


# By the name of the field that holds the list. A list that is not named here is one part.
_LISTS: dict[str, Entries] = {
    "services": Entries(Service, lambda s: s.name, deep=True),
    "endpoints": Entries(EndpointPolicy, lambda e: f"{e.method} {e.template}", deep=True),
    "switches": Entries(Switch, _but_end, ordered=False),
    "tenants": Entries(TenantPolicy, lambda t: t.tenant, ordered=False),
    "overrides": Entries(Override, lambda o: o.id),
    "lists": Entries(ListEntry, lambda e: f"{e.verdict} {e.kind} {e.subject}"),
}
# Lists whose entries end by themselves.
_ENDING = ("switches", "overrides", "lists")


class Overtaken(Refused):
    """A part is not any more what it was when a change was asked for."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part} was changed since this was asked for. Rebase the request.")
        self.part = part


@dataclass(frozen=True, slots=True)
class Difference:
    """One part that two documents do not have in common."""

    path: tuple[str, ...]
    before: Value
    after: Value

    @property
    def part(self) -> str:
        """The JSON pointer."""
        return pointer(self.path)


def pointer(path: Iterable[str]) -> str:
    """Return steps as a JSON pointer."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)


def steps(part: str) -> tuple[str, ...]:
    """Return the steps of a JSON pointer."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in part.split("/")[1:])


def differences(before: Config, after: Config, now: float) -> tuple[Difference, ...]:
    """Return what differs, sorted by part. Entries that have ended at `now` (unix seconds) are in
    neither document. Both documents are as `decode` returns them.
    """
    found = _walk((), living(before, now), living(after, now))
    return tuple(sorted(found, key=lambda d: d.path))


def living(config: Config, now: float) -> Config:
    """Return the document without entries that have ended at `now` (unix seconds)."""
    return structs.replace(
        config, **{name: in_force(getattr(config, name), now) for name in _ENDING}
    )


def decoded(config: Config) -> Config:
    """Return a document as deciders will read it. Raise Refused for one that they would not."""
    try:
        return document.decode(document.encode(config))
    except document.ConfigError as error:
        raise Refused(
            f"This change would make a config document that deciders refuse: {error}."
        ) from error


def payload(found: Sequence[Difference]) -> str:
    """Return differences as canonical JSON: a list of [part, before, after]."""
    return canonical([[d.part, d.before, d.after] for d in found])


def read_payload(text: str) -> tuple[Difference, ...]:
    """Return the differences of a payload that `payload` made."""
    return tuple(Difference(steps(part), was, becomes) for part, was, becomes in json.loads(text))


def canonical(value: Value) -> str:
    """Return JSON in the one form of which digests are made: ASCII, sorted keys, no spaces."""
    return json.dumps(
        value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def digest_of(text: str) -> str:
    """Return the SHA-256 of a canonical text, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def patch(config: Config, found: Iterable[Difference], now: float) -> Config:
    """Return the document with these differences. Raise Overtaken when a part is not what it was,
    Refused for a part that the document cannot have.
    """
    alive = living(config, now)
    try:
        made: Config = _patched_struct(alive, [(d.path, d) for d in found])
    except (msgspec.ValidationError, AttributeError, TypeError, ValueError) as error:
        raise Refused(f"This change does not fit the config document: {error}.") from error
    return made


def value_at(config: Config, path: tuple[str, ...], now: float) -> Value:
    """Return what a part is now; None where the document has no such part."""
    here: Any = living(config, now)
    for place, step in enumerate(path):
        name = path[place - 1] if place else ""
        if isinstance(here, list) and name not in _LISTS and name != "tiers":
            return None
        if isinstance(here, list) and step == ORDER:
            return _keys(name, here)
        if isinstance(here, list):
            here = next((e for key, e in _keyed(name, here) if key == step), None)
        else:
            here = getattr(here, step, None)
        if here is None:
            return None
    return plain(here)


def plain(value: Any) -> Value:
    """Return a value as JSON, without the fields that have their default: a field that a later
    version adds does not change what earlier digests were made of.
    """
    if isinstance(value, Struct):
        kind: type[Struct] = type(value)
        return {
            field.name: plain(own)
            for field in _fields(kind)
            if (own := getattr(value, field.name)) != _default(field)
        }
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


# cached: resolving the annotations of a struct takes far longer than comparing it
@cache
def _fields(kind: type[Struct]) -> tuple[structs.FieldInfo, ...]:
    return structs.fields(kind)


def _default(field: structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _walk(path: tuple[str, ...], before: Any, after: Any) -> Iterator[Difference]:
    """Yield the differences of two structs of one type."""
    for name in before.__struct_fields__:
        was, becomes = getattr(before, name), getattr(after, name)
        if was == becomes or (not path and name in _OWN):
            continue
        here = (*path, name)
        if name == "tiers" and len(was) == len(becomes):
            for tier, one, other in zip(Tier, was, becomes, strict=True):
                yield from _walk((*here, tier.word), one, other)
        elif name in _LISTS:
            yield from _walk_list(here, _LISTS[name], was, becomes)
        elif _is_walked(was) and _is_walked(becomes):
            yield from _walk(here, was, becomes)
        else:
            yield Difference(here, plain(was), plain(becomes))


def _is_walked(value: Any) -> bool:
    """Return whether a struct is compared field by field. A model's reference is one thing."""
    return isinstance(value, Struct) and not isinstance(value, document.ModelRef)


def _walk_list(
    path: tuple[str, ...], how: Entries, before: list[Any], after: list[Any]
) -> Iterator[Difference]:
    was, becomes = _keyed(path[-1], before), _keyed(path[-1], after)
    counts = [*Counter(k for k, _ in was).values(), *Counter(k for k, _ in becomes).values()]
    if any(count > 1 for count in counts):
        # two entries of one identity cannot be told apart, so the list is one part
        yield Difference(path, plain(before), plain(after))
        return
    old, new = dict(was), dict(becomes)
    for key in old.keys() | new.keys():
        one, other = old.get(key), new.get(key)
        if one == other:
            continue
        if how.deep and one is not None and other is not None:
            yield from _walk((*path, key), one, other)
        else:
            yield Difference((*path, key), *(None if e is None else plain(e) for e in (one, other)))
    kept = [key for key in old if key in new] + [key for key in new if key not in old]
    if how.ordered and kept != list(new):
        yield Difference((*path, ORDER), list(old), list(new))


def _keyed(name: str, entries: list[Any]) -> list[tuple[str, Any]]:
    if name == "tiers":
        return [(tier.word, entry) for tier, entry in zip(Tier, entries, strict=True)]
    return [(_LISTS[name].key(entry), entry) for entry in entries]


def _keys(name: str, entries: list[Any]) -> list[str]:
    return [key for key, _ in _keyed(name, entries)]


# What is still to be walked of a difference's path, and the difference.
_Step = tuple[tuple[str, ...], Difference]


def _by_head(todo: list[_Step]) -> dict[str, list[_Step]]:
    grouped: dict[str, list[_Step]] = {}
    for path, found in todo:
        grouped.setdefault(path[0], []).append((path[1:], found))
    return grouped


def _patched_struct(value: Any, todo: list[_Step]) -> Any:
    kind: type[Struct] = type(value)
    types = {field.name: field.type for field in _fields(kind)}
    made: dict[str, Any] = {}
    for name, rest in _by_head(todo).items():
        here = getattr(value, name)
        whole = [found for path, found in rest if not path]
        if whole:
            made[name] = _replaced(here, whole, types[name])
        elif name in _LISTS or name == "tiers":
            made[name] = _patched_list(name, here, rest)
        else:
            made[name] = _patched_struct(here, rest)
    return structs.replace(value, **made)


def _patched_list(name: str, entries: list[Any], todo: list[_Step]) -> list[Any]:
    kind = document.TierPolicy if name == "tiers" else _LISTS[name].kind
    here, order = dict(_keyed(name, entries)), None
    if len(here) != len(entries):
        raise Overtaken(todo[0][1].part)
    for key, rest in _by_head(todo).items():
        whole = [found for path, found in rest if not path]
        if key == ORDER:
            order = whole[0]
        elif not whole:
            here[key] = _patched_struct(here[key] if key in here else _gone(rest), rest)
        elif (entry := _replaced(here.get(key), whole, kind | None)) is None:
            del here[key]
        else:
            here[key] = entry
    if order is None:
        return list(here.values())
    if order.before != _keys(name, entries) or set(order.after) != here.keys():
        raise Overtaken(order.part)
    return [here[key] for key in order.after]


def _gone(rest: list[_Step]) -> Any:
    raise Overtaken(rest[0][1].part)


def _replaced(here: Any, whole: list[Difference], kind: Any) -> Any:
    """Return the new value of one part. Raise Overtaken, ValidationError."""
    (found,) = whole
    if plain(here) != found.before:
        raise Overtaken(found.part)
    return msgspec.convert(found.after, kind)
