"""The fast path for plain checks. A plain check is one whole head in one read, HTTP/1.1, without a
body, and shaped like one that came before.

A gateway writes all its checks alike: the same fields in the same order. Once the full parser has
accepted one of them, this module keeps its shape as a pattern. A check that matches a pattern needs
no parser: one match reads and checks all of it, at a third of the cost. What does not match is left
untouched to `connection`, which reads it in full. So this module may only ever say "not plain"; it
never answers and never refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from decider.contracts.normalise.paths import path_of
from decider.contracts.requests import CheckRequest
from decider.doors import guard as doors
from decider.doors.guard import Guard
from decider.http import check
from decider.http.identity import IdentityRule
from decider.http.source import NAMED, SourceRule
from decider.identity.credentials import Credentials

# Longest head, in bytes, that may be plain. Chosen: as much as `transport.HEAD_STEP` parses in one
# turn, so that the fast path holds up the other connections no longer than the parser would.
MOST = 8 * 1024
END = b"\r\n\r\n"
# Number of shapes that are kept; the latest ones are. Chosen: a decider has few gateways, and a
# check that matches none of eight has lost little time.
SHAPES = 8
# Shortest time between two new patterns, seconds. Making one takes about 1 ms, so clients that
# never look alike can take 1% of the time at most.
LEARN_EVERY_S = 0.1

# Fields that change how a request is read or answered, which only `connection` and `check` know how
# to do.
_UNUSUAL = frozenset(
    b"connection transfer-encoding upgrade expect x-sluice-answer"
    b" access-control-request-method".split()
)
# Visible ASCII without "?" and "#", which end a path; what of it is one, `path_of` says.
# Possessive, here and below: a match that fails must fail in linear time.
_PATH = r"/[!-\"$->@-~]*+"
_START = rf"(GET|POST|PUT|PATCH|DELETE|OPTIONS) /v1/check({_PATH})(?:\?[!-~]*+)? HTTP/1\.1\r\n"
# Patterns of the values with which a field is plain. Each accepts no more than `check` does, and a
# value means the same on both paths; else they would decide differently.
_VALUES = {
    "host": r"[!-~]++",
    "content-length": "0",
    "x-sluice-app": rf"(?P<app>{check.APP_PATTERN}+)",
    "x-sluice-service": "(?P<service>[!-~]*+)",
    "x-request-id": rf"(?P<request_id>[!-~]{{1,{check.MAX_REQUEST_ID}}}+)",
    "x-sluice-bytes": "(?P<payload>[0-9]{0,15}+)",
    "x-sluice-attempt": "(?P<attempt>[0-9]{1,6}+)",
    "x-sluice-secret": "(?P<secret>[!-~]*+)",
    "x-envoy-attempt-count": "(?P<tries>[0-9]{1,6}+)",
}
_ANY_VALUE = "[ -~]*+"
# The value of the header that holds the credential: behind a scheme, or alone.
_CREDENTIAL = rf"[!-~]++ (?P<token>(?! ){check.TOKEN_PATTERN}+)(?<! )"
_BARE_CREDENTIAL = rf"(?P<token>[!-~]{{1,{check.MAX_TOKEN}}}+)"
# The value of the header that names the client's address; what of it is one, `SourceRule` says.
_SOURCE = f"(?P<source>{_ANY_VALUE})"
_TEXTS = ("app", "token", "source", "request_id")

Reader = Callable[[str], CheckRequest | None]


class PlainReader:
    """The shapes that one server knows."""

    __slots__ = (
        "_guard",
        "_identity",
        "_learn_at",
        "_most_fields",
        "_needed",
        "_shapes",
        "_source",
    )

    def __init__(
        self,
        most_fields: int,
        source: SourceRule = NAMED,
        identity: IdentityRule = None,
        guard: Guard | None = None,
    ) -> None:
        """Read checks of which each must satisfy `guard`, where there is one."""
        self._most_fields = most_fields
        self._source, self._identity, self._guard = source, identity, guard
        names_app = "x-sluice-app" if identity is None else identity.header
        needed = (b"host", names_app.encode())
        self._needed = frozenset(needed if guard is None else (*needed, doors.HEADER))
        self._shapes: list[Reader] = []
        self._learn_at = 0.0

    def read(self, data: bytes) -> CheckRequest | None:
        """Return the check in `data`, which must begin at a request's first byte; None when it is
        not plain.
        """
        text = data.decode("latin-1")  # never fails; what is not ASCII matches no pattern
        for shape in self._shapes:
            if (request := shape(text)) is not None:
                # The shape that matched last comes first: a gateway's checks come in runs, so most
                # match at once.
                if shape is not self._shapes[0]:
                    self._shapes.remove(shape)
                    self._shapes.insert(0, shape)
                return request
        return None

    def learn(self, data: bytes, now: float) -> None:
        """Keep the shape of a check that the full parser has accepted as the only request in
        `data`; `now` in loop time.
        """
        if now < self._learn_at:
            return
        self._learn_at = now + LEARN_EVERY_S
        names = [line.partition(b":")[0] for line in data[: -len(END)].split(b"\r\n")[1:]]
        known = {name.lower() for name in names}
        if (
            len(known) == len(names) <= self._most_fields
            and known >= self._needed
            and known.isdisjoint(_UNUSUAL)
        ):
            shape = _reader(
                [name.decode("latin-1") for name in names],
                self._source,
                self._identity,
                self._guard,
            )
            # The check must match its own shape, or the shape would only cost time.
            if shape(data.decode("latin-1")) is not None:
                self._shapes = [shape, *self._shapes[: SHAPES - 1]]


def _pattern(names: list[str], source_header: str, identity: IdentityRule) -> re.Pattern[str]:
    values = _VALUES | {source_header: _SOURCE}
    values["authorization"] = _CREDENTIAL
    if identity is not None:
        if identity.header != "authorization":
            values |= {"authorization": _ANY_VALUE, identity.header: _BARE_CREDENTIAL}
        values["x-sluice-app"] = _ANY_VALUE  # whoever wrote it
    fields = "".join(
        rf"{re.escape(name)}: ?+{values.get(name.lower(), _ANY_VALUE)}\r\n" for name in names
    )
    return re.compile(rf"{_START}{fields}\r\n()", re.ASCII)


def _reader(
    names: list[str],
    source: SourceRule,
    identity: IdentityRule = None,
    guard: Guard | None = None,
) -> Reader:
    """Return a reader of checks whose header fields have exactly these names in this order."""
    pattern, to_source = _pattern(names, source.header, identity), source.read
    # The last group is empty: a field that the shape lacks reads as "" without a branch per check.
    group, nothing = pattern.groupindex, pattern.groups
    app, *texts = (group.get(name, nothing) for name in _TEXTS)
    order = (app, 1, 2, *texts)
    payload, attempt, tries, named, service = (
        group.get(name) for name in ("payload", "attempt", "tries", "source", "service")
    )
    match = pattern.fullmatch if guard is None else _guarded(pattern, guard)

    def read_texts(found: re.Match[str]) -> CheckRequest:
        request = CheckRequest(*cast(tuple[str, ...], found.group(*order)))  # type: ignore[arg-type]
        request.path = path_of(request.path)
        if named is not None:
            request.source = to_source(request.source)
        if service is not None:
            request.service = found[service]
        return request

    def read(text: str) -> CheckRequest | None:
        return None if (found := match(text)) is None else read_texts(found)

    def read_numbers(text: str) -> CheckRequest | None:
        if (found := match(text)) is None:
            return None
        request = read_texts(found)
        if payload is not None:
            request.payload_bytes = int(found[payload] or 0)
        if attempt is not None:
            request.attempt = int(found[attempt])
        elif tries is not None:
            request.attempt = max(0, int(found[tries]) - 1)
        return request

    plain = read if payload is attempt is tries is None else read_numbers
    return plain if identity is None else _known_only(plain, identity)


def _guarded(pattern: re.Pattern[str], guard: Guard) -> Callable[[str], re.Match[str] | None]:
    """Return a matcher of the same checks, but only of those that know the secret; what any other
    is told, `connection` says.
    """

    def match(text: str) -> re.Match[str] | None:
        found = pattern.fullmatch(text)
        if found is None or not guard.knows(found["secret"].encode()):
            return None
        return found

    return match


def _known_only(plain: Reader, identity: Credentials) -> Reader:
    """Return a reader of checks whose credential names its app at once; any other may have to be
    refused, which is not for the fast path.
    """

    def read(text: str) -> CheckRequest | None:
        if (request := plain(text)) is None or (app := identity.known(request.token)) is None:
            return None
        request.app = app
        return request

    return read
