"""YAML read strictly: values with the line and column of each, and no guesses.

YAML readers disagree about what `no`, `on`, `1e3` or `012` mean. Here such a word is a fault that
says what to write instead. Anchors, aliases, tags, repeated keys and several documents are faults
as well: none of them makes a declaration clearer, and aliases can grow a small file without bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

# Bytes of a file. Chosen: a thousand services with twenty endpoints each take half.
MOST_BYTES = 2_000_000
# Levels of nesting. Chosen: twice what the form has.
MOST_DEPTH = 16
# Faults that one reading tells. Chosen: a person mends a screen of them before reading again.
MOST_FAULTS = 20

Path = tuple[str | int, ...]

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,40})?", re.ASCII)
# What some YAML reader takes for something else than text: truth values and null of YAML 1.1, other
# spellings of numbers, dates and times in base 60.
_TRUE = frozenset({"y", "yes", "on"})
_FALSE = frozenset({"n", "no", "off"})
_NULL = frozenset({"", "~", "null"})
_OTHER_NUMBER = re.compile(
    r"[-+]?(?:\.?[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?|0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+"
    r"|\.inf|[0-9][0-9_]*(?::[0-5]?[0-9]){1,4}(?:\.[0-9_]*)?)|\.nan",
    re.ASCII | re.IGNORECASE,
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong at a place of a file, and what would be right."""

    line: int
    """From 1, as editors count."""
    column: int
    """From 1."""
    says: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.says}"


class DeclarationError(Exception):
    """A file that cannot be used. `faults`: what is wrong and where, in the order of the file."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = sorted(faults)[:MOST_FAULTS]
        more = len(faults) - len(self.faults)
        lines = [str(fault) for fault in self.faults] + ([f"and {more} more"] if more else [])
        super().__init__("\n".join(lines))


@dataclass(slots=True)
class Text:
    """The values of a file, and where each stands."""

    value: Any = None
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column, from 1, by path: of a plain value or an item, else of the key."""
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """The same of keys alone."""

    def place(self, path: Path) -> tuple[int, int]:
        """Return line and column of a path, or of the nearest part around it that there is."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))

    def key_place(self, path: Path) -> tuple[int, int]:
        """Return line and column of a key, or of the nearest part around it that there is."""
        return self.keys.get(path) or self.place(path[:-1])


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    path: Path
    value: dict[str, Any] | list[Any]
    key: str | None = None


def read(text: str) -> Text:
    """Return the values of a YAML text. Raise DeclarationError."""
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise DeclarationError([Fault(1, 1, f"the file has more than {MOST_BYTES:,} bytes")])
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = error.problem or error.context or "it cannot be read"
        reader.faults.append(Fault(*at, f"this is not YAML: {said}"))
    except yaml.YAMLError as error:
        reader.faults.append(Fault(1, 1, f"this is not YAML: {error}".splitlines()[0]))
    if reader.faults:
        raise DeclarationError(reader.faults)
    return reader.text


class _Reader:
    """Builds values out of the parser's events, without recursion."""

    def __init__(self) -> None:
        self.text = Text()
        self.faults: list[Fault] = []
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Take in the next event. Raise DeclarationError where reading on makes no sense."""
        mark = event.start_mark
        at = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(at, "a second document begins here: keep one in a file")
        elif isinstance(event, yaml.AliasEvent):
            self._stop(at, f"`*{event.anchor}` repeats another part: write the part out")
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._check_plain(event, at)
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, at)
            else:
                self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], at)

    def _stop(self, at: tuple[int, int], says: str) -> None:
        raise DeclarationError([*self.faults, Fault(*at, says)])

    def _check_plain(self, event: yaml.NodeEvent, at: tuple[int, int]) -> None:
        if event.anchor:
            self._stop(at, f"`&{event.anchor}` names a part for later: write parts out instead")
        # "!" alone marks a quoted text
        if (tag := getattr(event, "tag", None)) and tag != "!":
            self._stop(at, f"`{tag}` gives a type: leave it out")

    def _begin(self, value: dict[str, Any] | list[Any], at: tuple[int, int]) -> None:
        holder = self._open[-1] if self._open else None
        if holder and isinstance(holder.value, dict) and holder.key is None:
            self._stop(at, "a key must be a word, not a list or mapping")
        if len(self._open) >= MOST_DEPTH:
            self._stop(at, f"this is nested more than {MOST_DEPTH} levels deep")
        self._open.append(_Open(self._put(value, at), value))

    def _scalar(self, event: yaml.ScalarEvent, at: tuple[int, int]) -> None:
        holder = self._open[-1] if self._open else None
        if holder and isinstance(holder.value, dict) and holder.key is None:
            self._key(holder, event.value, at)
            return
        # the parser in C gives a plain word the style ""
        plain = event.implicit[0] and not event.style
        self._put(self._meaning(event.value, at) if plain else event.value, at)

    def _key(self, holder: _Open, key: str, at: tuple[int, int]) -> None:
        assert isinstance(holder.value, dict)
        if key in holder.value:
            line = self.text.keys[(*holder.path, key)][0]
            self.faults.append(Fault(*at, f"`{key}` stands here again, after line {line}"))
        holder.key = key
        self.text.keys[(*holder.path, key)] = self.text.places[(*holder.path, key)] = at

    def _put(self, value: Any, at: tuple[int, int]) -> Path:
        """Store a value where it belongs, and return its path."""
        if not self._open:
            self.text.value = value
            return ()
        holder = self._open[-1]
        if isinstance(holder.value, list):
            path: Path = (*holder.path, len(holder.value))
            holder.value.append(value)
            self.text.places[path] = at
            return path
        assert holder.key is not None
        path = (*holder.path, holder.key)
        holder.value[holder.key] = value
        holder.key = None
        if not isinstance(value, dict | list):
            self.text.places[path] = at
        return path

    def _meaning(self, word: str, at: tuple[int, int]) -> Any:
        """Return the value of an unquoted word. Note a fault for one that is not clear."""
        if word in {"true", "false"}:
            return word == "true"
        if _NUMBER.fullmatch(word):
            return float(word) if "." in word else int(word)
        if doubt := doubt_about(word):
            self.faults.append(Fault(*at, doubt))
        return word


def doubt_about(word: str) -> str:
    """Return why an unquoted word is not clear and what to write; "" for one that is clear."""
    low = word.lower()
    if low in _NULL:
        return "there is no value here: write one, or leave the key out"
    quoted = f'"{word}"'
    if low in _TRUE or low in _FALSE or low in {"true", "false"}:
        truth = "true" if low in _TRUE or low == "true" else "false"
        return f"`{word}` is true or false to some readers: write {truth}, or {quoted} for the text"
    # length first: the pattern below is linear, and no number is this long
    if len(word) <= 64 and _OTHER_NUMBER.fullmatch(word):
        return (
            f"`{word}` is a number to some readers and text to others: write it in digits, such as"
            f" 1000 or 0.5, or {quoted} for the text"
        )
    if len(word) <= 64 and _DATE.fullmatch(word):
        return f"`{word}` is a date to some readers: write {quoted} for the text"
    return ""


def write(value: Any, indent: int = 0) -> Iterator[str]:
    """Yield the lines of YAML that `read` reads as the same value: mappings and lists in blocks,
    short lists of plain values in a line. `value`: mappings with text keys, lists, texts, numbers,
    truth values.
    """
    lead = "  " * indent
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entry(f"{lead}{_word(key)}:", item, indent)
    else:
        for item in value:
            lines = list(write(item, indent + 1)) if _is_block(item) else []
            # the first line of a block begins behind the dash
            yield f"{lead}- {lines[0].lstrip()}" if lines else f"{lead}- {inline(item)}"
            yield from lines[1:]


def _entry(head: str, item: Any, indent: int) -> Iterator[str]:
    if _is_block(item):
        yield head
        yield from write(item, indent + 1)
    else:
        yield f"{head} {inline(item)}"


# Characters of a list that stands in one line. Chosen: with its key it stays below a hundred.
_LINE = 60


def _is_block(item: Any) -> bool:
    if isinstance(item, dict):
        return bool(item)
    if not isinstance(item, list):
        return False
    return any(isinstance(one, dict | list) for one in item) or len(inline(item)) > _LINE


def inline(item: Any, within: str = "") -> str:
    """Return a plain value as it stands in a line of YAML."""
    if isinstance(item, dict):
        return "{}"
    if isinstance(item, list):
        # within brackets, these signs would end an unquoted text
        return f"[{', '.join(inline(one, within='{}[],') for one in item)}]"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int | float):
        return number_text(item)
    return _word(item, within)


def number_text(value: float) -> str:
    """Return a number in digits alone, without an exponent: 400, 0.85, 0.00002."""
    if float(value).is_integer():
        return str(int(value))
    # the shortest form that reads back as the same number, written out
    return format(Decimal(repr(float(value))), "f")


_PLAIN = re.compile(r"[A-Za-z_/][\w./{}+-]*(?: [\w./{}+-]+)*", re.ASCII)


def _word(text: str, within: str = "") -> str:
    """Return a text unquoted where every reader takes it for the same text, else in quotes. A text
    with a sign of `within` is quoted.
    """
    if _PLAIN.fullmatch(text) and not set(text) & set(within) and not doubt_about(text):
        return text
    escaped = "".join(
        {'"': '\\"', "\\": "\\\\"}.get(c, c) if c.isprintable() else f"\\U{ord(c):08x}"
        for c in text
    )
    return f'"{escaped}"'
