"""Bodies of /v1/decide: up to 1,000 requests at once, as JSON or msgpack, and their decisions in
the same form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import starmap
from operator import attrgetter
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from decider.contracts import ids
from decider.contracts.normalise.addresses import source_of
from decider.contracts.normalise.paths import path_of
from decider.contracts.requests import CheckRequest, Decision
from decider.contracts.vocabulary import HTTP_STATUS, Action, Reason, Stage
from decider.http import check
from decider.http.problem import RefusedError, malformed, unsupported_type
from decider.http.responses import retry_after

# Requests in one body. Chosen: it spreads the cost of HTTP over many decisions, and an answer is
# still ready after four slices of `batcher.MAX_BATCH`.
MAX_REQUESTS = 1000


# msgspec searches for a pattern anywhere in the text, so both ends are pinned.
def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\Z"


class DecideRequest(CheckRequest, gc=False, forbid_unknown_fields=True):
    """A `CheckRequest` as a caller sends it: the same fields, checked while they are decoded."""

    app: Annotated[str, Meta(pattern=_whole(check.APP_PATTERN))]
    method: Annotated[str, Meta(pattern=_whole(check.METHOD_PATTERN))]
    token: Annotated[str, Meta(pattern=_whole(check.TOKEN_PATTERN))] = ""
    payload_bytes: Annotated[int, Meta(ge=0, le=check.MAX_BYTES)] = 0
    attempt: Annotated[int, Meta(ge=0, le=check.MAX_ATTEMPT)] = 0


class DecideBody(msgspec.Struct, forbid_unknown_fields=True):
    """The whole body of a request."""

    requests: Annotated[list[DecideRequest], Meta(min_length=1, max_length=MAX_REQUESTS)]


class _QuickRequest(CheckRequest, gc=False, forbid_unknown_fields=True):
    """A `DecideRequest` without the patterns of its texts. `_fits` checks the texts of all requests
    at once.
    """

    payload_bytes: Annotated[int, Meta(ge=0, le=check.MAX_BYTES)] = 0
    attempt: Annotated[int, Meta(ge=0, le=check.MAX_ATTEMPT)] = 0


class _QuickBody(msgspec.Struct, forbid_unknown_fields=True):
    requests: Annotated[list[_QuickRequest], Meta(min_length=1, max_length=MAX_REQUESTS)]


# For each text field: a getter of its value, and a match of lines of values that all have the
# documented form. The groups are possessive, so that a match takes linear time.
_TEXTS = [
    (attrgetter(name), re.compile(rf"(?>(?:{pattern})\n)*+").fullmatch)
    for name, pattern in (
        ("app", check.APP_PATTERN),
        ("method", check.METHOD_PATTERN),
        ("token", check.TOKEN_PATTERN),
    )
]


def _fits(requests: Sequence[CheckRequest]) -> bool:
    """Return whether every text has its documented form.

    One match per field over all requests takes a tenth of the time of one match per text.
    """
    for value, fits in _TEXTS:
        lines = "\n".join(map(value, requests)) + "\n"
        # A value with a line end in it could pass as two values, so lines are counted.
        if lines.count("\n") != len(requests) or not fits(lines):
            return False
    return True


class RateLimit(msgspec.Struct, gc=False):
    """The state of the app's token bucket, as in the RateLimit fields."""

    limit: int
    """Requests that a full bucket admits: its burst, plus the headroom of an app that has it."""
    window: int
    """Seconds until a bucket is full again after all its burst and headroom were used."""
    remaining: int
    """Requests that the bucket admits now, whatever they are."""
    reset: int
    """Seconds until the bucket is full again, rounded up."""


class ToldReason(msgspec.Struct, gc=False):
    """A cause of a refusal that the client may know: its code and a sentence."""

    code: str
    text: str


class DecideAnswer(msgspec.Struct, gc=False, omit_defaults=True):
    """One decision. It stands at the place that its request had in the body."""

    decision: str
    status: int
    """HTTP status a gateway should answer with."""
    action: str
    stage: str
    reason: str
    """Machine reason, lower case."""
    retry_after: int
    """Seconds; 0 when admitted or when a retry will not help."""
    ratelimit: RateLimit
    batch: str = ""
    receipt: str = ""
    """For a refusal: a sealed text that the client may show to support."""
    reasons: list[ToldReason] = []


class DecideReply(msgspec.Struct):
    """The whole body of the answer."""

    decisions: list[DecideAnswer]


class Form(NamedTuple):
    """One of the two encodings: JSON or msgpack."""

    content_type: str
    decode: Callable[[bytes], DecideBody]
    quick: Callable[[bytes], _QuickBody]
    encode: Callable[[DecideReply], bytes]


JSON = Form(
    "application/json",
    msgspec.json.Decoder(DecideBody).decode,
    msgspec.json.Decoder(_QuickBody).decode,
    msgspec.json.Encoder().encode,
)
MSGPACK = Form(
    "application/msgpack",
    msgspec.msgpack.Decoder(DecideBody).decode,
    msgspec.msgpack.Decoder(_QuickBody).decode,
    msgspec.msgpack.Encoder().encode,
)
# Clients send msgpack under three names.
_FORMS = {
    b"application/json": JSON,
    b"application/msgpack": MSGPACK,
    b"application/x-msgpack": MSGPACK,
    b"application/vnd.msgpack": MSGPACK,
}
# Words by number: a look-up in a dict is cheaper than making an enum member for each answer.
_STAGES = {int(s): s.name.lower() for s in Stage}
_REASONS = {int(r): r.name.lower() for r in Reason}
_ACTIONS = {int(a): (a.word, HTTP_STATUS[a]) for a in Action}


def form_of(fields: check.Fields) -> Form:
    """Return the encoding that content-type names. Raise RefusedError (415) for any other, and for
    compressed bodies.
    """
    # Compression is refused because a small body could unpack to one beyond every limit.
    if fields.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise RefusedError(unsupported_type("The body must not be compressed."))
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if (form := _FORMS.get(kind)) is None:
        raise RefusedError(
            unsupported_type("Send content-type application/json or application/msgpack.")
        )
    return form


def read_requests(form: Form, body: bytes) -> Sequence[CheckRequest]:
    """Return all requests of a body, each of them checked. Raise RefusedError (400), which says
    what is wrong with the first bad one.

    A source that is no address becomes "", and so do a path that cannot be read and an odd request
    id, as for checks: they may be a client's own words.
    """
    try:
        found: Sequence[CheckRequest] = form.quick(body).requests
        if not _fits(found):
            # Decoded again with a pattern per text, which is slow but says which text is wrong.
            found = form.decode(body).requests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(
            malformed(f"The body is not a valid list of requests: {_plain(str(error))}")
        ) from error
    for request in found:
        request.path = path_of(request.path)
        if request.source:
            request.source = source_of(request.source)
        if request.request_id:
            request.request_id = check.request_id_of(request.request_id)
    return found


def _plain(text: str) -> str:
    """Return a decoder's message, at most 300 characters, without the pattern it may quote."""
    start, quoted, rest = text.partition(" matching regex ")
    where = rest[rest.rfind(" - at ") :] if quoted else ""
    return (f"{start} of the documented form{where}" if quoted else start)[:300]


def answers(decisions: Sequence[Decision]) -> list[DecideAnswer]:
    """Return decisions in the form of the reply."""
    return [_answer(d) for d in decisions]


def _answer(d: Decision) -> DecideAnswer:
    word, status = _ACTIONS[d.action]
    limits = RateLimit(d.limit, d.window, d.remaining, math.ceil(d.reset))
    answer = DecideAnswer(
        ids.PREFIX + d.id.hex(),
        status,
        word,
        _STAGES[d.stage],
        _REASONS[d.reason],
        retry_after(d),
        limits,
        d.batch_hint,
        d.receipt,
    )
    if d.told:
        answer.reasons = list(starmap(ToldReason, d.told))
    return answer
