"""No pattern takes more than linear time, whatever it is given: a client must not be able to hold a
program up with a text.

The test finds the patterns itself: those that modules, structs, models and addresses hold.
"""

from __future__ import annotations

import ast
import importlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, get_type_hints

import msgspec
import pytest
from django.apps import apps
from django.core.validators import RegexValidator
from django.urls import URLResolver, get_resolver

from console.pages.lookup import pasted_text
from decider.http import fast_path
from decisions.search import credentials
from learning.logs.formats import MAX_LINE
from tests.attack_texts import AnyPattern, Text, attacks
from tests.test_architecture import ROOMS, ROOT, modules

USUAL = 8_192
"""Longest text that a pattern is run on, where LONGEST names no other: the longest text that can be
pasted, and the longest check that is read by one pattern.
"""
LONGEST = {
    "learning.logs.": MAX_LINE,
    "decider.node.gateway_watch.": 65_536,
}
"""Longest text by the beginning of a pattern's name."""
OURS = {
    "console.local.gateway._MARKED": "reads the example that ships, when a machine starts",
    "decisions.store.partitions.existing": "reads names of our own tables",
    "decider.http.fast_path._pattern": "made of what was learnt; `learnt_patterns` tests it",
}
"""Patterns that see no text from outside, or are made anew, by the place where they are made."""
MOST_RATIO = 8.0
"""Most CPU time that a text of four times the length may take, in that of the text."""
TRIES = 6
"""Tries of a text, as a busy machine makes one several times as long."""
FLOOR_S = 0.002
"""CPU time below which times are noise: some hundred times what a linear match of the longest text
of usual length takes, and a tenth of a quadratic one.
"""
GIVE_UP_S = 5.0
"""CPU time after which a match is taken to have no end."""
SLOWEST = 4
"""Texts of each pattern that are run at twice and four times the length: those that took longest.
"""
METHODS = {"fullmatch", "match", "search", "sub", "split", "findall", "finditer"}
Run = Callable[[Text], object]


def _modules() -> dict[str, ModuleType]:
    """Every module of the rooms, by its name."""
    found = {}
    for room in ROOMS:
        for path, _ in modules(room):
            name = ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")
            if not name.endswith("__main__"):
                found[name] = importlib.import_module(name)
    return found


def _patterns_in(value: object, depth: int = 0) -> Iterator[tuple[AnyPattern, str]]:
    """Yield the patterns in a value, each with the method by which it is bound, if any."""
    if isinstance(value, re.Pattern):
        yield value, ""
    elif isinstance(owner := getattr(value, "__self__", None), re.Pattern):
        yield owner, value.__name__  # type: ignore[attr-defined]
    elif isinstance(value, (tuple, list, set, frozenset)) and depth < 3:
        for item in value:
            yield from _patterns_in(item, depth + 1)
    elif isinstance(value, dict) and depth < 3:
        yield from _patterns_in(tuple(value.values()), depth + 1)
    elif isinstance(value, type) and depth < 1:
        yield from _patterns_in(tuple(vars(value).values()), depth + 1)


def of_modules() -> Iterator[tuple[str, AnyPattern, set[str]]]:
    """Yield name, pattern and methods of each pattern that a module holds."""
    source = "\n".join((ROOT / path).read_text() for room in ROOMS for path, _ in modules(room))
    for module, holder in _modules().items():
        for name, value in vars(holder).items():
            if getattr(value, "__module__", module) != module and isinstance(value, type):
                continue
            for pattern, bound in _patterns_in(value):
                used = set(re.findall(rf"\b{re.escape(name)}\.(\w+)\(", source)) & METHODS
                yield f"{module}.{name}", pattern, {bound} if bound else used or {"search"}


def of_structs() -> Iterator[tuple[str, AnyPattern, set[str]]]:
    """Yield the patterns that texts of a message must match; msgspec searches for them."""
    for module, holder in _modules().items():
        for name, value in vars(holder).items():
            if not (isinstance(value, type) and issubclass(value, msgspec.Struct)):
                continue
            for field, hint in get_type_hints(value, include_extras=True).items():
                for meta in getattr(hint, "__metadata__", ()):
                    if getattr(meta, "pattern", None):
                        yield f"{module}.{name}.{field}", re.compile(meta.pattern), {"search"}


def of_models() -> Iterator[tuple[str, AnyPattern, set[str]]]:
    for model in apps.get_models():
        if model.__module__.partition(".")[0] not in ROOMS:
            continue
        for field in model._meta.get_fields():
            for validator in getattr(field, "validators", ()):
                if isinstance(validator, RegexValidator):
                    yield f"{model.__name__}.{field.name}", validator.regex, {"search"}


def of_addresses(resolver: URLResolver | None = None) -> Iterator[tuple[str, AnyPattern, set[str]]]:
    for one in (resolver or get_resolver()).url_patterns:
        yield f"the address {one.pattern}", one.pattern.regex, {"search"}
        if isinstance(one, URLResolver):
            yield from of_addresses(one)


def learnt_patterns() -> Iterator[tuple[str, AnyPattern, set[str]]]:
    """Yield what the fast path learns of a gateway that sends every field it knows."""
    names = [*fast_path._VALUES, "authorization", "x-sluice-source", "accept"]
    pattern = fast_path._pattern(names, "x-sluice-source", None)
    yield "decider.http.fast_path._pattern", pattern, {"fullmatch"}


def found() -> dict[tuple[str, str], tuple[AnyPattern, set[str]]]:
    every = (of_modules, of_structs, of_models, of_addresses, learnt_patterns)
    return {
        (name, str(pattern.pattern)): (pattern, methods)
        for source in every
        for name, pattern, methods in source()
        if name not in OURS or source is learnt_patterns
    }


@contextmanager
def ending() -> Iterator[None]:
    """End a match that takes GIVE_UP_S of CPU time; `re` looks for signals while it matches."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, GIVE_UP_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _run_of(pattern: AnyPattern, method: str) -> Run:
    if method == "sub":
        anyone: Any = pattern
        return lambda text: anyone.sub(text[:0], text)
    if method == "finditer":
        return lambda text: list(pattern.finditer(text))  # type: ignore[arg-type]
    run: Run = getattr(pattern, method)
    return run


def cpu_s(run: Run, text: Text) -> float:
    """Return the CPU time of one run, seconds."""
    begun = time.thread_time()
    run(text)
    return time.thread_time() - begun


def slow(pattern: AnyPattern, method: str, longest: int) -> str:
    """Return which text a pattern is slow on; "" when it takes linear time on all."""
    run = _run_of(pattern, method)
    by_length = [attacks(pattern, longest * times) for times in (1, 2, 4)]
    try:
        with ending():
            once = [(cpu_s(run, text), k) for k, text in enumerate(by_length[0])]
            chosen = {k for _, k in sorted(once)[-SLOWEST:]}
            for k, (twice, four) in enumerate(zip(*by_length[1:], strict=True)):
                most = MOST_RATIO * max(once[k][0], FLOOR_S)
                # one try within it is enough: the others tell what another program's turns cost
                if k in chosen and any(
                    all(cpu_s(run, text) > most for _ in range(TRIES)) for text in (twice, four)
                ):
                    return repr(four[:80])
    except TimeoutError:
        return "a text on which it did not end"
    return ""


def test_every_pattern_takes_linear_time_on_the_longest_texts_it_can_get() -> None:
    bad = {}
    for (name, text), (pattern, methods) in found().items():
        longest = next((n for start, n in LONGEST.items() if name.startswith(start)), USUAL)
        for method in methods:
            if told := slow(pattern, method, longest):
                bad[f"{name}.{method} {text}"] = told
    assert bad == {}


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        # nested, overlapping, and one that begins anywhere
        (r"(?:a+)+b", "fullmatch"),
        (r"[\w-]*(?:api|access)[\w-]*(?:key|token):", "fullmatch"),
        (r"key_(?=[\w-]*(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{8})[\w-]+", "fullmatch"),
        (r"\s+$", "search"),
        (rb"x.*y.*z", "search"),
    ],
)
def test_a_slow_pattern_would_be_found(pattern: str, method: str) -> None:
    assert slow(re.compile(pattern), method, USUAL // 4) != ""


def _made() -> Iterator[tuple[str, ast.Call, bool]]:
    """Yield where `re` is called: the place's name, the call, and whether a module holds it."""
    for room in ROOMS:
        for path, tree in modules(room):
            module = ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")
            inside = {
                id(node): function.name
                for function in ast.walk(tree)
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
                for node in ast.walk(function)
            }
            for node in ast.walk(tree):
                called = node.func if isinstance(node, ast.Call) else None
                if (
                    isinstance(called, ast.Attribute)
                    and isinstance(called.value, ast.Name)
                    and called.value.id == "re"
                    and called.attr not in ("escape",)
                ):
                    place = inside.get(id(node), "")
                    yield f"{module}.{place}".rstrip("."), node, not place


def test_every_pattern_is_held_by_a_module_where_the_test_finds_it() -> None:
    hidden = [place for place, _, held in _made() if not held and place not in OURS]
    assert hidden == []
    names = [
        alias.name
        for room in ROOMS
        for _, tree in modules(room)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "re"
        for alias in node.names
    ]
    assert names == []


def test_as_many_patterns_are_found_as_are_made() -> None:
    made = {place for place, _, held in _made() if held}
    known = {name for name, _ in found()} | OURS.keys()
    assert {place for place in made if not any(n.startswith(f"{place}.") for n in known)} == set()
    assert len(known) > 60


def test_each_exception_is_still_there() -> None:
    holders = {name for name, _, _ in of_modules()}
    assert {name for name in OURS if name not in holders} <= {place for place, _, _ in _made()}


def test_a_pasted_text_of_any_length_is_read_in_linear_time() -> None:
    for part in ("apikey", "access-", "sluice-receipt ", "dec_", "a:", "key_a", "a1", "x://"):
        short, long = part * 3_000, part * 12_000
        for read in (pasted_text.meant, credentials.has_shape, credentials.looks_secret):
            most = MOST_RATIO * max(cpu_s(read, short), FLOOR_S)  # type: ignore[arg-type]
            assert cpu_s(read, long) <= most, part  # type: ignore[arg-type]
