"""The formats of access logs: what each line is read as, how a format is told, hostile lines."""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.normalise.addresses import address
from learning.logs import formats
from learning.logs.access_log import ReadReport, parse_line, pseudonym, read_entries
from learning.logs.entry import LineError, LogEntry
from tests.learning import log_lines
from tests.learning.log_lines import WRITERS, mixed
from tests.learning.logs import KEY

# Lines as the documentation of each project shows them, with documentation addresses.
DOCUMENTED = {
    "common": (
        '192.0.2.9 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326'
    ),
    "combined": (
        '192.0.2.9 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326'
        ' "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"'
    ),
    "vhost": (
        "www.example.com:80 192.0.2.9 - - [10/Oct/2000:13:55:36 -0700]"
        ' "GET /apache_pb.gif HTTP/1.0" 200 2326 "http://www.example.com/start.html"'
        ' "Mozilla/4.08 [en] (Win98; I ;Nav)"'
    ),
    "traefik": (
        '192.0.2.9 - - [10/Oct/2000:20:55:36 +0000] "GET /apache_pb.gif HTTP/1.1" 200 2326 "-"'
        ' "curl/7.52.1" 4 "whoami@docker" "http://172.18.0.3:80" 7ms'
    ),
    "envoy": (
        '[2016-04-15T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100'
        ' "192.0.2.9" "nsq2http" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations"'
        ' "tcp://10.0.2.1:80"'
    ),
    "alb": (
        "http 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.0.2.9:2817"
        " 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366"
        ' "GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - -'
        " arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-t/73e2d6bc24d8a067"
        ' "Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0 2018-07-02T22:22:48.364000Z'
        ' "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"'
    ),
    "caddy": (
        '{"level":"info","ts":1646861401.5241024,"logger":"http.log.access",'
        '"msg":"handled request","request":{"remote_ip":"192.0.2.9","remote_port":"41342",'
        '"client_ip":"192.0.2.9","proto":"HTTP/2.0","method":"GET","host":"localhost","uri":"/",'
        '"headers":{"User-Agent":["curl/7.82.0"],"Accept":["*/*"]},"tls":{"resumed":false,'
        '"version":772,"cipher_suite":4865,"proto":"h2","server_name":"example.com"}},'
        '"bytes_read":0,"user_id":"","duration":0.000929675,"size":10900,"status":200,'
        '"resp_headers":{"Server":["Caddy"],"Content-Encoding":["gzip"]}}'
    ),
    "traefik-json": (
        '{"ClientAddr":"192.0.2.9:40162","ClientHost":"192.0.2.9","ClientPort":"40162",'
        '"ClientUsername":"-","DownstreamContentSize":81,"DownstreamStatus":200,'
        '"Duration":9876543,"OriginStatus":200,"RequestContentSize":0,"RequestHost":"w.example",'
        '"RequestMethod":"GET","RequestPath":"/","RequestProtocol":"HTTP/1.1","RetryAttempts":0,'
        '"RouterName":"whoami@docker","ServiceName":"whoami@docker",'
        '"StartUTC":"2022-03-09T21:30:01.512345678Z","entryPointName":"web","level":"info",'
        '"msg":"","time":"2022-03-09T21:30:01Z"}'
    ),
    "envoy-json": (
        '{":authority":"www.example.com","bytes_received":0,"bytes_sent":467,'
        '"downstream_local_address":"10.0.0.8:10080",'
        '"downstream_remote_address":"192.0.2.9:41266","duration":22,"method":"GET",'
        '"protocol":"HTTP/1.1","response_code":200,"response_flags":"-",'
        '"start_time":"2023-04-13T09:15:04.123Z","upstream_host":"10.0.0.9:3000",'
        '"user-agent":"curl/7.81.0","x-envoy-origin-path":"/get","x-forwarded-for":"10.0.0.7",'
        '"x-request-id":"53b9e7f3-ad1a-4ba7-b3e2-1f0d3a1e5c2b"}'
    ),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_line_of_the_documentation_is_read_and_recognised(name: str) -> None:
    raw = DOCUMENTED[name].encode()
    choice = formats.choose([raw])
    assert choice.form is not None
    assert choice.form.name == name
    entry = choice.read(raw, KEY)
    assert entry.app == pseudonym(KEY, "192.0.2.9")
    assert entry.path in ("/apache_pb.gif", "/", "/get", "/api/v1/locations")
    assert entry.status in (200, 204)
    assert 946_684_800 < entry.at < 1_700_000_000
    assert entry.served


def test_every_format_has_a_documented_line_and_a_writer() -> None:
    names = {one.name for one in formats.FORMATS}
    assert names == DOCUMENTED.keys() == {form for _, form, _ in WRITERS.values()}


def expected(request: log_lines.Sent, missing: frozenset[str]) -> LogEntry:
    source = pseudonym(KEY, address(request.client))
    return LogEntry(
        at=request.at.timestamp(),
        app=source,
        source=source,
        method=request.method,
        path=request.path,
        status=request.status,
        duration_ms=None if "took_ms" in missing else request.took_ms,
        bytes_in=0 if "received" in missing else request.received,
        bytes_out=request.sent,
        request_id="" if "request_id" in missing else request.request_id,
        served=True,
        agent=0 if "agent" in missing else zlib.crc32(request.agent.encode()) + 1,
        via_cdn=False,
    )


def write(path: Path, lines: list[str]) -> tuple[list[LogEntry], ReadReport]:
    path.write_text("\n".join(lines))
    report = ReadReport()
    return list(read_entries(path, KEY, report)), report


def rounded(entry: LogEntry) -> tuple[object, ...]:
    """Microseconds and milliseconds, beyond which formats round."""
    fields = {name: getattr(entry, name) for name in LogEntry.__slots__}
    took = fields.pop("duration_ms")
    return (round(fields.pop("at"), 3), None if took is None else round(took, 3), *fields.items())


@pytest.mark.parametrize("server", WRITERS)
def test_a_hundred_mixed_lines_come_back_as_they_were_sent(server: str, tmp_path: Path) -> None:
    writer, form, missing = WRITERS[server]
    requests = mixed()
    found, report = write(tmp_path / "a.log", [writer(request) for request in requests])
    assert [rounded(one) for one in found] == [
        rounded(expected(request, missing)) for request in requests
    ]
    ((_, choice),) = report.choices
    assert choice.form is formats.by_name(form)
    assert (choice.fitted, choice.of, report.skipped.total()) == (100, 100, 0)


@pytest.mark.parametrize("server", WRITERS)
def test_a_named_format_reads_what_auto_reads(server: str) -> None:
    writer, form, _ = WRITERS[server]
    raw = writer(mixed(1)[0]).encode()
    assert parse_line(raw, KEY, form) == parse_line(raw, KEY)


def test_the_format_of_most_lines_is_taken_and_the_others_are_counted(tmp_path: Path) -> None:
    requests = mixed()
    lines = [
        log_lines.common(r) if n % 3 == 0 else log_lines.caddy(r) for n, r in enumerate(requests)
    ]
    found, report = write(tmp_path / "a.log", lines)
    assert report.choices[0][1].form is formats.by_name("caddy")
    assert (len(found), report.skipped) == (66, {"not a JSON line in Caddy's form": 34})
    assert report.first_skipped == {"not a JSON line in Caddy's form": ("a.log", 1)}


def test_only_the_first_hundred_lines_decide(tmp_path: Path) -> None:
    requests = mixed(400)
    lines = [log_lines.vhost(r) for r in requests[:100]]
    lines += [log_lines.common(r) for r in requests[100:]]
    found, report = write(tmp_path / "a.log", lines)
    assert len(found) == 100
    assert report.skipped == {"not a line of the vhost format": 300}
    assert report.doubtful


def test_a_user_name_of_two_words_is_no_virtual_host() -> None:
    line = log_lines.combined(mixed(1)[0]).replace(" frank ", " john smith ")
    assert parse_line(line.encode(), KEY).app == pseudonym(KEY, address(mixed(1)[0].client))


def test_a_virtual_host_that_is_an_address_is_not_the_client() -> None:
    line = log_lines.vhost(mixed(1)[0]).replace("shop.example:443", "192.0.2.200:443")
    assert parse_line(line.encode(), KEY).app == pseudonym(KEY, address(mixed(1)[0].client))


def test_a_client_cannot_choose_its_address_by_a_forwarded_header() -> None:
    real = mixed(1)[0]
    line = log_lines.envoy(real).replace("10.9.9.9", "192.0.2.77, 192.0.2.78")
    assert parse_line(line.encode(), KEY).source == pseudonym(KEY, address(real.client))


def test_nginx_is_a_name_of_the_combined_format() -> None:
    assert formats.by_name("nginx") is formats.by_name("combined")


def test_an_unknown_format_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x")
    with pytest.raises(ValueError, match=r"no format 'iis'.*auto, nginx, alb.*envoy-json"):
        list(read_entries(tmp_path / "a.log", KEY, ReadReport(), "iis"))


@pytest.mark.parametrize(
    "prefix",
    [
        "Oct 10 13:00:00 web1 nginx: ",
        "Oct  1 03:00:00 web1 nginx[812]: ",
        "<190>Oct 10 13:00:00 web1 nginx: ",
        "2024-10-10T13:00:00.123456+00:00 web1 nginx: ",
        "<190>1 2024-10-10T13:00:00.000Z web1.example nginx 812 - - ",
        '<190>1 2024-10-10T13:00:00Z web1 nginx 812 ID47 [a@1 k="v\\]"][b@2 x="y"] ',
        "<190>1 2024-10-10T13:00:00Z web1 nginx - - - \ufeff",
        "\ufeff",
    ],
)
@pytest.mark.parametrize("server", ["combined", "vhost", "caddy", "envoy"])
def test_what_a_system_log_puts_before_a_line_is_left_out(prefix: str, server: str) -> None:
    line = WRITERS[server][0](mixed(1)[0])
    assert parse_line((prefix + line).encode(), KEY) == parse_line(line.encode(), KEY)


def test_a_byte_order_mark_before_latin_1_is_left_out() -> None:
    line = log_lines.combined(mixed(1)[0]).encode("latin-1").replace(b"curl", b"c\xfcrl")
    assert parse_line(b"\xef\xbb\xbf" + line, KEY).app == parse_line(line, KEY).app


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("-", "no client address"),
        ("Oct", "the client is not an address"),
        ("client.example", "the client is not an address"),
        ("192.0.2.300", "the client is not an address"),
        ("unix:", "the client is not an address"),
    ],
)
def test_a_line_without_a_clients_address_is_skipped(written: str, reason: str) -> None:
    _, _, rest = log_lines.combined(mixed(1)[0]).partition(" ")
    with pytest.raises(LineError, match=reason):
        parse_line(f"{written} {rest}".encode(), KEY)


@pytest.mark.parametrize(
    "written", ["192.0.2.1:4711", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:4711", "192.0.2.1"]
)
def test_one_address_is_one_client_however_it_is_written(written: str) -> None:
    _, _, rest = log_lines.combined(mixed(1)[0]).partition(" ")
    assert parse_line(f"{written} {rest}".encode(), KEY).app == pseudonym(KEY, "192.0.2.1")


HOSTILE_VALUES = [
    None,
    True,
    -1,
    0,
    1e308,
    -1e308,
    10**30,
    "NaN",
    "1e999",
    "-5",
    "9" * 60,
    "",
    "-",
    [],
    {},
    [[]],
    "\x00\x1b[31m",
    "\ud7ff",
    "²",
    "1_0",
]


@pytest.mark.parametrize("server", ["caddy", "traefik-json", "envoy-json", "gateway"])
def test_no_value_of_a_json_field_can_do_more_than_skip_its_line(server: str) -> None:
    good = json.loads(WRITERS[server][0](mixed(1)[0]))
    inner = [(good["request"], name) for name in good.get("request", ())]
    for holder, name in [(good, name) for name in good] + inner:
        kept = holder[name]
        for value in HOSTILE_VALUES:
            holder[name] = value
            with contextlib.suppress(LineError):
                entry = parse_line(json.dumps(good).encode(), KEY)
                assert 100 <= entry.status <= 599
                assert 0 <= entry.bytes_in <= 10**12
                assert 0 <= entry.bytes_out <= 10**12
                assert entry.duration_ms is None or 0 <= entry.duration_ms <= 3_600_000
                assert 631_152_000 <= entry.at <= 1e11
                assert entry.path.isascii()
        holder[name] = kept


@pytest.mark.parametrize(
    "raw",
    [
        b'{"ts": ' + b"[" * 50_000,
        b'{"ts": ' + b'{"a":' * 10_000,
        b'{"ts": ' + b"9" * 60_000 + b"}",
        b'{"ts": NaN, "method": "GET", "path": "/", "status": 200}',
        b'{"ts": Infinity, "status": -200}',
        b'{"status": "200"}',
        b"[" * 70_000,
        bytes(range(1, 256)) * 100,
        b"192.0.2.1 - - [" + b"[" * 60_000,
    ],
)
@pytest.mark.parametrize("name", formats.NAMES)
def test_damaged_and_hostile_lines_are_skipped_in_every_format(raw: bytes, name: str) -> None:
    with pytest.raises(LineError):
        parse_line(raw, KEY, name)


@given(st.sampled_from(sorted(WRITERS)), st.integers(0, 900), st.binary(max_size=20))
def test_no_damage_to_a_good_line_can_do_more_than_skip_it(
    server: str, place: int, noise: bytes
) -> None:
    good = WRITERS[server][0](mixed(1)[0]).encode()
    with contextlib.suppress(LineError):
        entry = parse_line(good[:place] + noise + good[place + len(noise) :], KEY)
        assert entry.path.startswith("/")
        assert entry.path.isascii()
        assert 100 <= entry.status <= 599


QUARTER = formats.MAX_LINE // 4 - 100
PIECES = [
    "a",
    " ",
    '"',
    "\\",
    "[",
    "]",
    "a ",
    '\\"',
    "{",
    '{"a":',
    "<1>1 ",
    "[a] ",
    "- ",
    '"" ',
    "1.",
    'a - - [x] "',
    '<1>1 a b c d e [a="\\]" ',
]
HEADS = ["", '192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "', "<1>1 - - - - - [", "http 1 a "]


def cost(raw: bytes) -> float:
    """The least processor time of some readings, in seconds."""
    best = float("inf")
    for _ in range(4):
        began = time.process_time()
        with contextlib.suppress(LineError):
            parse_line(raw, KEY)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("head", HEADS)
def test_a_line_costs_time_in_proportion_to_its_length(head: str) -> None:
    spent = [0.0, 0.0, 0.0]
    for piece in PIECES:
        whole = head + piece * (4 * QUARTER // len(piece))
        for k, times in enumerate((1, 2, 4)):
            spent[k] += cost(whole[: times * QUARTER].encode())
    # a quadratic pattern costs 16 times as much for four times the length
    assert spent[2] < 8 * spent[0]
    assert spent[1] < 4 * spent[0]


def test_a_line_beyond_the_longest_costs_nothing() -> None:
    assert cost(b"a" * formats.MAX_LINE * 8) < 0.01
