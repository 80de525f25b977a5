"""An address is an address: its spellings are one source, and no two subscribers share one."""

from __future__ import annotations

import string
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from decider.contracts.normalise import addresses
from decider.contracts.normalise.addresses import AddressError, address, listed, network, source_of

IPV4 = st.ip_addresses(v=4).map(str)
# What a subscriber has of its own: no IPv6 address that carries an IPv4 one.
OWN_IPV6 = st.integers(0x2003 << 112, (0x3FFF << 112) - 1)
PORTS = st.none() | st.integers(0, 65_535)
ZONES = st.sampled_from(["", "%eth0", "%25en0", "%2", "%eth0:1", "%wg@lan"])
CARRIERS = {
    "mapped": lambda ip: f"::ffff:{ip}",
    "mapped in hexadecimal": lambda ip: str(IPv6Address(f"::ffff:{ip}")),
    "NAT64": lambda ip: f"64:ff9b::{ip}",
    "6to4": lambda ip: str(IPv6Address(0x2002 << 112 | int(IPv4Address(ip)) << 80 | 0x5_0001)),
    "Teredo": lambda ip: str(
        IPv6Address(0x2001_0000 << 96 | 0xABCD << 64 | int(IPv4Address(ip)) ^ 0xFFFF_FFFF)
    ),
    "translated": lambda ip: f"::ffff:0:{ip}",
}
NO_ADDRESSES = [
    "",
    " ",
    "-",
    "unknown",
    "_hidden",
    "_SEVKISEK:80",
    "localhost",
    "banana",
    "192.0.2.*",
    "192.0.2",
    "192.0.2.1.1",
    "192.0.2.256",
    "192.0.2.01",
    "0300.0.2.1",
    "0xc0.0.2.1",
    "3221225985",
    "192.0.2.1\n",
    "192.0.2.1\x00",
    "192.0.2.1, 198.51.100.7",
    "192.0.2.1 198.51.100.7",
    "192.0.2.1:",
    "192.0.2.1:65536",
    "192.0.2.1:http",
    "192.0.2.1%eth0",
    "192.0.2.0/24",
    "[192.0.2.1]",
    "[2001:db8::1",
    "2001:db8::1]",
    "[2001:db8::1]:65536",
    "2001:db8::1%",
    "2001:db8::1%eth0,",
    "2001:db8::1%eth 0",
    "2001:db8::1%eth0/7",
    "2001:db8::g",
    "2001:db8::1::2",
    "1:2:3:4:5:6:7:8:9",
    "2001:db8::12345",
    "::ffff:192.0.2.01",
    "2001:db8::/32",
    "2001:db8::1/64",
    "2001:0:1:2::/64",
    "2002:c000:201::/64",
    "[2001:db8::]/64",
    "unix:",
    "/run/gateway.sock",
    "１９２.0.2.1",
    "9" * 5_000,
    ":" * 5_000,
]


def spelled(draw: st.DrawFn, number: int) -> str:
    """One of the ways to write an IPv6 address."""
    ip, port = IPv6Address(number), draw(PORTS)
    text = draw(st.sampled_from([str(ip), ip.exploded]))
    if draw(st.booleans()):
        text = text.upper()
    text += draw(ZONES)
    if port is not None:
        return f"[{text}]:{port}"
    return f"[{text}]" if draw(st.booleans()) else text


@given(IPV4, PORTS, st.sampled_from(["", " ", "\t "]))
def test_an_ipv4_address_is_one_source_whatever_its_port(
    ip: str, port: int | None, space: str
) -> None:
    assert address(f"{space}{ip}{'' if port is None else f':{port}'}{space}") == ip


@given(st.data(), OWN_IPV6)
def test_all_spellings_of_an_ipv6_address_are_the_64_bits_of_its_subscriber(
    data: st.DataObject, number: int
) -> None:
    text = data.draw(st.composite(lambda draw: spelled(draw, number))())
    assert address(text) == str(IPv6Network((number, 64), strict=False))


@given(OWN_IPV6, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_what_a_subscriber_can_vary_at_will_is_one_source(start: int, one: int, other: int) -> None:
    first = start >> 64 << 64
    assert address(str(IPv6Address(first | one))) == address(str(IPv6Address(first | other)))


@given(OWN_IPV6, OWN_IPV6, IPV4, IPV4)
def test_no_two_subscribers_are_one_source(one: int, other: int, ip: str, another: str) -> None:
    assume(one >> 64 != other >> 64 and ip != another)
    texts = [str(IPv6Address(one)), str(IPv6Address(other)), ip, another]
    assert len({address(text) for text in texts}) == 4


@pytest.mark.parametrize("kind", CARRIERS)
@given(ip=IPV4)
def test_an_address_that_carries_an_ipv4_one_counts_as_that(kind: str, ip: str) -> None:
    assert address(CARRIERS[kind](ip)) == ip


@given(IPV4)
def test_an_old_ipv4_compatible_address_counts_as_the_ipv4_one(ip: str) -> None:
    assume(not ip.startswith("0."))
    assert address(f"::{ip}") == ip


def test_the_loopback_and_no_address_at_all_carry_no_ipv4_one() -> None:
    assert address("::1") == address("::") == "::/64"


NEAR_CARRIERS = st.builds(
    lambda start, rest: str(IPv6Address(start << 96 | rest)),
    st.sampled_from([0, 0x64_FF9B, 0x2001_0000, 0x2002_C000, 0x20010DB8]),
    st.integers(0, 2**96 - 1),
)


@given(st.ip_addresses().map(str) | NEAR_CARRIERS)
def test_a_source_read_again_is_itself(text: str) -> None:
    assert address(address(text)) == address(text)


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_has_no_source_and_says_so_briefly(text: str) -> None:
    assert source_of(text) == ""
    with pytest.raises(AddressError) as caught:
        address(text)
    assert len(str(caught.value)) < 300


@given(st.text(st.sampled_from(string.hexdigits + ":.%[]/ _g\n"), max_size=50))
def test_nothing_is_read_that_the_standard_library_refuses(text: str) -> None:
    bare = text.strip(" \t")
    if source_of(text) and not set(bare) & set("[]%/") and not ("." in bare and ":" in bare):
        assert str(ip_address(bare))


def test_long_texts_are_neither_matched_nor_remembered() -> None:
    before = addresses._remembered.cache_info()
    source_of("1" * (addresses.MOST_CHARACTERS + 1))
    assert addresses._remembered.cache_info() == before
    assert before.maxsize == addresses.REMEMBERED


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("::FFFF:192.0.2.1", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("::/0", "::/0"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("2002:c000:200::/40", "192.0.2.0/24"),
    ],
)
def test_a_subject_of_a_list_is_stored_in_one_spelling(text: str, stored: str) -> None:
    assert listed(text) == stored
    assert listed(stored) == stored


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("banana", "'banana' is no IPv4 or IPv6 address"),
        ("192.0.2.*", "is no IPv4 or IPv6 address"),
        ("192.0.2.1\n", "is no IPv4 or IPv6 address"),
        ("192.0.2.0/24\n", "is no IPv4 or IPv6 address"),
        ("192.0.2.0/33", "is no range"),
        ("192.0.2.0/024", "is no IPv4 or IPv6 address"),
        ("192.0.2.0/255.255.255.0", "is no IPv4 or IPv6 address"),
        ("192.0.2.7/24", "write 192.0.2.0/24 or a longer prefix"),
        ("2001:db8::1", "write 2001:db8::/64"),
        ("[2001:db8::1]:443", "write 2001:db8::/64"),
        ("2001:db8::1/128", "write 2001:db8::/64"),
        ("2001:db8::/96", "write 2001:db8::/64"),
        ("2001::/32", "counts as the IPv4 address that it carries"),
        ("2002:c000:201::/64", "counts as the IPv4 address that it carries"),
    ],
)
def test_a_subject_that_names_no_source_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(AddressError) as caught:
        listed(text)
    assert why in str(caught.value)


@given(st.ip_addresses().map(str) | NEAR_CARRIERS)
def test_the_network_of_a_single_address_has_the_text_of_its_source(text: str) -> None:
    assert addresses.text_of(network(text)) == address(text)
