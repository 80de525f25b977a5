"""Outcomes reach the stream from a log that rotates, is emptied, is hostile, and while Valkey comes
and goes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.requests import Outcome
from decider.contracts.sealed import outcomes as sealing
from decider.contracts.sealed.codes import SealError
from decider.contracts.store import GATEWAYS_KEY, OUTCOMES_STREAM, GatewayStatus
from decider.node import feedback
from decider.node.feedback import Feedback, Tail, outcome

NOW = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC).timestamp()


def line(**changes: object) -> bytes:
    told: dict[str, object] = {
        "ts": "2026-03-01T12:00:00.250Z",
        "method": "GET",
        "path": "/v2/orders/1",
        "status": 200,
        "duration_ms": 250,
        "app": "app-1",
        "request_id": "r-1",
        "decision": "dec_" + "a" * 32,
        "service": "orders-read",
        "source": "127.0.0.1",
        "bytes_in": 0,
        "bytes_out": 120,
        "flags": "-",
    }
    return json.dumps(told | changes).encode()


def of_nginx(**changes: object) -> bytes:
    """The same request as nginx tells of it: by its end, in seconds, and by its own names."""
    told = json.loads(line()) | {"ended": f"{NOW - 0.5:.3f}", "duration_s": 0.25}
    del told["ts"], told["duration_ms"], told["flags"]
    return json.dumps(told | changes).encode()


def of_caddy(**changes: object) -> bytes:
    """The same request as Caddy tells of it."""
    fields = {
        "Sluice-App": ["app-1"],
        "Sluice-Service": ["orders-read"],
        "Sluice-Decision": ["dec_" + "a" * 32],
    }
    request = {
        "remote_ip": "127.0.0.1",
        "method": "GET",
        "uri": "/v2/orders/1",
        "headers": {"X-Request-Id": ["r-1"], "X-Sluice-App": ["forged"]},
    }
    told: dict[str, object] = {
        "level": "info",
        "ts": NOW - 0.5,
        "logger": "http.log.access.log0",
        "request": request,
        "duration": 0.25,
        "size": 120,
        "status": 200,
        "resp_headers": fields,
    }
    return json.dumps(told | changes, separators=(",", ":")).encode()


def sent(client: redis.Redis) -> list[Outcome]:
    entries = client.xrange(OUTCOMES_STREAM)
    return [
        told
        for _, fields in entries
        for told in msgspec.msgpack.decode(fields[b"b"], type=list[Outcome])
    ]


Make = Callable[[Path, redis.Redis], Feedback]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Feedback] = []

    def one(path: Path, client: redis.Redis) -> Feedback:
        made.append(Feedback(Tail(path), client, clock=lambda: NOW))
        return made[-1]

    yield one
    for moving in made:
        moving.tail.close()


def test_each_sending_is_sealed_anew(make: Make, tmp_path: Path, valkey: redis.Redis) -> None:
    """What waited for Valkey is sent as of now, or deciders would take it for put back."""
    log, key = tmp_path / "log", b"k" * 32
    log.write_bytes(line() + b"\n")
    moving, clock = make(log, valkey), [NOW]
    moving.clock, moving.sealer = lambda: clock[0], sealing.Sealer(key, "edge")
    away = redis.Redis.from_url("redis://127.0.0.1:1/0")
    moving.client = away
    with pytest.raises(redis.ConnectionError):
        moving.step()
    moving.client, clock[0] = valkey, NOW + 3_600.0
    drain(moving)
    ((_, fields),) = valkey.xrange(OUTCOMES_STREAM)
    checker = sealing.Checker(key)
    checker.check(fields[b"b"], fields[b"s"], NOW + 3_600.0)
    with pytest.raises(SealError, match="sent them before"):
        checker.check(fields[b"b"], fields[b"s"], NOW + 3_600.0)


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (None, 0o600, "cannot be read"),
        ("ab" * 32, 0o604, "can be read by everybody"),
        ("ab" * 31, 0o600, "holds 31 bytes, not 32"),
        ("key", 0o600, "is not hexadecimal text"),
    ],
)
def test_a_key_that_cannot_be_used_ends_the_start_with_a_sentence(
    tmp_path: Path, text: str | None, mode: int, says: str
) -> None:
    path = tmp_path / sealing.KEY_FILE
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(sealing.KeyFileError, match=says):
        sealing.read_key(path)


def drain(moving: Feedback) -> None:
    while moving.step():
        pass


def test_a_line_becomes_an_outcome_dated_when_the_response_ended() -> None:
    where = "GET /v2/orders/{id}"
    ids = "r-1", "dec_" + "a" * 32
    expected = Outcome("app-1", "orders-read", NOW - 0.5, 200, 250.0, *ids, 120, where)
    assert outcome(line(), NOW) == expected


@pytest.mark.parametrize(("form", "named"), [(of_nginx, ""), (of_caddy, "orders-read")])
def test_each_gateways_line_becomes_the_same_outcome(form: Callable[[], bytes], named: str) -> None:
    expected = outcome(line(), NOW)
    assert expected is not None
    assert outcome(form(), NOW) == msgspec.structs.replace(expected, named=named)


@pytest.mark.parametrize(
    "text",
    [
        of_nginx(service=""),
        of_nginx(status=499),
        of_nginx(app=""),
        of_caddy(resp_headers={}),
        of_caddy(status=0),
    ],
)
def test_a_refused_request_of_any_gateway_is_no_outcome(text: bytes) -> None:
    assert outcome(text, NOW) is None


@pytest.mark.parametrize("form", [line, of_nginx])
def test_bytes_that_a_client_wrote_cost_the_line_nothing(form: Callable[..., bytes]) -> None:
    text = form(path="/v2/orders/WRITTEN", request_id="WRITTEN").replace(b"WRITTEN", b"\xff\xfe")
    told = outcome(text, NOW)
    assert told is not None
    assert (told.status, told.request_id) == (200, "")


@pytest.mark.parametrize(
    "text",
    [
        of_nginx(ended=None),
        of_nginx(ended="nan"),
        of_nginx(duration_s=None),
        of_nginx(duration_s=-1),
        of_caddy(ts="now"),
        of_caddy(ts=1e300),
        of_caddy(duration=-1),
        of_caddy(request={"method": "GET", "uri": "/", "headers": {"X-Request-Id": 7}}),
        of_caddy(resp_headers={"Sluice-App": ["a b"], "Sluice-Service": ["search"]}),
    ],
)
def test_a_hostile_line_of_any_gateway_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, OverflowError, RecursionError)):
        outcome(text, NOW)


def test_a_client_cannot_make_its_line_look_like_caddys() -> None:
    written = '","request":{"method":"GET","uri":"/"},"x":"'
    told = outcome(of_nginx(path=written), NOW)
    assert told is not None
    assert told.app == "app-1"


@pytest.mark.parametrize(("named", "told"), [("search", "search"), (None, ""), ("a b", "")])
def test_an_outcome_tells_which_service_the_gateway_named(named: str | None, told: str) -> None:
    read = outcome(line(named=named), NOW)
    assert read is not None
    assert read.named == told


@pytest.mark.parametrize(
    ("changes", "endpoint"),
    [
        ({"method": "POST", "path": "/v2/login?user=a@b.example&code=77"}, "POST /v2/login"),
        ({"path": "/v2/orders/ord_8fa2c0/lines/17"}, "GET /v2/orders/{id}/lines/{id}"),
        ({"path": "/v2//orders/./7/;x"}, "GET /v2/orders/{id}"),
        ({"path": "/" + "a/" * 500}, "GET " + "/a" * 96 + "/{text}"),
        ({"path": "/" + "a/" * 5_000}, "GET /{unreadable}"),
        ({"method": "BREW"}, ""),
        ({"method": "G" * 5_000}, ""),
        ({"path": "*"}, "GET /{unreadable}"),
        ({"path": None}, ""),
        ({"method": None}, ""),
        ({"path": ""}, ""),
    ],
)
def test_an_outcome_names_its_endpoint_without_ids_and_query(
    changes: dict[str, object], endpoint: str
) -> None:
    told = outcome(line(**changes), NOW)
    assert told is not None
    assert told.endpoint == endpoint


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": "UAEX"},
        {"flags": "RL"},
        {"service": None},
        {"app": None},
        {"status": 0},
        {"details": "jwt_authn_access_denied{Jwt_is_expired}"},
        {"details": "rbac_access_denied_matched_policy[blocked]"},
    ],
)
def test_what_never_reached_a_service_is_no_outcome(changes: dict[str, object]) -> None:
    assert outcome(line(**changes), NOW) is None


def test_a_service_that_could_not_be_reached_is_an_outcome() -> None:
    told = outcome(line(flags="UF,URX", status=503), NOW)
    assert told is not None
    assert told.status == 503


HOSTILE = [
    *(b"", b"{", b"\xff\xfe", b"[1]", b'{"ts": 1e400}', b"[" * 50_000, b'{"x": ' + b"[" * 50_000),
    *(
        line(app="a b"),
        line(app="x" * 200),
        line(status="x"),
        line(status=99),
        line(duration_ms=-1),
        line(duration_ms=1e308),
    ),
    *(line(ts="9999-12-31T23:59:59Z"), line(ts="0001-01-01T00:00:00Z")),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_line_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, OverflowError, RecursionError)):
        outcome(text, NOW)


@given(st.binary(max_size=200))
def test_no_line_can_raise_anything_else(text: bytes) -> None:
    try:
        outcome(text, NOW)
    except (ValueError, OverflowError):
        return


def test_hostile_lines_are_counted_and_the_others_sent(
    make: Make, tmp_path: Path, valkey: redis.Redis
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n".join([line(), *HOSTILE, b"x" * 100_000, line(request_id="r-2"), b""]))
    moving = make(path, valkey)
    drain(moving)
    assert [told.request_id for told in sent(valkey)] == ["r-1", "r-2"]
    assert moving.skipped == len(HOSTILE) + 1


def test_a_line_longer_than_any_read_is_passed_over(
    make: Make, tmp_path: Path, valkey: redis.Redis
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (3 * feedback.READ_BYTES) + b"\n" + line() + b"\n")
    moving = make(path, valkey)
    for _ in range(8):
        moving.step()
    assert [told.request_id for told in sent(valkey)] == ["r-1"]


def test_half_a_line_waits_for_its_end(make: Make, tmp_path: Path, valkey: redis.Redis) -> None:
    path = tmp_path / "log"
    path.write_bytes(line()[:40])
    moving = make(path, valkey)
    drain(moving)
    assert sent(valkey) == []
    with path.open("ab") as file:
        file.write(line()[40:] + b"\n")
    drain(moving)
    assert len(sent(valkey)) == 1


def test_rotation_and_truncation_lose_nothing(
    make: Make, tmp_path: Path, valkey: redis.Redis
) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(request_id="1") + b"\n")
    moving = make(path, valkey)
    drain(moving)
    with path.open("ab") as file:
        file.write(line(request_id="2") + b"\n")
    path.rename(tmp_path / "log.1")
    path.write_bytes(line(request_id="3") + b"\n")
    drain(moving)
    drain(moving)
    path.write_bytes(b"")
    drain(moving)
    path.write_bytes(line(request_id="4") + b"\n")
    drain(moving)
    assert [told.request_id for told in sent(valkey)] == ["1", "2", "3", "4"]


def test_a_long_log_is_emptied_once_read(
    make: Make, tmp_path: Path, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "TRUNCATE_AT", 1000)
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as writer:
        writer.write((line() + b"\n") * 10)
        moving = make(path, valkey)
        drain(moving)
        assert path.stat().st_size == 0
        writer.write(line(request_id="after") + b"\n")
    drain(moving)
    assert sent(valkey)[-1].request_id == "after"


def test_a_restart_goes_on_where_it_stopped(
    make: Make, tmp_path: Path, valkey: redis.Redis
) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(request_id="1") + b"\n")
    drain(make(path, valkey))
    with path.open("ab") as file:
        file.write(line(request_id="2") + b"\n")
    drain(make(path, valkey))
    assert [told.request_id for told in sent(valkey)] == ["1", "2"]


def test_while_valkey_is_away_the_place_is_kept(
    make: Make, tmp_path: Path, valkey: redis.Redis
) -> None:
    path = tmp_path / "log"
    path.write_bytes(line() + b"\n")
    moving = make(path, redis.Redis(port=1, socket_connect_timeout=0.2))
    for _ in range(3):
        with pytest.raises(redis.RedisError):
            moving.step()
    moving.client = valkey
    drain(moving)
    assert len(sent(valkey)) == 1


def test_too_much_unread_log_is_given_up_from_its_oldest_end(
    make: Make, tmp_path: Path, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MAX_BEHIND", 5000)
    monkeypatch.setattr(feedback, "KEPT_BEHIND", 1500)
    path = tmp_path / "log"
    path.write_bytes(b"".join(line(request_id=str(i)) + b"\n" for i in range(100)))
    moving = make(path, valkey)
    drain(moving)
    got = [int(told.request_id) for told in sent(valkey)]
    assert got == list(range(100 - len(got), 100))
    assert 1 <= len(got) < 10
    assert moving.tail.given_up == 100 - len(got)
    moving.tell()
    (told,) = valkey.hvals(GATEWAYS_KEY)
    assert msgspec.msgpack.decode(told, type=GatewayStatus).given_up == 100 - len(got)


def test_while_valkey_is_away_the_log_takes_bounded_room_and_every_line_is_counted(
    make: Make, tmp_path: Path, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MAX_BEHIND", 200_000)
    monkeypatch.setattr(feedback, "KEPT_BEHIND", 50_000)
    monkeypatch.setattr(feedback, "READ_BYTES", 20_000)
    path, written, waits = tmp_path / "log", 0, []
    path.touch()
    moving = make(path, redis.Redis(port=1, socket_connect_timeout=0.2))

    class Waiting:
        """Writes a megabyte each time the program waits, ten times, and says when it is enough."""

        def is_set(self) -> bool:
            return len(waits) > 20

        def wait(self, _: float) -> None:
            nonlocal written
            waits.append(allocated(path))
            if len(waits) <= 10:
                with path.open("ab") as gateway:
                    gateway.write((line() + b"\n") * 3_000)
                written += 3_000

    moving.run(Waiting())
    # the first wait of a round may come before the log is bounded, the second comes after
    assert min(waits[10:12]) < 400_000
    assert waits[-1] < 400_000
    moving.client = valkey
    drain(moving)
    assert moving.tail.given_up + len(sent(valkey)) == written
    assert moving.skipped == 0


def allocated(path: Path) -> int:
    """Bytes that a file takes of the disk."""
    return path.stat().st_blocks * 512


def test_a_log_that_is_never_read_to_its_end_gives_the_disk_back_what_was_read(
    make: Make, tmp_path: Path, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "TRUNCATE_AT", 100_000)
    monkeypatch.setattr(feedback, "READ_BYTES", 20_000)
    path = tmp_path / "log"
    path.touch()
    moving, most = make(path, valkey), 0
    for _ in range(200):
        # the gateway is as quick as the reader
        with path.open("ab") as gateway:
            gateway.write((line() + b"\n") * 60)
        moving.step()
        most = max(most, allocated(path))
    drain(moving)
    assert most < 400_000
    assert len(sent(valkey)) == moving.sent == 200 * 60


def test_ten_thousand_lines_take_well_under_a_second(
    make: Make, tmp_path: Path, valkey: redis.Redis
) -> None:
    path = tmp_path / "log"
    path.write_bytes((line() + b"\n") * 10_000)
    moving = make(path, valkey)
    begun = time.perf_counter()
    drain(moving)
    assert moving.sent == 10_000
    assert time.perf_counter() - begun < 1.0


class Interrupted(Feedback):
    """Finds Valkey away for some steps, then nothing more in the log."""

    def __init__(self, stop: threading.Event, away: int) -> None:
        super().__init__(Tail(Path("none")), client=None)  # type: ignore[arg-type]
        self._stop, self._away, self._steps = stop, away, 0

    def tell(self) -> None:
        """Tell nothing: this one has no store."""

    def step(self) -> bool:
        self._steps += 1
        if self._steps <= self._away:
            raise redis.ConnectionError("refused")
        if self._steps > self._away + 1:
            self._stop.set()
        return self._steps == self._away + 1


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []


def test_valkey_away_is_said_once_and_again_with_how_long_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, stop = Clock(), threading.Event()

    def wait(seconds: float) -> bool:
        clock.waits.append(seconds)
        clock.now += seconds
        return stop.is_set()

    monkeypatch.setattr(stop, "wait", wait)
    monkeypatch.setattr(feedback.time, "monotonic", lambda: clock.now)
    with caplog.at_level("INFO", logger=feedback.log.name):
        Interrupted(stop, away=3).run(stop)
    assert [record.getMessage() for record in caplog.records] == [
        "Valkey is away (refused); the log is kept meanwhile.",
        "Valkey answers again after 3 s.",
    ]
    # a second after each failure; a whole pause only after what took no time
    assert clock.waits == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, feedback.EVERY_S]
