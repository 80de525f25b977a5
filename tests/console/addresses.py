"""Every address of the console and its API, with values for the parts that vary."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.urls import URLPattern, URLResolver, get_resolver, reverse

VALUES = {
    "decision_id": "dec_019a2b3c4d5e7f008000000000000000",
    "app": "app_7q2m4kx9",
    "app_id": "app_7q2m4kx9",
    "bucket": "burst",
    "number": 1,
    "token": "0" * 8,
}
"""What stands in an address for a part of this name; any other part is a word."""


def patterns(resolver: URLResolver | None = None) -> Iterator[URLPattern]:
    for one in (resolver or get_resolver()).url_patterns:
        if isinstance(one, URLResolver):
            yield from patterns(one)
        else:
            yield one


def addresses(**values: object) -> list[str]:
    """Return every address, that of signing out last. `values` stand where a part can be so."""
    found = []
    for one in sorted(patterns(), key=lambda one: one.name == "logout"):
        given = {}
        for name, converter in one.pattern.converters.items():
            usual = VALUES.get(name, "word")
            fits = re.fullmatch(converter.regex, str(values.get(name, "")), re.DOTALL)
            given[name] = values[name] if fits else usual
        found.append(reverse(one.name, kwargs=given))
    return found
