"""One HTTP/1.1 connection: bytes in, checks to the batcher, answers out in order.

It is a bare asyncio protocol on llhttp (httptools), because a decision takes a few microseconds and
a web framework a hundred. This module and `transport` do what a framework would do.
"""

from __future__ import annotations

import logging
from typing import NoReturn

import httptools
import msgspec

from decider.doors import guard as doors
from decider.http import check, decide_api, fast_path, problem
from decider.http.batcher import Job
from decider.http.context import ServerContext
from decider.http.problem import Problem, RefusedError
from decider.http.responses import CLOSE, HEAD, KEEP, NGINX
from decider.http.transport import HEAD_STEP, READING, StatefulProtocol
from decider.http.transport_states import OPEN, Event

log = logging.getLogger(__name__)

# Only these header fields are kept, so that a client's own fields cost no memory.
_WANTED = frozenset(
    b"host connection upgrade expect content-type content-encoding content-length authorization"
    b" x-request-id x-forwarded-for x-original-method x-original-uri x-forwarded-method"
    b" x-forwarded-uri x-envoy-attempt-count x-sluice-app x-sluice-answer x-sluice-bytes"
    b" x-sluice-attempt x-sluice-source x-sluice-service origin"
    b" access-control-request-method".split()
) | {doors.HEADER}
# Fields that may come more than once. A request with a second one of any other wanted field is
# refused: gateway and decider might each believe a different one.
_LISTS = frozenset((b"connection", b"upgrade"))  # the first one counts
# What a client may have written of its own request: whatever it is, it refuses nobody.
_HINTS = frozenset(
    b"x-request-id x-sluice-attempt x-envoy-attempt-count origin"
    b" access-control-request-method".split()
)
# Several make one list (RFC 9110, section 5.3), whose end counts; of x-sluice-source it is no
# address, of x-sluice-service no service, and of an attempt count no number. Of a preflight's
# fields it only counts that they are there.
_JOINED = _HINTS | {b"x-forwarded-for", b"x-sluice-source", b"x-sluice-service"}
# Fields that must be text. Clients write any bytes into the others, and what is not wanted is not
# looked at.
_TEXTS = _WANTED - _HINTS - {b"x-original-uri", b"x-forwarded-uri", b"x-forwarded-for"}
_DECIDE = b"/v1/decide"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DOCUMENTS = (b"/healthz", b"/metrics")


class Connection(StatefulProtocol):
    """One connection: the protocol of the transport, and the target of the parser, which calls the
    on_ methods while it is fed.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_count",
        "_duplicate",
        "_fields",
        "_guard",
        "_head_bytes",
        "_parser",
        "_plain",
        "_unfinished",
        "_url",
    )

    def __init__(self, context: ServerContext, guarded: bool = False) -> None:
        """Serve a connection. `guarded`: who asks there must satisfy the context's guard."""
        super().__init__(context)
        self._guard = context.guard if guarded else None
        self._plain = context.guarded_plain if guarded else context.plain
        self._unfinished = 0  # bytes parsed since a head began that is not complete
        self._fields: check.Fields = {}
        self._body = bytearray()
        self._parser = httptools.HttpRequestParser(self)
        self._reset()

    def _reset(self) -> None:
        """Forget this request and make ready for the next one."""
        self._url = b""
        self._fields.clear()
        self._duplicate = b""
        self._count = 0
        self._head_bytes = 0
        self._head_done = False
        self._body_bytes = 0
        if self._body:
            self._context.body_bytes -= len(self._body)
            self._body = bytearray()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        # The parser refers back to this object; the garbage collector should not have to free the
        # cycle.
        del self._parser

    def data_received(self, data: bytes) -> None:
        context = self._context
        self.last = context.now
        if self.state is not READING or self.since or len(data) > context.plain_most:
            if self.state in OPEN:
                self._receive(data)
        elif (request := self._plain.read(data)) is not None:
            self._batcher.add(self, request, 0)
        else:
            self._receive_first(data)

    def _receive_first(self, data: bytes) -> None:
        """Parse `data`, which starts at a request's first byte, in full. When it was exactly one
        check, teach its shape to the fast path.
        """
        waiting = self.waiting
        self._receive(data)
        if self.waiting == waiting + 1 and not self.since and data.endswith(fast_path.END):
            self._plain.learn(data, self._context.now)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request that asked for an upgrade was answered like any other; the protocol stays
            # HTTP/1.1.
            self._finish_reading()
        except httptools.HttpParserCallbackError as error:
            self._refuse(self._cause(error))
        except httptools.HttpParserError as error:
            self._refuse(problem.malformed(f"This is not HTTP/1.1: {error}."))
        else:
            # The parser hands on a field only when all of it is there. So bytes are counted here
            # too, or one field that never ends would grow without limit.
            if self.since and not self._head_done and self.state in OPEN:
                self._unfinished += len(data)
                if self._unfinished > self._limits.head + HEAD_STEP:
                    self._refuse(self._head_problem())

    def _cause(self, error: BaseException) -> Problem:
        """Return the problem behind a callback's error. Any error but a refusal is a defect: log
        it, and return a problem with status 500.
        """
        cause = error.__context__
        if isinstance(cause, RefusedError):
            return cause.problem
        log.error("a request could not be handled", exc_info=cause)
        return problem.INTERNAL

    def _head_problem(self) -> Problem:
        limits = self._limits
        return problem.head_too_large(
            f"A request may have {limits.headers} header fields, and {limits.head} bytes of them."
        )

    def on_message_begin(self) -> None:
        self.since = self._context.now

    def on_url(self, part: bytes) -> None:
        self._url += part
        if len(self._url) > self._limits.url:
            raise RefusedError(problem.url_too_long("The URL", self._limits.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        self._head_bytes += len(name) + len(value)
        name = name.lower()
        is_credential = name == self._context.credential_header
        if not value.isascii() and (is_credential or name in _TEXTS):
            try:
                value.decode()
            except UnicodeDecodeError:
                raise RefusedError(
                    problem.malformed("A header field is not valid UTF-8.")
                ) from None
        # trailers say nothing here
        if (is_credential or name in _WANTED) and not self._head_done:
            if name not in self._fields:
                self._fields[name] = value
            elif name in _JOINED:
                self._fields[name] += b"," + value
            elif name not in _LISTS:
                self._duplicate = name

    def on_headers_complete(self) -> None:
        self._head_done = True
        limits, fields = self._limits, self._fields
        # 4 bytes for the colon, the space and the line end of each field.
        if (
            self._count > limits.headers
            or self._head_bytes + 4 * self._count + len(self._url) > limits.head
        ):
            raise RefusedError(self._head_problem())
        if self._url[:1] != b"/":
            self._url = _origin_form(self._url)
        # Before anything of a body is kept.
        if self._guard is not None and self._needs_secret() and not self._is_trusted():
            self._turn_away()
        # Refused before the body arrives, and so before the client sends it after 100-continue.
        if b"content-length" in fields and int(fields[b"content-length"]) > (
            most := self._body_limit()
        ):
            raise RefusedError(problem.too_large(most))
        if b"expect" in fields:
            self._meet_expectation(fields[b"expect"])

    def _body_limit(self) -> int:
        return self._limits.decide_body if self._is_decide() else self._limits.body

    def _is_decide(self) -> bool:
        return self._url.partition(b"?")[0] == _DECIDE

    def _meet_expectation(self, what: bytes) -> None:
        if what.lower() != b"100-continue":
            raise RefusedError(problem.EXPECTATION_FAILED)
        # A server must not send 100 to an HTTP/1.0 client (RFC 9110, section 15.2).
        if self._parser.get_http_version() != "1.0":
            self._send(_CONTINUE, 0)

    def on_body(self, data: bytes) -> None:
        # Counted here as well: a chunked body announces no length.
        self._body_bytes += len(data)
        if self._body_bytes > (most := self._body_limit()):
            raise RefusedError(problem.too_large(most))
        if self._is_decide():
            self._body += data
            self._context.body_bytes += len(data)
            if self._context.body_bytes > self._limits.all_bodies:
                raise RefusedError(
                    problem.too_busy(
                        "This decider is receiving too many bodies at once; try again in a second."
                    )
                )

    def on_message_complete(self) -> None:
        self.since = 0.0
        self._unfinished = 0
        if self.state not in OPEN:
            return
        mark = self._mark()
        try:
            self._dispatch(mark)
        except RefusedError as refused:
            self._context.stats.refused += 1
            if self._url.startswith(check.PREFIX) and check.wants_nginx(self._url, self._fields):
                mark |= NGINX
            self._send(self._context.answers.problem(refused.problem, mark), mark)
        self._reset()

    def _mark(self) -> int:
        """Return the marks (CLOSE, KEEP, HEAD) that say what the answer adds or leaves out."""
        fields = self._fields
        mark = 0
        if not self._parser.should_keep_alive() or self._context.stopping or b"upgrade" in fields:
            mark = CLOSE
        elif b"connection" in fields and self._parser.get_http_version() == "1.0":
            mark = KEEP
        return mark | HEAD if self._parser.get_method() == b"HEAD" else mark

    def _dispatch(self, mark: int) -> None:
        """Hand a check or a body to the batcher, or answer a document. Raise RefusedError for a
        request that cannot be handled.
        """
        url, fields = self._url, self._fields
        if self._job is not None:
            self._batcher.finish(self._job)
        if b"host" not in fields and self._parser.get_http_version() == "1.1":
            raise RefusedError(problem.malformed("The header Host is missing."))
        if self._duplicate:
            raise RefusedError(
                problem.malformed(f"The header {self._duplicate.decode()} came more than once.")
            )
        if url.startswith(check.PREFIX) and url[9:10] in (b"/", b"?", b""):
            context, method = self._context, self._parser.get_method()
            request = check.read_check(
                url, method, fields, self._body_bytes, context.source, context.identity
            )
            if check.wants_nginx(url, fields):
                mark |= NGINX
            self._batcher.add(self, request, mark)
            if mark & CLOSE:
                self._move(Event.LAST)
            # Decided now: a client that pipelines without end would otherwise fill the queue.
            if self.waiting >= self._limits.outstanding:
                self._batcher.run()
        elif self._is_decide():
            self._decide(mark)
        else:
            self._document(url.partition(b"?")[0], mark)

    def _needs_secret(self) -> bool:
        """Return whether nothing at all is said without it; documents have rules of their own."""
        return self._url.partition(b"?")[0] not in _DOCUMENTS

    def _is_trusted(self) -> bool:
        """Return whether who asks may know and decide everything."""
        guard = self._guard
        return guard is None or guard.knows(self._fields.get(doors.HEADER, b""))

    def _turn_away(self) -> NoReturn:
        """Raise the RefusedError of who does not know the secret."""
        self._context.stats.strangers += 1
        # A gateway that lacks it is no fault of its clients: to gateways this is no answer, so
        # their own rule for that holds.
        asks_as_gateway = self._url.startswith(check.PREFIX) and check.wants_nginx(
            self._url, self._fields
        )
        raise RefusedError(problem.NO_SECRET_503 if asks_as_gateway else problem.NO_SECRET)

    def _decide(self, mark: int) -> None:
        if (method := self._parser.get_method()) != b"POST":
            raise RefusedError(problem.wrong_method(method.decode(), "POST"))
        form = decide_api.form_of(self._fields)
        requests = decide_api.read_requests(form, bytes(self._body))
        # Answers leave in the order asked, so earlier checks come first.
        self._batcher.run()
        self._job = Job(self, requests, form, mark)
        self._batcher.start(self._job)
        self._move(Event.JOB)
        if mark & CLOSE:
            self._move(Event.LAST)

    def _document(self, path: bytes, mark: int) -> None:
        if path not in _DOCUMENTS:
            raise RefusedError(
                problem.not_found("There are /v1/check, /v1/decide, /healthz and /metrics.")
            )
        if (method := self._parser.get_method()) not in (b"GET", b"HEAD"):
            raise RefusedError(problem.wrong_method(method.decode(), "GET, HEAD"))
        trusted = self._is_trusted()
        if path == b"/metrics":
            token = self._fields.get(b"authorization", b"")
            if not trusted and not (self._guard and self._guard.may_measure(token)):
                self._turn_away()
            data = self._context.answers.document(
                200, "text/plain; version=0.0.4; charset=utf-8", self._context.metrics(), mark
            )
        else:
            health = self._context.health()
            # Without a config nothing can be decided, so the gateway should choose another decider.
            status = 200 if health.get("config_version") else 503
            if not trusted:
                health = {"status": "ok" if status == 200 else "waiting"}
            data = self._context.answers.document(
                status, "application/json", msgspec.json.encode(health), mark
            )
        self._send(data, mark)


def _origin_form(url: bytes) -> bytes:
    """Return the path of an absolute-form request target (RFC 9112, section 3.2.2), and anything
    else as it is.
    """
    scheme, separator, rest = url.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return url
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"
