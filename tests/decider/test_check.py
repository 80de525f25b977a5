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


def test_a_credential_is_taken_up_to_its_bound() -> None:
    most = b"t" * check.MAX_TOKEN
    assert told(authorization=most).token == most.decode()
    for odd in (most + b"x", b"a\xc2\xa0b"):
        with pytest.raises(RefusedError):
            told(authorization=odd)


def test_a_request_id_is_taken_up_to_its_bound_and_an_odd_one_is_none() -> None:
    most = b"r" * check.MAX_REQUEST_ID
    assert told(x_request_id=most).request_id == most.decode()
    for odd in (most + b"x", b"a\xc2\xa0b", b"a b", b"\xff", b"a\tb", b""):
        assert told(x_request_id=odd).request_id == ""


def test_an_attempt_is_taken_from_zero_to_its_bound_and_an_odd_one_is_none() -> None:
    for number in (0, 1, check.MAX_ATTEMPT):
        assert told(x_sluice_attempt=b"%d" % number).attempt == number
    odd = [b"%d" % (check.MAX_ATTEMPT + 1), b"-1", b"1.0", b"", b" 1", b"+1", b"0" * 17, b"\xb2"]
    for text in odd:
        assert told(x_sluice_attempt=text).attempt == 0
        assert told(x_envoy_attempt_count=text).attempt == 0
        assert told(x_sluice_attempt=text, x_envoy_attempt_count=b"3").attempt == 2


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (b"0", 0),
        (b"", 0),
        (b"12", 12),
        (b"0" * 40 + b"12", 12),
        (b"%d" % check.MAX_BYTES, check.MAX_BYTES),
        (b"%d" % (check.MAX_BYTES + 1), check.MAX_BYTES),
        (b"9" * 5_000, check.MAX_BYTES),
    ],
)
def test_no_spelling_of_a_size_hides_it(written: bytes, size: int) -> None:
    assert told(x_sluice_bytes=written).payload_bytes == size


@pytest.mark.parametrize("written", [b"-1", b"1.0", b" 1", b"+1", b"NaN", b"1e3", b"-"])
def test_a_size_that_is_no_number_is_refused(written: bytes) -> None:
    with pytest.raises(RefusedError):
        told(x_sluice_bytes=written)


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
