"""A small HTTP/1.1 client for many short requests: it keeps connections alive, follows no redirects
and throws bodies away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from decider.contracts.requests import CheckRequest
from learning.traffic.tokens import Signer

# Bodies are filler, because only their size is a feature. 64 KiB is the largest body sent.
FILLER = b"x" * 65_536
# Statuses whose header fields and body are kept: they hold what a refused client is told.
KEPT_STATUSES = (429, 503)


class GatewayError(Exception):
    """The gateway did not answer: it closed the connection, was too late, or did not speak HTTP."""


class GatewayUnreachable(GatewayError):
    """No connection could be made at all."""


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """One answer of a gateway."""

    status: int
    retry_after: float
    """Seconds, 0 when the answer had none."""
    decision: str
    """Decision id as in the header; may be empty."""
    fields: dict[str, str] = field(default_factory=dict)
    """All header fields of a 429 or 503, names in lower case; empty for other statuses."""
    body: bytes = b""
    """Body of a 429 or 503."""


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[GatewayAnswer] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._forget()
        self._bodiless = False
        self.open = False

    def _forget(self) -> None:
        self._retry_after, self._decision = 0.0, ""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._fail("the gateway closed the connection")

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.close()
            self._fail(f"the gateway's answer is not HTTP: {error}")

    def on_message_begin(self) -> None:
        self._forget()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))
        match name.lower():
            # The header may also hold a date; the gateway never sends one.
            case b"retry-after" if value.isdigit():
                self._retry_after = float(value)
            case b"sluice-decision":
                self._decision = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Complete the answer to a HEAD request and close the connection."""
        # This answer may announce a body that never comes, and the parser would wait for that body.
        # So the connection is not used again.
        if self._bodiless:
            self.close()
            self._done()

    def on_body(self, data: bytes) -> None:
        if self._parser.get_status_code() in KEPT_STATUSES:
            self._body += data

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        self._done()

    def _done(self) -> None:
        status, fields = self._parser.get_status_code(), {}
        if status in KEPT_STATUSES:
            fields = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in self._fields}
        answer = GatewayAnswer(status, self._retry_after, self._decision, fields, self._body)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def ask(self, data: bytes, bodiless: bool = False) -> asyncio.Future[GatewayAnswer]:
        if self._transport is None or not self.open:
            raise GatewayError("the gateway closed the connection")
        self._answer, self._bodiless = asyncio.get_running_loop().create_future(), bodiless
        self._transport.write(data)
        return self._answer

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(GatewayError(why))


class GatewayClient:
    """Connections to one gateway, at most `most` at once; more requests wait for a free one.

    `url` is http://host:port; raises ValueError for anything else. `timeout_s` is how long to wait
    for an answer. With a `signer`, each request carries a signed token that names its app; without
    one it names the app in x-sluice-app, which only a gateway that trusts its clients reads.
    """

    def __init__(
        self, url: str, most: int = 128, timeout_s: float = 20.0, signer: Signer | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(
                f"{url!r} is not a gateway's address, which is like http://127.0.0.1:8080"
            )
        self._host, self._port, self._timeout = parts.hostname, parts.port or 80, timeout_s
        self._idle: deque[_Connection] = deque()
        self._room = asyncio.Semaphore(most)
        self._authority = parts.netloc.encode("ascii")
        self._signer = signer

    async def send(self, request: CheckRequest, query: str = "") -> GatewayAnswer:
        """Send one request and wait for its answer.

        Raises GatewayUnreachable when no connection can be made, and GatewayError when the gateway
        does not answer in time or not in HTTP.
        """
        async with self._room:
            connection = await self._connection()
            try:
                asked = connection.ask(self._encode(request, query), request.method == "HEAD")
                answer = await asyncio.wait_for(asked, self._timeout)
            # After both errors the answer may still arrive, and the next request on this connection
            # would take it for its own.
            except TimeoutError:
                connection.close()
                raise GatewayError(f"no answer within {self._timeout:.0f} s") from None
            except asyncio.CancelledError:
                connection.close()
                raise
            if connection.open:
                self._idle.append(connection)
            return answer

    async def _connection(self) -> _Connection:
        # The connection used last, so that the gateway can close the others when load falls.
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self._host, self._port
            )
        except OSError as error:
            raise GatewayUnreachable(
                f"cannot connect to {self._host}:{self._port}: {error.strerror or error}"
            ) from error
        return connection

    def _encode(self, request: CheckRequest, query: str) -> bytes:
        target = f"{request.path}?{query}" if query else request.path
        token, named = request.token, f"x-sluice-app: {request.app}\r\n"
        if self._signer is not None:
            token, named = self._signer.token(request.app, request.token), ""
        lines = [
            f"{request.method} {target} HTTP/1.1\r\n{named}",
            f"x-request-id: {request.request_id}\r\n",
            f"authorization: Bearer {token}\r\n" if token else "",
            f"x-forwarded-for: {request.source}\r\n" if request.source else "",
            f"x-sluice-attempt: {request.attempt}\r\n" if request.attempt else "",
            f"content-length: {request.payload_bytes}\r\n" if request.payload_bytes else "",
            "host: ",
        ]
        head = "".join(lines).encode("ascii", "replace") + self._authority + b"\r\n\r\n"
        return head + FILLER[: request.payload_bytes] if request.payload_bytes else head

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
