"""What a check may say beside app, method and path: each field up to its bound, and no further."""

from __future__ import annotations

import pytest

from decider.contracts.requests import CheckRequest
from decider.http import check
from decider.http.problem import RefusedError
from tests.decider.http_client import World, request, run


def told(**fields: bytes) -> CheckRequest:
    request = CheckRequest("app_1", "GET", "/")
    check.add_optional(request, {name.replace("_", "-").encode(): v for name, v in fields.items()})
    return request


@pytest.mark.parametrize(
    ("field", "most", "seen"),
    [
        ("authorization", b"t" * check.MAX_TOKEN, "token"),
        ("x_request_id", b"r" * check.MAX_REQUEST_ID, "request_id"),
    ],
)
def test_a_text_is_taken_up_to_its_bound(field: str, most: bytes, seen: str) -> None:
    assert getattr(told(**{field: most}), seen) == most.decode()
    with pytest.raises(RefusedError):
        told(**{field: most + b"x"})
    with pytest.raises(RefusedError):
        told(**{field: b"a\xc2\xa0b"})  # not ASCII


@pytest.mark.parametrize(
    ("field", "most", "seen"),
    [
        ("x_sluice_attempt", check.MAX_ATTEMPT, "attempt"),
        ("x_sluice_bytes", check.MAX_BYTES, "payload_bytes"),
    ],
)
def test_a_number_is_taken_from_zero_to_its_bound(field: str, most: int, seen: str) -> None:
    for number in (0, 1, most):
        assert getattr(told(**{field: b"%d" % number}), seen) == number
    for text in (b"%d" % (most + 1), b"-1", b"1.0", b" 1", b"+1", b"0" * 17):
        with pytest.raises(RefusedError):
            told(**{field: text})


def test_a_size_that_a_gateway_leaves_empty_is_not_stated() -> None:
    assert told(x_sluice_bytes=b"").payload_bytes == 0
    empty = request().replace(b"\r\n\r\n", b"\r\nx-sluice-bytes: \r\n\r\n")

    async def ask(world: World) -> list[int]:
        return [(await world.one(empty)).status for _ in range(2)]

    assert run(ask) == [200, 200]


def test_a_credential_is_read_without_its_scheme() -> None:
    assert told(authorization=b"Bearer tok_1").token == "tok_1"
    assert told(authorization=b"tok_1").token == "tok_1"


@pytest.mark.parametrize(("count", "attempt"), [(b"0", 0), (b"1", 0), (b"3", 2)])
def test_envoy_counts_the_first_try_as_one(count: bytes, attempt: int) -> None:
    assert told(x_envoy_attempt_count=count).attempt == attempt
    assert told(x_envoy_attempt_count=count, x_sluice_attempt=b"7").attempt == 7
