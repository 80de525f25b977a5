"""Whatever bytes come, however they are cut: no exception, no hang, the same answers, and no
invalid request decided.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import pairwise
from unittest import mock

import msgspec
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts.normalise.addresses import source_of
from decider.contracts.normalise.paths import path_of
from decider.http import check, decide_api
from decider.http import transport as transport_module
from decider.http.batcher import Batcher, Stats
from decider.http.connection import Connection
from decider.http.context import Limits, ServerContext
from decider.http.fast_path import END, PlainReader
from decider.http.pace import Pace
from decider.http.responses import Answers
from decider.http.source import NAMED, SourceRule, forwarded
from tests.decider.http_client import FakeEngine, parse, request

LIMITS = Limits(head=2048, url=512, headers=20, body=1000, decide_body=3000, outstanding=8)
DECIDE = msgspec.json.encode(
    {
        "requests": [
            {"app": "app_1", "method": "GET", "path": "/x"},
            {"app": "shed", "method": "GET", "path": "/"},
        ]
    }
)
SEEDS = [
    request(),
    request(
        "POST",
        x_request_id="r1",
        authorization="Bearer t",
        x_forwarded_for="1.2.3.4, 5.6.7.8",
        x_sluice_source="1.2.3.4:80",
        x_sluice_service="payments",
        x_sluice_bytes="7",
    ),
    request("HEAD", x_sluice_app="shed").replace(b"HEAD", b"PUT"),
    request(x_sluice_app=""),
    request(content_length="0"),
    request(Connection="keep-alive", X_Request_Id="r2"),
    request(connection="close"),
    request(upgrade="h2c", connection="upgrade"),
    request(target="/v1/check?answer=nginx", x_original_method="GET", x_original_uri="/a?b"),
    request(target="/v1/check", x_forwarded_method="GET", x_forwarded_uri="/a"),
    request("POST", body=b"body\r\n\r\n"),
    request("POST", transfer_encoding="chunked") + b"4\r\nbody\r\n0\r\nx-sluice-app: evil\r\n\r\n",
    request("POST", "/v1/decide", DECIDE, content_type="application/json"),
    request("POST", "/v1/decide", b"{}", content_type="application/json"),
    request("GET", "/v1/decide"),
    request(target="/healthz"),
    request(target="/metrics"),
    request(target="/nowhere"),
    request(expect="100-continue", content_length="2") + b"ok",
    request(x_big="b" * 1500),
    request(x_bigger="b" * 2500),
    request(target="/v1/check/" + "p" * 600),
    b"\r\n\r\n",
]


def knowing() -> PlainReader:
    """A reader that knows the shapes of the seeds that are plain."""
    reader = PlainReader(LIMITS.headers)
    for turn, seed in enumerate(SEEDS):
        if seed.endswith(END):
            reader.learn(seed, float(turn))
    return reader


KNOWING = knowing()


class FakeTransport:
    """What a connection writes to; it closes as an event loop's transport does, a turn later."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.written = b""
        self.closing = False
        self.reading = True
        self._connection = connection
        self._loop = loop

    def write(self, data: bytes) -> None:
        assert not self.closing, "wrote after close"
        self.written += data

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self._connection.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def write_eof(self) -> None:
        assert not self.closing

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


async def _converse(
    pieces: list[bytes], plain: bool, errors: list[object], source: SourceRule
) -> tuple[bytes, FakeEngine]:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    engine, answers, stats = FakeEngine(), Answers(0.0), Stats()
    context = ServerContext(
        Batcher(engine, answers, stats, lambda: None, Pace(60.0)),
        answers,
        stats,
        LIMITS,
        lambda: {"config_version": 1},
        lambda: b"m 1\n",
        source,
    )
    if plain:
        context.plain = KNOWING
    else:
        context.plain_most = 0
    one = Connection(context)
    transport = FakeTransport(one, loop)
    one.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        for _ in range(10_000):
            if transport.reading or transport.closing:
                break
            await asyncio.sleep(0)
        else:
            pytest.fail("reading stays paused")
        if transport.closing:
            break
        one.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(10_000):
        await asyncio.sleep(0)
        if transport.closing or (transport.reading and not one.waiting):
            break
    else:
        pytest.fail("answers never came")
    if not transport.closing and not one.eof_received():
        transport.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert transport.closing
    assert (context.connections, context.body_bytes, stats.failed) == (set(), 0, 0)
    return transport.written, engine


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as one:
        yield one


def converse(
    runner: asyncio.Runner, pieces: list[bytes], plain: bool = True, source: SourceRule = NAMED
) -> tuple[bytes, FakeEngine]:
    """All that one connection answers to `pieces`, and the engine it asked."""
    errors: list[object] = []
    written, engine = runner.run(_converse(pieces, plain, errors, source))
    assert not errors, errors
    return written, engine


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in places)})
    return [data[a:b] for a, b in pairwise(edges)]


def mutate(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for place, removed, added in changes:
        at = place % (len(data) + 1)
        data = data[:at] + added + data[at + removed :]
    return data


def told(data: bytes) -> list[object]:
    """Answers without what depends on the cut: which of two faults a parser meets first, and so its
    status and wording.
    """
    return [FAULTY if r.status in (400, 414, 431) else r for r in parse(data)]


def assert_valid(engine: FakeEngine) -> None:
    for r in engine.seen:
        assert re.fullmatch(check.APP_PATTERN, r.app)
        assert re.fullmatch(check.METHOD_PATTERN, r.method)
        assert path_of(r.path) == r.path
        assert re.fullmatch(check.TOKEN_PATTERN, r.token)
        assert source_of(r.source) == r.source
        assert check.request_id_of(r.request_id) == r.request_id
        assert 0 <= r.payload_bytes <= check.MAX_BYTES
        assert 0 <= r.attempt <= check.MAX_ATTEMPT


FAULTY = "refused as malformed or too long"
PLACES = st.lists(st.integers(0, 5000), max_size=8)
TRICKY = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b" ",
        b":",
        b"\x00",
        b"\xff",
        b"#",
        b"?",
        b",",
        b"0",
        b"\t",
        b"A",
        b"HTTP/1.0",
    ]
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 6), TRICKY | st.binary(max_size=4)), max_size=4
)
REQUESTS = st.lists(st.sampled_from(SEEDS), min_size=1, max_size=5).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(data=REQUESTS, changes=CHANGES, places=PLACES)
def test_mutated_requests_are_answered_alike_however_they_are_cut(
    runner: asyncio.Runner, data: bytes, changes: list, places: list[int]
) -> None:
    data = mutate(data, changes)
    whole, engine = converse(runner, [data], plain=False)
    assert_valid(engine)
    for plain in (True, False):
        answers, other = converse(runner, cut(data, places), plain)
        assert told(answers) == told(whole)
        assert other.seen == engine.seen


PLAIN = [seed for seed in SEEDS if KNOWING.read(seed) is not None]
FIELDS = {
    "host": "a:1",
    "X-Sluice-App": "app_1",
    "Authorization": "Bearer t",
    "x-forwarded-for": "1.2.3.4, 5.6.7.8:9",
    "X-Sluice-Source": "[2001:DB8::1]:443",
    "x-sluice-service": "payments",
    "x-request-id": "r1",
    "x-sluice-bytes": "7",
    "x-sluice-attempt": "2",
    "x-envoy-attempt-count": "2",
    "content-length": "0",
    "connection": "keep-alive",
    "x-sluice-answer": "nginx",
    "accept": "a b; c",
}
SHAPED = st.lists(st.sampled_from(sorted(FIELDS)), unique=True, min_size=2).map(
    lambda names: "".join(
        [
            "GET /v1/check/a/./%62//;c?d HTTP/1.1\r\n",
            *(f"{n}: {FIELDS[n]}\r\n" for n in names),
            "\r\n",
        ]
    ).encode()
)


@settings(max_examples=900, deadline=None)
@given(data=SHAPED, changes=CHANGES, source=st.sampled_from([NAMED, forwarded(0), forwarded(1)]))
def test_the_short_way_reads_what_the_parser_reads_or_nothing(
    runner: asyncio.Runner, data: bytes, changes: list, source: SourceRule
) -> None:
    reader = PlainReader(LIMITS.headers, source)
    reader.learn(data, 0.0)
    for text in (data, mutate(data, changes)):
        request = reader.read(text)
        _, engine = converse(runner, [text], plain=False, source=source)
        assert request is None or engine.seen == [request]
        assert_valid(engine)


# What a client may write into a field and a gateway hand on: no line end, and no control character,
# which llhttp takes for a smuggled line.
WRITTEN = st.text(
    st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=200
) | st.sampled_from(["", "r" * 129, "a b", "1,2", "٣", "-1", "1e9", "9" * 400, "\xff", "\t"])
HINTS = st.lists(
    st.tuples(
        st.sampled_from(["x-request-id", "X-Sluice-Attempt", "x-envoy-attempt-count", "x-other"]),
        WRITTEN,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=600, deadline=None)
@given(hints=HINTS)
def test_whatever_a_client_writes_of_its_request_id_and_attempts_refuses_nobody(
    runner: asyncio.Runner, hints: list[tuple[str, str]]
) -> None:
    fields = b"".join(f"{name}: {text}\r\n".encode("latin-1", "replace") for name, text in hints)
    head = b"GET /v1/check/a HTTP/1.1\r\nhost: a\r\nx-sluice-app: app_1\r\n" + fields + b"\r\n"
    for plain in (True, False):
        answers, engine = converse(runner, [head], plain)
        assert [answer.status for answer in parse(answers)] == [200]
        assert_valid(engine)


@given(text=st.text(max_size=200) | st.sampled_from(["r" * 129, "a b", "\x00", "é"]))
def test_an_odd_request_id_costs_a_body_of_requests_only_itself(text: str) -> None:
    fields = {"app": "app_1", "method": "GET", "path": "/"}
    body = msgspec.json.encode({"requests": [fields | {"request_id": text}, fields]})
    read = decide_api.read_requests(decide_api.JSON, body)
    assert [one.request_id for one in read] == [check.request_id_of(text), ""]


def test_ordinary_checks_take_the_short_way() -> None:
    assert len(PLAIN) >= 4
    assert request(connection="close") not in PLAIN


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.sampled_from(SEEDS), min_size=1, max_size=5), changes=CHANGES)
def test_one_request_a_read_is_answered_as_one_stream(
    runner: asyncio.Runner, parts: list[bytes], changes: list
) -> None:
    parts[-1] = mutate(parts[-1], changes)
    parts = [p for p in parts if p]
    short, engine = converse(runner, parts)
    full, other = converse(runner, [b"".join(parts)], plain=False)
    assert_valid(engine)
    assert told(short) == told(full)
    assert other.seen == engine.seen


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.sampled_from(SEEDS), min_size=2, max_size=30),
    step=st.integers(16, 3000),
    places=PLACES,
)
def test_a_long_read_is_parsed_in_pieces_and_answered_alike(
    runner: asyncio.Runner, parts: list[bytes], step: int, places: list[int]
) -> None:
    data = b"".join(parts)
    whole, engine = converse(runner, [data])
    with (
        mock.patch.object(transport_module, "HEAD_STEP", step),
        mock.patch.object(transport_module, "BODY_STEP", step),
    ):
        answers, other = converse(runner, cut(data, places))
    assert answers == whole
    assert other.seen == engine.seen


@settings(max_examples=150, deadline=None)
@given(data=st.binary(min_size=1, max_size=400), places=PLACES)
def test_random_bytes_decide_nothing(
    runner: asyncio.Runner, data: bytes, places: list[int]
) -> None:
    _, engine = converse(runner, cut(data, places))
    assert engine.seen == []


def test_every_seed_is_answered_the_same_byte_by_byte(runner: asyncio.Runner) -> None:
    for seed in SEEDS:
        whole, engine = converse(runner, [seed])
        drip, other = converse(runner, [bytes([b]) for b in seed])
        assert whole == drip
        assert engine.seen == other.seen
        assert bool(whole) == bool(seed.strip())
