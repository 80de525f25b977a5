"""Whose request it is: what a gateway says counts, and what a client can write does not."""

from __future__ import annotations

import msgspec
import pytest

from decider.contracts.requests import CheckRequest
from decider.http.context import Limits
from decider.http.source import NAMED, SourceRule, forwarded
from decider.node import process
from tests.decider.http_client import World, request, run


def sources(rule: SourceRule, *asked: bytes) -> list[str]:
    """The sources that the engine gets; every request is decided."""

    async def ask(world: World) -> list[str]:
        for one in asked:
            assert (await world.one(one)).status == 200
        return [r.source for r in world.engine.seen]

    return run(ask, Limits(), source=rule)


def twice(header: str, first: str, second: str) -> bytes:
    return request().replace(
        b"\r\n\r\n", f"\r\n{header}: {first}\r\n{header}: {second}\r\n\r\n".encode()
    )


def test_the_gateway_names_the_source_and_the_forwarded_list_does_not() -> None:
    asked = request(x_sluice_source="192.0.2.1:55", x_forwarded_for="6.6.6.6, 7.7.7.7")
    assert sources(NAMED, asked, request(x_forwarded_for="6.6.6.6")) == ["192.0.2.1", ""]


@pytest.mark.parametrize("text", ["unknown", "_x", "1.2.3.4, 6.6.6.6", "6" * 900, "-", "é"])
def test_an_odd_address_is_an_unknown_source_and_no_error(text: str) -> None:
    odd = request(x_sluice_source=text).decode("latin-1").encode()
    listed = request(x_forwarded_for=text + ", 192.0.2.1").decode("latin-1").encode()
    assert sources(NAMED, odd) == [""]
    assert sources(forwarded(0), listed) == ["192.0.2.1"]


def test_an_address_that_is_named_twice_is_nobodys() -> None:
    assert sources(NAMED, twice("x-sluice-source", "6.6.6.6", "192.0.2.1")) == [""]


@pytest.mark.parametrize(
    ("hops", "value", "source"),
    [
        (0, "192.0.2.1", "192.0.2.1"),
        (0, "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (1, "6.6.6.6,192.0.2.1 ,10.0.0.1", "192.0.2.1"),
        (2, "6.6.6.6, [2001:DB8::1]:7, 10.0.0.2, 10.0.0.1", "2001:db8::/64"),
        (1, "10.0.0.1", ""),
        (1, "unknown, 10.0.0.1", ""),
        (0, "192.0.2.1,", ""),
        (3, ",,,,", ""),
    ],
)
def test_proxies_that_are_trusted_are_counted_from_the_right(
    hops: int, value: str, source: str
) -> None:
    assert forwarded(hops).read(value) == source
    assert sources(forwarded(hops), request(x_forwarded_for=value)) == [source]


def test_a_list_in_several_lines_is_one_list() -> None:
    asked = twice("x-forwarded-for", "6.6.6.6", "192.0.2.1")
    assert sources(forwarded(0), asked, asked) == ["192.0.2.1"] * 2
    assert sources(forwarded(1), asked) == ["6.6.6.6"]


def test_one_client_in_several_spellings_is_one_source() -> None:
    spellings = ["2001:db8::1", "[2001:DB8:0::2]:443", "2001:0db8::ffff%eth0", " 2001:db8::9 "]
    named = [request(x_sluice_source=text) for text in spellings]
    assert set(sources(NAMED, *named)) == {"2001:db8::/64"}


def test_a_body_of_many_requests_reads_addresses_by_the_same_rule() -> None:
    texts = {"[2001:DB8::1]:443": "2001:db8::/64", "::ffff:192.0.2.1": "192.0.2.1", "unknown": ""}
    asked = [{"app": "a", "method": "GET", "path": "/", "source": text} for text in texts]
    body = msgspec.json.encode({"requests": asked})

    async def ask(world: World) -> list[CheckRequest]:
        sent = request("POST", "/v1/decide", body, content_type="application/json")
        assert (await world.one(sent)).status == 200
        return world.engine.seen

    assert [r.source for r in run(ask)] == list(texts.values())


STARTED = ["--node", "d01", "--valkey", "x", "--data", "d", "--models", "m", "--keys", "k"]


def test_the_number_of_trusted_hops_is_a_start_setting() -> None:
    assert process.parse(STARTED).trusted_hops is None
    assert process.parse([*STARTED, "--trusted-hops", "2"]).trusted_hops == 2
    for wrong in ("-1", "17", "two"):
        with pytest.raises(SystemExit):
            process.parse([*STARTED, f"--trusted-hops={wrong}"])
