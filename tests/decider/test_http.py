"""The decider over HTTP: what gateways and callers ask, and what they get."""

import msgspec
import pytest
from msgspec import msgpack

from decider.contracts.requests import CheckRequest
from decider.http import ratelimit_fields
from tests.decider.http_client import World, request, run

CHECK = request()


def test_a_check_is_admitted_with_its_decision_id_and_rate_limit() -> None:
    async def check(world: World) -> None:
        answer = await world.one(CHECK)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["sluice-action"] == "admit"
        assert answer.headers["sluice-decision"] == "dec_" + "0" * 32
        assert ratelimit_fields.parse(answer.headers["ratelimit"]) == {"burst": {"r": 250, "t": 4}}
        assert ratelimit_fields.parse(answer.headers["ratelimit-policy"]) == {
            "burst": {"q": 300, "w": 20}
        }
        assert world.engine.seen == [CheckRequest("app_1", "GET", "/v2/orders/1")]

    run(check)


@pytest.mark.parametrize(
    ("action", "status", "wait"),
    [("defer", 429, "3"), ("batch", 429, "3"), ("shed", 503, "3"), ("block", 403, None)],
)
def test_a_refusal_carries_its_status_and_a_problem(
    action: str, status: int, wait: str | None
) -> None:
    async def check(world: World) -> None:
        answer = await world.one(request(x_sluice_app=action))
        assert answer.status == answer.json["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers.get("retry-after") == wait
        assert answer.json["type"] == f"urn:sluice:problem:{action}"
        assert answer.json["decision"] == answer.headers["sluice-decision"]
        assert answer.json.get("batch") == (
            "POST /v2/orders:batchGet" if action == "batch" else None
        )

    run(check)


@pytest.mark.parametrize("plain", [True, False])
def test_everything_a_gateway_says_reaches_the_engine(plain: bool) -> None:
    fields = {
        "authorization": "Bearer s3cret",
        "x_forwarded_for": "203.0.113.9, 10.0.0.1",
        "x_sluice_source": "[2001:DB8::1]:443",
        "x_request_id": "req-1",
        "x_sluice_bytes": "120",
        "x_sluice_attempt": "2",
        "connection": "" if plain else "keep-alive",
    }

    async def check(world: World) -> None:
        asked = request("POST", "/v1/check/v2/orders?x=1", **fields)
        await world.ask(asked, asked, pause_s=0.05)
        assert (
            world.engine.seen
            == [
                CheckRequest(
                    "app_1", "POST", "/v2/orders", "s3cret", "2001:db8::/64", "req-1", 120, 2
                )
            ]
            * 2
        )

    run(check)


def test_envoy_counts_attempts_from_one() -> None:
    async def check(world: World) -> None:
        await world.ask(request(x_envoy_attempt_count="1"), request(x_envoy_attempt_count="3"))
        assert [r.attempt for r in world.engine.seen] == [0, 2]

    run(check)


def test_nginx_is_answered_with_what_it_understands() -> None:
    async def check(world: World) -> None:
        named = {"x_original_method": "PUT", "x_original_uri": "/v2/orders/9?a=b"}
        admitted = await world.one(request(target="/v1/check?answer=nginx", **named))
        refused = await world.one(
            request(target="/v1/check", x_sluice_answer="nginx", x_sluice_app="defer", **named)
        )
        wrong = await world.one(request(target="/v1/check?answer=nginx", x_sluice_app="", **named))
        assert [(a.status, a.headers["sluice-status"]) for a in (admitted, refused, wrong)] == [
            (200, "200"),
            (403, "429"),
            (403, "400"),
        ]
        assert world.engine.seen[0] == CheckRequest("app_1", "PUT", "/v2/orders/9")

    run(check)


def test_caddy_names_the_original_request_in_its_own_fields() -> None:
    async def check(world: World) -> None:
        answer = await world.one(
            request(
                target="/v1/check", x_forwarded_method="DELETE", x_forwarded_uri="/v2/orders/9?a=b"
            )
        )
        assert answer.status == 200
        assert world.engine.seen == [CheckRequest("app_1", "DELETE", "/v2/orders/9")]

    run(check)


def test_a_client_cannot_choose_nginx_answers_or_paths_through_envoy() -> None:
    async def check(world: World) -> None:
        answer = await world.one(
            request(
                target="/v1/check/real?answer=nginx", x_sluice_app="defer", x_original_uri="/fake"
            )
        )
        assert answer.status == 429
        assert world.engine.seen[0].path == "/real"

    run(check)


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PATCH", "PROPFIND"])
def test_any_method_may_be_the_original_one(method: str) -> None:
    async def check(world: World) -> None:
        assert (await world.one(request(method))).status == 200
        assert world.engine.seen[0].method == method

    run(check)


def test_the_answer_to_head_has_no_body() -> None:
    async def check(world: World) -> None:
        data = await world.raw(request("HEAD", x_sluice_app="defer"))
        assert data.startswith(b"HTTP/1.1 429 ")
        assert data.endswith(b"\r\n\r\n")
        assert world.engine.seen[0].method == "HEAD"

    run(check)


ODD = {
    "//a/./b/../%63/;x=1?next=/d": "/a/c",
    "/a%2Fb": "",
    "/a%00": "",
    "/" + "a" * 1024: "",
    "/a#b": "/a",
    "/caf\xe9": "/caf%EF%BF%BD",
}


def test_every_reader_gives_a_path_its_one_reading_and_refuses_nobody_for_it() -> None:
    named = {"x_original_method": "GET"}
    asked = [
        [
            *([request(target="/v1/check" + path)] if path.isascii() else []),
            request(target="/v1/check?answer=nginx", x_original_uri=path, **named),
            request(target="/v1/check", x_forwarded_method="GET", x_forwarded_uri=path),
        ]
        for path in ODD
    ]
    listed = [{"app": "app_1", "method": "GET", "path": path} for path in ODD if path.isascii()]
    body = msgspec.json.encode({"requests": listed})

    async def check(world: World) -> None:
        for checks, read in zip(asked, ODD.values(), strict=True):
            for one in checks:
                assert (await world.one(one)).status == 200
                assert world.engine.seen[-1].path == read
        await world.one(request("POST", "/v1/decide", body, content_type="application/json"))
        assert [r.path for r in world.engine.seen[-len(listed) :]] == list(ODD.values())[:-1]
        await world.one(request(target="http://decider/v1/check/absolute"))
        assert world.engine.seen[-1].path == "/absolute"

    run(check)


@pytest.mark.parametrize("name", ["payments", "no such service", "x" * 900, "\xc3\xa9"])
def test_the_gateway_names_the_service_and_no_name_refuses_anybody(name: str) -> None:
    twice = request(x_sluice_service="a", X_Sluice_Service="b")

    async def check(world: World) -> None:
        assert (await world.one(request(x_sluice_service=name))).status == 200
        assert world.engine.seen[-1].service == name.encode("latin-1").decode()
        assert (await world.one(twice)).status == 200
        assert world.engine.seen[-1].service == "a,b"
        assert (await world.one(request())).status == 200
        assert world.engine.seen[-1].service == ""

    run(check)


def test_pipelined_answers_come_in_order_whatever_they_are() -> None:
    decide = msgspec.json.encode(
        {"requests": [{"app": "app_1", "method": "GET", "path": "/"}] * 600}
    )
    batch = request("POST", "/v1/decide", decide, content_type="application/json")

    async def check(world: World) -> None:
        sent = b"".join(
            [
                CHECK,
                CHECK,
                request(target="/healthz"),
                CHECK,
                request(x_sluice_app=""),
                CHECK,
                batch,
                CHECK,
                batch,
            ]
        )
        answers = await world.ask(sent)
        assert [a.status for a in answers] == [200, 200, 200, 200, 400, 200, 200, 200, 200]
        assert [answers[k].number for k in (0, 1, 3, 5, 7)] == [0, 1, 2, 3, 604]
        assert len(answers[6].json["decisions"]) == 600
        assert max(world.engine.batches) <= 256

    run(check)


def test_requests_of_one_turn_are_decided_together() -> None:
    async def check(world: World) -> None:
        answers = await world.ask(CHECK * 100)
        assert [a.number for a in answers] == list(range(100))
        assert len(world.engine.batches) <= 2

    run(check)


def test_a_failing_engine_is_told_as_500_and_the_server_lives_on() -> None:
    async def check(world: World) -> None:
        broken = await world.one(request(x_sluice_app="broken"))
        body = msgspec.json.encode({"requests": [{"app": "broken", "method": "GET", "path": "/"}]})
        batch = await world.one(
            request("POST", "/v1/decide", body, content_type="application/json")
        )
        assert (broken.status, batch.status, world.server.stats.failed) == (500, 500, 2)
        assert (await world.one(CHECK)).status == 200

    run(check)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("application/json; charset=utf-8", msgspec.json), ("application/msgpack", msgpack)],
)
def test_decide_answers_in_the_form_it_was_asked(kind: str, codec: object) -> None:
    asked = [
        {"app": app, "method": "GET", "path": "/v2/orders", "payload_bytes": 5}
        for app in ("app_1", "batch", "block")
    ]
    body = codec.encode({"requests": asked})  # type: ignore[attr-defined]

    async def check(world: World) -> None:
        answer = await world.one(request("POST", "/v1/decide", body, content_type=kind))
        assert (answer.status, answer.headers["content-type"]) == (200, kind.partition(";")[0])
        decisions = codec.decode(answer.body)["decisions"]  # type: ignore[attr-defined]
        assert [(d["status"], d["action"], d["retry_after"]) for d in decisions] == [
            (200, "admit", 0),
            (429, "batch", 3),
            (403, "block", 0),
        ]
        assert decisions[0]["ratelimit"] == {
            "limit": 300,
            "window": 20,
            "remaining": 250,
            "reset": 4,
        }
        assert (decisions[0]["stage"], decisions[0]["reason"], decisions[0]["decision"]) == (
            "triage",
            "harmless",
            "dec_" + "0" * 32,
        )
        assert decisions[1]["batch"] == "POST /v2/orders:batchGet"

    run(check)


GOOD = '{"app":"app_1","method":"GET","path":"/"}'


@pytest.mark.parametrize(
    "wrong",
    [
        '{"app":"app_1","method":"GET","path":"/","attempt":NaN}',
        '{"app":"app_1","method":"GET","path":"/","payload_bytes":Infinity}',
        '{"app":"app_1","method":"GET","path":"/","payload_bytes":1e999}',
        '{"app":"app_1","method":"GET","path":"/","payload_bytes":-1}',
        '{"app":"app_1","method":"GET","path":"/","attempt":0.5}',
        '{"app":"app_1\\n","method":"GET","path":"/"}',
        '{"app":"","method":"GET","path":"/"}',
        '{"app":"é","method":"GET","path":"/"}',
        '{"app":"a,b","method":"GET","path":"/"}',
        '{"app":"' + "a" * 129 + '","method":"GET","path":"/"}',
        '{"app":"app_1","method":"get","path":"/"}',
        '{"app":"app_1","method":"GET"}',
        '{"app":"app_1","method":"GET","path":7}',
        '{"app":"app_1","method":"GET","path":"/","service":7}',
        '{"app":"app_1","method":"GET","path":"/","unknown":1}',
        '{"app":null,"method":"GET","path":"/"}',
        '{"app":"\\ud800","method":"GET","path":"/"}',
        "[" * 5000,
        "1",
    ],
)
def test_one_wrong_request_refuses_the_whole_body(wrong: str) -> None:
    body = f'{{"requests":[{GOOD},{wrong}]}}'.encode()

    async def check(world: World) -> None:
        answer = await world.one(
            request("POST", "/v1/decide", body, content_type="application/json")
        )
        assert (answer.status, answer.json["type"]) == (400, "urn:sluice:problem:malformed-request")
        assert world.engine.seen == []

    run(check)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"requests":[]}',
        b'{"requests":' + b"[" + b",".join([GOOD.encode()] * 1001) + b"]}",
    ],
)
def test_a_body_that_is_no_list_of_requests_is_refused(body: bytes) -> None:
    async def check(world: World) -> None:
        for kind in ("application/json", "application/msgpack"):
            assert (
                await world.one(request("POST", "/v1/decide", body, content_type=kind))
            ).status == 400
        assert world.engine.seen == []

    run(check)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content_type": "text/plain"},
        {"content_type": "application/json", "content_encoding": "gzip"},
    ],
)
def test_decide_takes_only_what_it_can_read(fields: dict[str, str]) -> None:
    async def check(world: World) -> None:
        assert (
            await world.one(request("POST", "/v1/decide", b'{"requests":[]}', **fields))
        ).status == 415

    run(check)


def test_healthz_tells_whether_there_is_a_config() -> None:
    async def check(world: World) -> int:
        answer = await world.one(request(target="/healthz"))
        assert answer.json["ml"] == "live"
        return answer.status

    assert run(check) == 200
    assert run(check, health={"config_version": None, "ml": "live"}) == 503


def test_metrics_are_prometheus_text() -> None:
    async def check(world: World) -> None:
        answer = await world.one(request(target="/metrics"))
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert answer.body == b"sluice_decisions_total 1\n"

    run(check)


@pytest.mark.parametrize(
    ("method", "target", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("GET", "/v1/checkers", 404, None),
        ("GET", "/v1/decide/1", 404, None),
        ("OPTIONS", "*", 404, None),
        ("GET", "/v1/decide", 405, "POST"),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("DELETE", "/metrics", 405, "GET, HEAD"),
    ],
)
def test_other_addresses_and_methods_are_refused(
    method: str, target: str, status: int, allow: str | None
) -> None:
    async def check(world: World) -> None:
        answer = await world.one(request(method, target))
        assert (answer.status, answer.headers.get("allow")) == (status, allow)
        assert answer.headers["content-type"] == "application/problem+json"

    run(check)
