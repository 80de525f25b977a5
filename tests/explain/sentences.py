"""Read a sentence back: each figure in it, with its unit, against what it must be.

A pattern is the sentence with {names} in place of figures, <names> in place of words and [parts]
that may be missing. A text that no pattern matches fails, so a figure that nobody can trace does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
SPAN = rf"{NUMBER} (?:ms|min|[smhd])\b(?: \d+ [smhd]\b)?"


class Truth(NamedTuple):
    """A figure of the record, and how a text may round it."""

    value: float
    how: str = "nearest"
    """nearest; exact: to four digits; close: to three; down, up: to the last digit, never the other
    way; unlike: nearest, and zero only where it is zero.
    """


Truths = Mapping[str, Truth]


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression. `{name:span}` is a length of time."""
    parts = re.split(r"(\{\w+(?::span)?\}|<\w+>|[\[\]])", pattern)
    return re.compile("".join(_part(part) for part in parts), re.DOTALL)


def _part(part: str) -> str:
    if part in ("[", "]"):
        return "(?:" if part == "[" else ")?"
    if part.startswith("{"):
        name, _, kind = part[1:-1].partition(":")
        return f"(?P<{name}>{SPAN if kind else NUMBER})"
    if part.startswith("<"):
        return r"[^\d]+?"
    return re.escape(part)


def agrees(shown: str, truth: Truth) -> bool:
    """Whether a figure as shown is the true one, rounded as it may be."""
    if re.search("[a-z]", shown):
        return _agrees_span(shown, truth)
    number = float(shown.replace(",", "").replace("−", "-"))
    step = 10.0 ** -len(shown.partition(".")[2])
    return _is_rounded(number, truth, step)


def _agrees_span(shown: str, truth: Truth) -> bool:
    number, unit = re.findall(rf"({NUMBER}) ([a-z]+)", shown)[-1]
    step = UNITS[unit] * 10.0 ** -len(number.partition(".")[2])
    return _is_rounded(as_seconds(shown), truth, step)


def _is_rounded(number: float, truth: Truth, step: float) -> bool:
    value, how = truth
    if not math.isfinite(value):
        return False
    # what float32 and decimal figures cannot tell apart
    least = 1e-6 * max(1.0, abs(value))
    if how in ("exact", "close"):
        return abs(number - value) <= (0.5e-3 if how == "exact" else 5e-3) * abs(value) + 1e-12
    if how == "down":
        return value - step < number <= value + 1e-12
    if how == "up":
        return value - 1e-9 <= number < value + step
    if how == "unlike" and (number == 0.0) != (value == 0.0):
        return False
    return abs(number - value) <= 0.5 * step + least


def read(patterns: Iterable[str], text: str) -> tuple[str, dict[str, str]]:
    """The pattern that a text is, and its figures as shown, by name. Fails where none is."""
    for pattern in patterns:
        if found := compile_pattern(pattern).fullmatch(text):
            return pattern, {name: shown for name, shown in found.groupdict().items() if shown}
    raise AssertionError(f"no sentence that this test can read: {text!r}")


def check(patterns: Iterable[str], text: str, truths: Truths) -> str:
    """Fail unless a text is one of the patterns and each of its figures is true. Return which."""
    pattern, figures = read(patterns, text)
    for name, shown in figures.items():
        # a second figure of one kind has a digit behind its name
        truth = truths[name.rstrip("0123456789")]
        assert agrees(shown, truth), (name, shown, truth, text)
    return pattern


def as_number(shown: str) -> float:
    return float(shown.replace(",", "").replace("−", "-"))


def as_seconds(shown: str) -> float:
    """Return the seconds of a length of time as it is shown."""
    parts = re.findall(rf"({NUMBER}) ([a-z]+)", shown)
    return sum(as_number(number) * UNITS[unit] for number, unit in parts)


def same_order(one: str, other: str, true_one: float, true_other: float) -> bool:
    """Whether two figures stand to each other as the true ones do."""
    if true_one == true_other:
        return as_number(one) == as_number(other)
    return (as_number(one) < as_number(other)) == (true_one < true_other) and as_number(
        one
    ) != as_number(other)
