"""Whatever bytes stand in a header or a body, no address of the console or its API answers 5xx: a
stranger must be able neither to fill the log with defects nor to find one.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from itertools import cycle
from urllib.parse import unquote_to_bytes

import pytest
from django.contrib.auth.models import Group
from django.core import signals
from django.db import close_old_connections, transaction
from django.test import Client
from rest_framework.throttling import SimpleRateThrottle

from console.wsgi import application
from control.audit import tokens
from control.models import App, Tenant
from decider.contracts.ids import format_decision_id
from tests.console.addresses import addresses
from tests.decisions.factory import event

APP = "app_7q2m4kx9"
HEADERS = (
    *("ACCEPT", "ACCEPT_ENCODING", "ACCEPT_LANGUAGE", "AUTHORIZATION", "COOKIE", "HOST", "ORIGIN"),
    *("IF_MODIFIED_SINCE", "IF_NONE_MATCH", "RANGE", "REFERER", "SLUICE_TICKET", "USER_AGENT"),
    *("HX_BOOSTED", "HX_CURRENT_URL", "HX_HISTORY_RESTORE_REQUEST", "HX_PROMPT", "HX_REQUEST"),
    *("HX_TARGET", "HX_TRIGGER", "HX_CURRENT_URL_URI_AUTOENCODED", "X_CSRFTOKEN"),
    *("X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_HTTP_METHOD_OVERRIDE"),
    *("X_REAL_IP", "X_REQUESTED_WITH"),
)
NAMES = ("CONTENT_TYPE", "CONTENT_LENGTH", *(f"HTTP_{name}" for name in HEADERS))
ODD = (
    "\xff",
    "Token \xff\xfe",
    "Token " + "a" * 8_000,
    "Token \x00",
    "\xed\xa0\x80, \xc0\xaf",
    "text/html; q*=nothing''%41",
    "application/json; charset=hex",
    "multipart/form-data; boundary=\xff",
    "application/x-www-form-urlencoded; charset=utf-16",
    'a="\\000"; sluice_session="\\000\\377"; sluice_csrf=\xff; messages="\\000"',
    ";,=\"'\\",
    "http://[",
    "-1",
    "9" * 5_000,
    "\x01\x1b[31m\x7f",
    "true",
)
"""Values of header fields, as WSGI has them: each character is a byte."""
BODIES = (
    ("application/json", b"\xff\xfe\x00{"),
    ("application/json", b"[" * 100_000),
    ("application/json", b'{"a":' * 50_000),
    ("application/json", b"9" * 10_000),
    ("application/json", b"NaN"),
    ("application/json", b'"\\ud800"'),
    ("application/json", b'[{"text": null}]'),
    ("application/x-www-form-urlencoded", b"q=%00&name=%00&value=%ff&text=%ED%A0%80&reason=%00"),
    ("application/x-www-form-urlencoded", b"q=\xff\xfe&next=http://[&ticket=%00&verdict=\xff"),
    ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % k for k in range(1_500))),
    ("multipart/form-data; boundary=b", b"\xff\xfe--b--"),
    (
        "multipart/form-data; boundary=b",
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=nothing''%41\r\n"
        b'\r\n\xff\x00\r\n--b\r\nContent-Disposition: form-data; name="reason"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n--b--\r\n",
    ),
)
TEXTS = (
    *("text", "name", "query", "reason", "key", "receipt", "claim", "ticket", "app", "note"),
    *("decision", "verdict", "kind", "occurred_at", "token", "request_id", "token_digest"),
)
"""Fields of bodies, each of which gets what no database keeps."""


class Caller:
    """A client below Django's own, which would make a request that no server makes."""

    def __init__(self, **headers: str) -> None:
        self.headers = headers
        self.failed: list[str] = []

    def ask(
        self, method: str, address: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str]]:
        """Return status and headers of an answer."""
        path, _, query = address.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **self.headers,
            **headers,
        }
        told: list[tuple[int, dict[str, str]]] = []

        def start(status: str, fields: list[tuple[str, str]], error: object = None) -> None:
            told.append((int(status[:3]), dict(fields)))

        # a statement that fails ends this request and no other; a durable block may be inside
        request = transaction.atomic()
        request._from_testcase = True  # type: ignore[attr-defined]
        with request:
            answer = application(environ, start)  # type: ignore[arg-type]
            try:
                b"".join(answer)
            finally:
                getattr(answer, "close", lambda: None)()
        return told[0]

    def expect_no_defect(self, method: str, address: str, body: bytes = b"", **odd: str) -> None:
        """Ask, and note what was wrong with the answer."""
        what = f"{method} {address} {odd or body[:60]!r}"[:300]
        try:
            status, fields = self.ask(method, address, body, **odd)
        # a defect before or below Django's own error handling, which a server answers with 500
        except Exception as error:  # noqa: BLE001
            self.failed.append(f"{what}: {error!r}")
            return
        if status >= 500:
            self.failed.append(f"{what}: {status}")
        kind = fields.get("Content-Type")
        if status >= 400 and address.startswith("/api/") and kind != "application/problem+json":
            self.failed.append(f"{what}: {status} is no problem document but {kind}")


@pytest.fixture(autouse=True)
def as_a_server_asks(monkeypatch, settings) -> Iterator[None]:
    # as Django's own test client does: the test's transaction must stay open
    for each in (signals.request_started, signals.request_finished):
        each.disconnect(close_old_connections)
    rates = dict.fromkeys(SimpleRateThrottle.THROTTLE_RATES, "1000000/min")
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", rates)
    settings.ALLOWED_HOSTS = ["localhost"]
    yield
    for each in (signals.request_started, signals.request_finished):
        each.connect(close_old_connections)


@pytest.fixture
def there(stored) -> list[str]:
    """All addresses, of an app and a decision that exist."""
    tenant = Tenant.objects.create(id="t", name="Tidewell")
    App.objects.create(id=APP, name="Order sync", tenant=tenant, tier=1)
    one = event(app=APP)
    stored([one])
    return addresses(decision_id=format_decision_id(one.id))


@pytest.fixture
def stranger(db) -> Caller:
    return Caller()


@pytest.fixture
def anyone(person, settings) -> Caller:
    """Someone with every role, by session and by token."""
    who, client = person("support"), Client()
    who.groups.set(Group.objects.all())
    client.force_login(who, backend="django.contrib.auth.backends.ModelBackend")
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    return Caller(
        HTTP_COOKIE=f"sluice_session={session}; sluice_csrf={'a' * 32}",
        HTTP_X_CSRFTOKEN="a" * 32,
        HTTP_AUTHORIZATION=f"Token {tokens.create(by=who, days=1, reason='a test')[1]}",
    )


def test_odd_bytes_in_a_header_are_never_a_defect(anyone: Caller, there: list[str]) -> None:
    values = cycle(ODD)
    for k, address in enumerate(there):
        for j, name in enumerate(NAMES):
            # each address meets each header, and each header each value at some address
            method = ("GET", "POST")[(k + j) % 2]
            anyone.expect_no_defect(method, address, **{name: next(values)})
        next(values)
    assert anyone.failed == []


@pytest.mark.parametrize("address", ["/", "/login", "/api/v1/decisions", "/api/v1/lookup"])
def test_a_stranger_finds_no_defect_with_any_header(stranger: Caller, address: str) -> None:
    for name in NAMES:
        for value in ODD:
            for method in ("GET", "POST"):
                stranger.expect_no_defect(method, address, **{name: value})
    assert stranger.failed == []


def test_odd_bytes_in_a_body_are_never_a_defect(anyone: Caller, there: list[str]) -> None:
    texts = ", ".join(f'"{name}": "\\ud800\\u0000"' for name in TEXTS)
    halves = ", ".join(f'"{name}": "x\\ud800"' for name in TEXTS)
    more = [("application/json", f"{{{text}}}".encode()) for text in (texts, halves)]
    for address in there:
        for kind, body in (*BODIES, *more):
            anyone.expect_no_defect("POST", address, body, CONTENT_TYPE=kind)
    assert anyone.failed == []


def test_odd_bytes_in_an_address_are_never_a_defect(anyone: Caller) -> None:
    odd = addresses(
        **dict.fromkeys(("app", "app_id", "name", "text", "token", "bucket"), "a\x00\ufffdb"),
        decision_id="\x00",
        number=2**70,
    )
    queries = ("%00=%00&q=%00&app=%00&model=%00&feature=%00&n=%00", "q=%ED%A0%80&range=%ff&as=%00")
    for address in (*addresses(), *odd):
        for query in queries:
            anyone.expect_no_defect("GET", f"{address}?{query}")
        for name in ("q", "app", "before", "after", "limit", "from", "show", "model", "page", "n"):
            anyone.expect_no_defect("GET", f"{address}?{name}=%00%FF")
    assert anyone.failed == []


def test_outcomes_with_half_a_character_are_refused(anyone: Caller, there: list[str]) -> None:
    body = (
        b'{"reason": "a test", "outcomes": [{"key": "k", "kind": "churn", "app": "a",'
        b' "occurred_at": "2026-01-14T09:30:00Z", "note": "\\ud800"}]}'
    )
    assert anyone.ask("POST", "/api/v1/outcomes", body, CONTENT_TYPE="application/json")[0] == 400


def test_an_unreadable_header_is_told_in_a_sentence(stranger: Caller) -> None:
    for name, value in (
        ("CONTENT_TYPE", "text/html; q*=nothing''%41"),
        ("HTTP_ACCEPT", "text/html; q*=nothing''%41"),
        ("CONTENT_TYPE", "application/json; charset=hex"),
        ("HTTP_COOKIE", 'a="\\000"'),
    ):
        for address in ("/login", "/api/v1/status"):
            assert stranger.ask("GET", address, **{name: value})[0] == 400
    assert stranger.ask("GET", "/api/v1/status", HTTP_AUTHORIZATION="Token \xff")[0] == 401
