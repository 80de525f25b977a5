"""Responses: decisions and problems as HTTP. All that is constant is rendered ahead.

Responses stay ASCII text until they are written, so that the answers to pipelined requests join
into one write.
"""

from __future__ import annotations

import email.utils
import json
import math
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from decider.contracts.requests import Decision
from decider.contracts.vocabulary import HTTP_STATUS, Action
from decider.http import problem, ratelimit_fields
from decider.http.problem import Problem
from decider.refusal import receipt

# Marks are bits of one number, because every check carries them through the batcher and almost all
# carry none.
# Mark: this answer is the connection's last.
CLOSE = 1
# Mark: asked by HEAD, so the answer has no body.
HEAD = 2
# Mark: asked by nginx auth_request, which understands only 2xx and 403; the true status goes into
# sluice-status.
NGINX = 4
# Mark: an HTTP/1.0 client asked to keep the connection.
KEEP = 8
# Mark: decided by the fallback limiter, as the decider was too late to ask the model.
LATE = 16
_LATE_LINE = "sluice-late: true\r\n"


# Names the app that the decider found in the credential.
APP_HEADER = "sluice-app"


class _Words(NamedTuple):
    title: str
    detail: str


WORDS: dict[Action, _Words] = {
    Action.DEFER: _Words(
        "Not served now",
        "This request was not served now. Wait the number of seconds in retry_after, then send it"
        " again.",
    ),
    Action.BATCH: _Words(
        "Send these as one batch",
        "Ask for many items in one request, not one by one; or wait the number of seconds in"
        " retry_after, then send it again.",
    ),
    Action.SHED: _Words(
        "Service busy",
        "The service cannot take this request now. Wait the number of seconds in retry_after, then"
        " send it again.",
    ),
    Action.BLOCK: _Words(
        "Not allowed",
        "This request is not allowed, and sending it again will not help. If this seems wrong, tell"
        " support the decision id.",
    ),
}

# A page of any origin may read a refusal, which holds nothing of the service's; otherwise a browser
# hides even the status. What the service answers, only the service opens.
_REFUSAL_FIELDS = (
    f"content-type: {problem.CONTENT_TYPE}\r\ncache-control: no-store\r\n"
    "access-control-allow-origin: *\r\n"
)
# nginx auth_request passes on 401 and 403, and turns any other refusal into its own 500. A 401
# would ask the client to log in.
NGINX_REFUSAL = 403


_NO_WAIT = tuple(int(a) for a in Action if not a.waits)


def retry_after(decision: Decision) -> int:
    """Return the whole seconds, rounded up, until a retry is worth it: at least 1 for an action
    that allows a retry, 0 for ADMIT and BLOCK.
    """
    # At least 1: clients take "retry-after: 0" as leave to come back at once.
    if decision.action in _NO_WAIT:
        return 0
    return max(1, math.ceil(decision.retry_after))


def _problem_start(action: Action) -> str:
    words = WORDS[action]
    members = {
        "type": problem.PREFIX + action.word,
        "title": words.title,
        "status": HTTP_STATUS[action],
        "detail": words.detail,
    }
    return json.dumps(members, separators=(",", ":"))[:-1] + ',"decision":"dec_'


_PROBLEM_START = {int(action): _problem_start(action) for action in WORDS}
_ACTION_LINES = {int(a): f"sluice-action: {a.word}\r\nsluice-decision: dec_" for a in Action}
_STATUS = {int(a): HTTP_STATUS[a] for a in Action}
_STATUS_LINES = {s: f"HTTP/1.1 {s} {problem.phrase(s)}\r\n" for s in set(HTTP_STATUS.values())}


class Answers:
    """The renderer of responses. It keeps the Date field; the owner must refresh it with `tick`."""

    def __init__(self, now: float, names_apps: bool = False) -> None:
        """Set up the renderer at `now`, unix seconds. `names_apps`: whether an answer to a check
        names the app, because the gateway's log cannot know what the decider found in a credential.
        """
        self._names_apps = names_apps
        self.tick(now)

    def tick(self, now: float) -> None:
        """Set the Date of the responses that follow; `now` in unix seconds."""
        self._date = f"date: {email.utils.formatdate(now, usegmt=True)}\r\n"
        start = f"HTTP/1.1 200 OK\r\n{self._date}content-length: 0\r\n"
        self._admit = f"{start}{_ACTION_LINES[Action.ADMIT]}"
        self._admit_late = f"{start}{_LATE_LINE}{_ACTION_LINES[Action.ADMIT]}"

    def check(self, decision: Decision, mark: int, app: str = "") -> str:
        """Return the whole response to one check."""
        fields = ratelimit_fields.lines(
            decision.limit,
            decision.window,
            decision.remaining,
            decision.reset,
            retry_after(decision) if decision.action else 0,
        )
        if self._names_apps:
            fields += f"{APP_HEADER}: {app}\r\n"
        if mark & ~LATE or decision.action:
            return self._check_marked(decision, mark, fields)
        # late answers as quickly as others: there are many of them when there is no time
        start = self._admit_late if mark else self._admit
        return f"{start}{decision.id.hex()}\r\n{fields}\r\n"

    def _check_marked(self, decision: Decision, mark: int, fields: str) -> str:
        """Return a response other than a plain admit: it refuses, or has something to say about the
        connection.
        """
        action, dec = decision.action, decision.id.hex()
        status = true_status = _STATUS[action]
        extra = _connection(mark) + (_LATE_LINE if mark & LATE else "")
        if mark & NGINX:
            extra += f"sluice-status: {true_status}\r\n"
            status = 200 if action == Action.ADMIT else NGINX_REFUSAL
        body = ""
        if action != Action.ADMIT:
            wait = retry_after(decision)
            body = _refusal_body(decision, dec, wait)
            extra += _REFUSAL_FIELDS
            extra += f"retry-after: {wait}\r\n" if wait else ""
            extra += f"{receipt.HEADER}: {decision.receipt}\r\n" if decision.receipt else ""
        head = (
            f"{_STATUS_LINES[status]}{self._date}content-length:"
            f" {len(body)}\r\n{extra}{_ACTION_LINES[action]}{dec}\r\n{fields}\r\n"
        )
        return head if mark & HEAD else head + body

    def problem(self, what: Problem, mark: int) -> bytes:
        """Return the whole response to a request that is not decided. A 5xx stays one whoever
        asked: for every gateway it is no answer, and not a refusal.
        """
        status, extra = what.status, _REFUSAL_FIELDS
        extra += "".join(f"{name}: {value}\r\n" for name, value in what.headers)
        if mark & NGINX and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            extra += f"sluice-status: {status}\r\n"
            status = NGINX_REFUSAL
        return self.plain(status, extra, problem.body(what), mark)

    def document(self, status: int, content_type: str, body: bytes, mark: int) -> bytes:
        """Return the whole response with a body of another content type."""
        return self.plain(
            status, f"content-type: {content_type}\r\ncache-control: no-store\r\n", body, mark
        )

    def plain(self, status: int, fields: str, body: bytes, mark: int) -> bytes:
        """Return a response made of its parts; `fields` are header lines with their line ends."""
        start = (
            f"HTTP/1.1 {status} {problem.phrase(status)}\r\n{self._date}content-length:"
            f" {len(body)}\r\n"
        )
        head = f"{start}{_connection(mark)}{fields}\r\n".encode("ascii")
        return head if mark & HEAD else head + body


def _connection(mark: int) -> str:
    if mark & CLOSE:
        return "connection: close\r\n"
    return "connection: keep-alive\r\n" if mark & KEEP else ""


def _refusal_body(decision: Decision, dec: str, wait: int) -> str:
    """Return an RFC 9457 problem as ASCII JSON. It says what to do, and nothing of how the decision
    was reached.
    """
    # Put together from pieces that were encoded ahead: refusals come in floods, and an encoder
    # would cost more. Only `batch_hint` comes from the config and is encoded here.
    retry = f',"retry_after":{wait}' if wait else ""
    hint = f',"batch":{json.dumps(decision.batch_hint)}' if decision.batch_hint else ""
    # the receipt is URL-safe text of our own making, which JSON takes as it is
    proof = f',"receipt":"{decision.receipt}"' if decision.receipt else ""
    return f'{_PROBLEM_START[decision.action]}{dec}"{retry}{hint}{proof}{_reasons(decision.told)}}}'


# Encoding the same few causes again would cost more than the rest of the answer's body. There are
# far fewer texts than 1024, so nothing is ever dropped.
@lru_cache(maxsize=1024)
def _reasons(told: tuple[tuple[str, str], ...]) -> str:
    if not told:
        return ""
    return ',"reasons":' + json.dumps(
        [{"code": code, "text": text} for code, text in told], separators=(",", ":")
    )
