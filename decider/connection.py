"""One HTTP/1.1 connection: bytes in, checks to the batcher, answers out in order.

A bare asyncio protocol on llhttp (httptools), because a decision costs a few microseconds and a web framework a
hundred. What a framework would do is done here: limits, deadlines, back-pressure, pipelining, closing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import cast

import httptools
import msgspec

from . import check, decide_api, plain, problem
from .answers import CLOSE, HEAD, KEEP, NGINX, Answers
from .batcher import Batcher, Job, Stats
from .problem import Problem, RefusedError

log = logging.getLogger(__name__)

Health = Callable[[], Mapping[str, object]]
"""What /healthz tells; healthy when its `config_version` is there and not zero."""
Metrics = Callable[[], bytes]
"""Prometheus text."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may use. Sizes in bytes, times in seconds."""

    head: int = 16 * 1024
    """Request line and header fields together."""
    url: int = 8 * 1024
    headers: int = 100
    body: int = 64 * 1024
    """Body of anything but /v1/decide; it is not kept."""
    decide_body: int = 2 * 1024 * 1024
    all_bodies: int = 64 * 1024 * 1024
    """Memory for bodies being received, all connections together."""
    connections: int = 4096
    outstanding: int = 128
    """Checks a connection may have queued; more are decided before more are read."""
    head_s: float = 5.0
    """From the first byte of a request to the end of its head."""
    body_s: float = 30.0
    """From the first byte of a request to its end."""
    idle_s: float = 75.0
    stall_s: float = 10.0
    """Time a client may refuse to read its answers."""
    linger_s: float = 2.0
    """Time in which a refused client may finish sending, so that it gets to read why."""
    sweep_s: float = 0.5
    """How often deadlines are looked at, and so how exact they are."""


class Hub:
    """What all connections of a server share."""

    def __init__(self, batcher: Batcher, answers: Answers, stats: Stats, limits: Limits, health: Health, metrics: Metrics) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time()
        """Loop time of the last sweep."""
        self.batcher = batcher
        self.answers = answers
        self.stats = stats
        self.limits = limits
        self.health = health
        self.metrics = metrics
        self.connections: set[Connection] = set()
        self.body_bytes = 0
        self.stopping = False
        self.plain = plain.PlainReader(limits.headers)
        self.plain_most = min(plain.MOST, limits.head, limits.url)
        """Longest read, in bytes, that may be a plain check; 0 while stopping, when every answer says that it is the last."""

    def stop(self) -> None:
        """From now on connections close after their next answer."""
        self.stopping = True
        self.plain_most = 0


_WANTED = frozenset(
    b"host connection upgrade expect content-type content-encoding content-length authorization x-request-id x-forwarded-for "
    b"x-original-method x-original-uri x-forwarded-method x-forwarded-uri x-envoy-attempt-count "
    b"x-sluice-app x-sluice-answer x-sluice-bytes x-sluice-attempt".split()
)
_LISTS = frozenset((b"connection", b"upgrade", b"x-forwarded-for"))
"""Fields that may come more than once; the first one counts."""
_HEAD_STEP = 8 * 1024
_BODY_STEP = 64 * 1024
"""Bytes of one connection that are parsed in one turn, so that none keeps the others waiting."""
_DECIDE = b"/v1/decide"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DOCUMENTS = (b"/healthz", b"/metrics")


class Connection(asyncio.Protocol):
    """Protocol of the transport and of the parser, which calls the on_ methods while it is fed."""

    __slots__ = (
        "_batcher",
        "_body",
        "_body_bytes",
        "_close_after",
        "_count",
        "_done",
        "_duplicate",
        "_fields",
        "_head_bytes",
        "_head_done",
        "_hub",
        "_job",
        "_later",
        "_limits",
        "_parser",
        "_pumping",
        "_reading",
        "_transport",
        "_unfinished",
        "_url",
        "deadline",
        "last",
        "since",
        "stalled_since",
        "waiting",
    )

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.limits
        self._batcher = hub.batcher
        self._transport: asyncio.Transport | None = None
        self._job: Job | None = None
        self._later = bytearray()  # received, to be parsed in a later turn
        self._pumping = False  # a turn for it is booked
        self._reading = True
        self._done = False  # nothing more is parsed
        self._close_after = False  # close when the last waiting check is answered
        self.waiting = 0
        self.last = hub.now
        """When bytes last came."""
        self.since = 0.0
        """When the request being received began; 0 between requests."""
        self.stalled_since = 0.0
        """When the client stopped reading its answers; 0 while it reads."""
        self.deadline = 0.0
        """When a closing connection is cut; 0 while it is open."""
        self._unfinished = 0  # bytes parsed since a head began that is not complete
        self._fields: check.Fields = {}
        self._body = bytearray()
        self._parser = httptools.HttpRequestParser(self)
        self._reset()

    def _reset(self) -> None:
        """Ready for the next request."""
        self._url = b""
        self._fields.clear()
        self._duplicate = b""
        self._count = 0
        self._head_bytes = 0
        self._head_done = False
        self._body_bytes = 0
        if self._body:
            self._hub.body_bytes -= len(self._body)
            self._body = bytearray()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, which derives from neither
        hub, most = self._hub, self._limits.connections
        hub.connections.add(self)
        if hub.stopping or len(hub.connections) > most:
            hub.stats.turned_away += 1
            self._refuse(problem.too_busy("This decider has as many connections as it may have; try again in a second."))

    def connection_lost(self, error: Exception | None) -> None:
        self._hub.connections.discard(self)
        if self._job is not None:
            self._batcher.drop(self._job)
        self._reset()
        self._later.clear()
        self._done = True
        self._transport = self._job = None
        del self._parser  # it refers back to this object, and the garbage collector should find nothing to do

    def data_received(self, data: bytes) -> None:
        hub = self._hub
        self.last = hub.now
        if (
            len(data) <= hub.plain_most
            and data.endswith(plain.END)
            and data.isascii()
            and not (self.since or self._done or self._later)
            and self._reading
            and (request := hub.plain.read(data)) is not None
        ):
            self._batcher.add(self, request, 0)
        elif not self._done:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        """The long way, for whatever is not a plain check."""
        if self._later or not self._reading or len(data) > _HEAD_STEP:
            self._later += data
            if not self._pumping:
                self._pump()
        else:
            self._feed(data)

    def eof_received(self) -> bool:
        """A client may stop sending and still want its answers."""
        self._done = True
        if self.waiting or self._job is not None:
            self._close_after = True
            return True
        return False

    def pause_writing(self) -> None:
        self.stalled_since = self._hub.now
        self._pause()

    def resume_writing(self) -> None:
        self.stalled_since = 0.0
        self._go_on()

    def _pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Takes up reading where a stall or a job had stopped it."""
        if self._transport is None or self.stalled_since or self._job is not None:
            return
        if self._later and not self._done:
            self._book_pump()
        elif not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _pump(self) -> None:
        """Parses the next piece of what was received; the rest has to wait for the other connections."""
        self._pumping = False
        if self._done or self.stalled_since or self._job is not None:
            return
        step = _BODY_STEP if self._head_done else _HEAD_STEP
        piece = bytes(self._later[:step])
        del self._later[:step]
        self._feed(piece)
        if self._later and not self._done:
            self._pause()
            self._book_pump()
        else:
            self._go_on()

    def _book_pump(self) -> None:
        """Always for a later turn: this one may be inside the parser, which cannot be fed twice at once."""
        if not self._pumping:
            self._pumping = True
            self._hub.loop.call_soon(self._pump)

    # The parser's side

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # its request was answered like any other; the protocol stays HTTP/1.1
            self._finish_reading()
        except httptools.HttpParserCallbackError as error:
            self._refuse(self._cause(error))
        except httptools.HttpParserError as error:
            if not self._done:
                self._refuse(problem.malformed(f"This is not HTTP/1.1: {error}."))
        else:
            if self.since and not self._head_done and not self._done:
                self._unfinished += len(data)
                if self._unfinished > self._limits.head + _HEAD_STEP:
                    self._refuse(self._head_problem())

    def _cause(self, error: BaseException) -> Problem:
        """What a callback raised. Anything but a refusal is a defect: logged, and told as one."""
        cause = error.__context__
        if isinstance(cause, RefusedError):
            return cause.problem
        log.error("a request could not be handled", exc_info=cause)
        return problem.INTERNAL

    def _head_problem(self) -> Problem:
        limits = self._limits
        return problem.head_too_large(f"A request may have {limits.headers} header fields, and {limits.head} bytes of them.")

    def on_message_begin(self) -> None:
        self.since = self._hub.now

    def on_url(self, part: bytes) -> None:
        self._url += part
        if len(self._url) > self._limits.url:
            raise RefusedError(problem.url_too_long("The URL", self._limits.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        self._head_bytes += len(name) + len(value)
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                raise RefusedError(problem.malformed("A header field is not valid UTF-8.")) from None
        name = name.lower()
        if name in _WANTED and not self._head_done:  # trailers say nothing here
            if name not in self._fields:
                self._fields[name] = value
            elif name not in _LISTS:
                self._duplicate = name

    def on_headers_complete(self) -> None:
        self._head_done = True
        limits, fields = self._limits, self._fields
        if self._count > limits.headers or self._head_bytes + 4 * self._count + len(self._url) > limits.head:
            raise RefusedError(self._head_problem())
        if self._url[:1] != b"/":
            self._url = _origin_form(self._url)
        if b"content-length" in fields and int(fields[b"content-length"]) > (most := self._body_limit()):
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
        if self._parser.get_http_version() != "1.0":
            self._send(_CONTINUE, 0)

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > (most := self._body_limit()):
            raise RefusedError(problem.too_large(most))
        if self._is_decide():
            self._body += data
            self._hub.body_bytes += len(data)
            if self._hub.body_bytes > self._limits.all_bodies:
                raise RefusedError(problem.too_busy("This decider is receiving too many bodies at once; try again in a second."))

    def on_message_complete(self) -> None:
        self.since = 0.0
        self._unfinished = 0
        if self._done:
            return
        mark = self._mark()
        try:
            self._dispatch(mark)
        except RefusedError as refused:
            self._hub.stats.refused += 1
            if self._url.startswith(check.PREFIX) and check.wants_nginx(self._url, self._fields):
                mark |= NGINX
            self._send(self._hub.answers.problem(refused.problem, mark), mark)
        self._reset()

    def _mark(self) -> int:
        """What the answer has to say or leave out, beside the decision."""
        fields = self._fields
        mark = 0
        if not self._parser.should_keep_alive() or self._hub.stopping or b"upgrade" in fields:
            mark = CLOSE
            self._done = True
        elif b"connection" in fields and self._parser.get_http_version() == "1.0":
            mark = KEEP
        return mark | HEAD if self._parser.get_method() == b"HEAD" else mark

    def _dispatch(self, mark: int) -> None:
        """Decides, or answers by itself. Raises RefusedError."""
        url, fields = self._url, self._fields
        if self._job is not None:
            self._batcher.finish(self._job)
        if b"host" not in fields and self._parser.get_http_version() == "1.1":
            raise RefusedError(problem.malformed("The header Host is missing."))
        if self._duplicate:
            raise RefusedError(problem.malformed(f"The header {self._duplicate.decode()} came more than once."))
        if url.startswith(check.PREFIX) and url[9:10] in (b"/", b"?", b""):
            request = check.read(url, self._parser.get_method(), fields, self._body_bytes)
            if check.wants_nginx(url, fields):
                mark |= NGINX
            self._batcher.add(self, request, mark)
            self._close_after = bool(mark & CLOSE)
            if self.waiting >= self._limits.outstanding:
                self._batcher.run()
        elif self._is_decide():
            self._decide(mark)
        else:
            self._document(url.partition(b"?")[0], mark)

    def _decide(self, mark: int) -> None:
        if (method := self._parser.get_method()) != b"POST":
            raise RefusedError(problem.wrong_method(method.decode(), "POST"))
        form = decide_api.form_of(self._fields)
        requests = decide_api.read(form, bytes(self._body))
        self._batcher.run()
        self._job = Job(self, requests, form, mark)
        self._batcher.start(self._job)
        self._pause()

    def _document(self, path: bytes, mark: int) -> None:
        if path not in _DOCUMENTS:
            raise RefusedError(problem.not_found("There are /v1/check, /v1/decide, /healthz and /metrics."))
        if (method := self._parser.get_method()) not in (b"GET", b"HEAD"):
            raise RefusedError(problem.wrong_method(method.decode(), "GET, HEAD"))
        if path == b"/metrics":
            data = self._hub.answers.document(200, "text/plain; version=0.0.4; charset=utf-8", self._hub.metrics(), mark)
        else:
            health = self._hub.health()
            status = 200 if health.get("config_version") else 503
            data = self._hub.answers.document(status, "application/json", msgspec.json.encode(health), mark)
        self._send(data, mark)

    # Answers

    def answered(self, data: bytes, count: int) -> None:
        self.waiting -= count
        if self._transport is not None:
            self._transport.write(data)
            if self._close_after and not self.waiting:
                self._close()

    def job_done(self, data: bytes, mark: int) -> None:
        self._job = None
        if self._transport is not None:
            self._transport.write(data)
            if mark & CLOSE or self._close_after:
                self._close()
            else:
                self._go_on()

    def _send(self, data: bytes, mark: int) -> None:
        """An answer that needs no decision; those asked before it come first."""
        if self._job is not None:
            self._batcher.finish(self._job)
        if self.waiting:
            self._batcher.run()
        if self._transport is not None:
            self._transport.write(data)
            if mark & CLOSE:
                self._close()

    def _refuse(self, what: Problem) -> None:
        """Answers and gives the connection up, but reads on for a while: a reset would take the answer with it."""
        self._hub.stats.refused += 1
        self._done = True
        self._send(self._hub.answers.problem(what, CLOSE), 0)
        self._reset()
        self._later.clear()
        self.deadline = self._hub.loop.time() + self._limits.linger_s
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
            self._go_on()

    def _finish_reading(self) -> None:
        self._done = True
        if self.waiting or self._job is not None:
            self._close_after = True
        else:
            self._close()

    def _close(self) -> None:
        """Closes when all that was written has been sent."""
        if self._transport is not None:
            self.deadline = self._hub.loop.time() + self._limits.stall_s
            self._transport.close()

    # The clock's side

    def sweep(self, now: float) -> None:
        """Ends what has taken too long."""
        limits = self._limits
        if self.deadline:
            if now > self.deadline:
                self.abort()
        elif self.stalled_since:
            if now - self.stalled_since > limits.stall_s:
                self.abort()
        elif self._job is not None or self.waiting:
            return
        elif self.since and not self._pumping:
            if now - self.since > (limits.body_s if self._head_done else limits.head_s):
                self._hub.stats.timeouts += 1
                self._refuse(problem.REQUEST_TIMEOUT)
        elif now - self.last > limits.idle_s:
            self._close()

    def close_if_idle(self) -> None:
        """For shutdown: what is being received or decided may still finish."""
        if not self.since and not self.waiting and self._job is None and not self.deadline:
            self._close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _origin_form(url: bytes) -> bytes:
    """The path of an absolute-form request target (RFC 9112, section 3.2.2); anything else as it is."""
    scheme, separator, rest = url.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return url
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"
