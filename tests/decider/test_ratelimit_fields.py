"""The RateLimit fields: always well-formed, whatever the numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.http import ratelimit_fields

ANY_INT = st.integers(-(10**20), 10**20)


def fields_of(lines: str) -> dict[str, str]:
    assert lines.endswith("\r\n")
    return dict(line.split(": ", 1) for line in lines.split("\r\n")[:-1])


def test_the_fields_read_as_the_draft_writes_them() -> None:
    assert (
        ratelimit_fields.lines(300, 20, 0, 3.2)
        == 'ratelimit-policy: "burst";q=300;w=20\r\nratelimit: "burst";r=0;t=4\r\n'
    )


def test_a_wait_is_a_policy_of_its_own() -> None:
    fields = fields_of(ratelimit_fields.lines(50, 10, 50, 0.0, 16))
    assert fields["ratelimit-policy"] == '"retry";q=1;w=16, "burst";q=50;w=10'
    assert fields["ratelimit"] == '"retry";r=0;t=16, "burst";r=50;t=0'


@given(limit=ANY_INT, window=ANY_INT, remaining=ANY_INT, reset=st.floats())
def test_every_number_becomes_a_legal_integer(
    limit: int, window: int, remaining: int, reset: float
) -> None:
    fields = fields_of(ratelimit_fields.lines(limit, window, remaining, reset))
    numbers = (
        ratelimit_fields.parse(fields["ratelimit-policy"])["burst"]
        | ratelimit_fields.parse(fields["ratelimit"])["burst"]
    )
    assert set(numbers) == {"q", "w", "r", "t"}
    assert all(isinstance(n, int) and 0 <= n <= 999_999_999_999_999 for n in numbers.values())
    if 0 <= reset < 1e14:
        assert numbers["t"] == math.ceil(reset)


def test_the_parser_reads_lists_strings_and_flags() -> None:
    parsed = ratelimit_fields.parse('"burst";q=1;qu="requests" , "da\\"y";q=-2;x')
    assert parsed == {"burst": {"q": 1, "qu": "requests"}, 'da"y': {"q": -2, "x": True}}


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "burst;r=1",
        '"burst";r=1.5',
        '"burst";R=1',
        '"burst";r=1,',
        '"a" "b"',
        '"burst";r=1000000000000000',
        '"é";r=1',
    ],
)
def test_the_parser_refuses_what_the_draft_does_not_allow(wrong: str) -> None:
    with pytest.raises(ValueError, match="character"):
        ratelimit_fields.parse(wrong)
