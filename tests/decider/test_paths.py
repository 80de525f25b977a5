"""A path has one reading, however it is written. Envoy's own is met in tests/gateway."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.normalise.paths import MOST_CHARACTERS, path_of


@pytest.mark.parametrize(
    "written",
    [
        "/v2/payments/charges",
        "/v2/payments/charges/",
        "//v2///payments/charges//",
        "/v2/./payments/./charges/.",
        "/v2/orders/../payments/x/../charges",
        "/../../v2/payments/charges",
        "/v2/%70ayments/%63harges",
        "/v2/orders/%2e%2E/payments/charges",
        "/v2/payments;x/charges;y=1;z",
        "/v2/payments/charges/;",
        "/v2/orders/..;/payments/charges",
        "\\v2\\payments\\charges",
        "/v2/payments/charges?x=/../a%2Fb",
        "/v2/payments/charges#x",
        "https://api.example/v2/payments/charges",
    ],
)
def test_what_a_client_can_vary_is_one_path(written: str) -> None:
    assert path_of(written) == "/v2/payments/charges"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("/", "/"),
        ("/?x", "/"),
        ("/..", "/"),
        ("/V2/Payments", "/V2/Payments"),
        ("/v2/orders%3AbatchGet", "/v2/orders:batchGet"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/a%3Bb", "/a%3Bb"),
        ("/a%3fb%23", "/a%3Fb%23"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/{id}", "/%7Bid%7D"),
        ("/50%", "/50%25"),
        ("/%zz", "/%25zz"),
        ("/%01", "/%01"),
        ("/...", "/..."),
        ("/a//../b", "/a/b"),
    ],
)
def test_other_characters_have_one_spelling(written: str, read: str) -> None:
    assert path_of(written) == read


@pytest.mark.parametrize(
    "written",
    [
        *("", "*", "a/b", "?x", "ftp://host/a", "/a\n", "/a\x00", "/a\x7f", "/a%00"),
        *("/a%2Fb", "/a%2fb", "/a%5Cb", "/a%5cb", "/" + "a" * MOST_CHARACTERS),
        "/" + "é" * (MOST_CHARACTERS // 2),
    ],
)
def test_what_servers_read_differently_or_not_at_all_is_no_path(written: str) -> None:
    assert path_of(written) == ""


def test_a_long_query_makes_no_path_too_long() -> None:
    assert path_of("/a?" + "q" * 5_000) == "/a"


PIECES = st.sampled_from(
    [
        *("/", "//", ".", "..", ";", ":", "%", "%2e", "%2F", "%41", "%3b", "%zz", "a", "B", "~"),
        *("?", "#", "\\", "é", "{id}", "\ud800"),
    ]
)


@given(st.lists(PIECES, max_size=20).map(lambda parts: "/" + "".join(parts)) | st.text())
def test_reading_twice_changes_nothing_and_what_is_read_is_plain(written: str) -> None:
    read = path_of(written)
    assert path_of(read) == read
    assert re.fullmatch(r"(?:/(?!\.{0,2}(?:/|$))(?:[\w!$&'()*+,=:@.~-]|%[0-9A-F]{2})+)+|/|", read)


def test_the_worst_path_takes_little_time() -> None:
    """A client chooses it, and chooses it anew for each request."""
    worst = ["/a" * 508, "/%zz" * 254, "/" * 1016, "/;" * 508, "/%41" * 254]
    began = time.process_time()
    for k in range(200):
        for path in worst:
            path_of(f"{path}/{k:x}")
    # 0.15 ms measured for the slowest; a path of quadratic time would take many
    assert (time.process_time() - began) / (200 * len(worst)) < 2e-3
