"""One reading of client addresses, for checks, logs, lists and features alike.

A gateway, a proxy or a log may write an address with a port, brackets or a zone, in capitals, with
zeros, or as an IPv4 address inside an IPv6 one. All of these are one address. What one subscriber
can vary at will counts as one source: in IPv4 the address; in IPv6 the /64, which is the least
that a network gives to a subscriber (RFC 6177). An IPv6 address that only carries an IPv4 one
(`_EMBEDDED`) counts as that.

No address are: names, "unknown" and "_hidden" (RFC 7239), "-", ranges, several addresses, IPv4 in
brackets, with leading zeros, in hexadecimal or with fewer than four parts, ports above 65535.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final, NamedTuple

# Characters of a written address: 45 of the longest IPv6 text; the rest is room for brackets, port
# and zone.
MOST_CHARACTERS: Final = 64
# Bits of an IPv6 address that a network assigns to a subscriber, who varies the others at will.
SUBSCRIBER_BITS: Final = 64
# Addresses remembered. Chosen: more than a busy decider meets in a minute; at most 17 MB.
REMEMBERED: Final = 65_536
_MOST_PORT: Final = 65_535  # 16 bits (RFC 9293)

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"({_OCTET}(?:\.{_OCTET}){{3}})(?::([0-9]{{1,5}}))?")
# A port stands only behind brackets, and "/64" only behind none: it is how a source is written. A
# zone is any name of an interface (RFC 4007): visible ASCII without what ends it, "," "/" "[" "]".
_IPV6 = re.compile(
    r"(\[)?([0-9A-Fa-f:.]{2,45})(?:%[!-+\-.0-Z\\^-~]+)?(?(1)\](?::([0-9]{1,5}))?|(/64)?)"
)
_RANGE = re.compile(r"([0-9A-Fa-f:.]{2,45})/(0|[1-9][0-9]{0,2})")


class AddressError(ValueError):
    """A text is no client address, or no range of addresses."""


class _Embedding(NamedTuple):
    """IPv6 addresses that carry the IPv4 address of a subscriber."""

    start: int
    """First bits of these addresses, as a number."""
    bits: int
    """How many."""
    below: int
    """Bits below the IPv4 address."""
    flipped: int = 0
    """Bits of the IPv4 address that are written inverted."""


_EMBEDDED = (
    _Embedding(0xFFFF, 96, 0),  # IPv4-mapped, ::ffff:192.0.2.1 (RFC 4291)
    _Embedding(0x64_FF9B << 64, 96, 0),  # NAT64, 64:ff9b::192.0.2.1 (RFC 6052)
    _Embedding(0x2002, 16, 80),  # 6to4, 2002:c000:201:: (RFC 3056)
    _Embedding(0x2001_0000, 32, 0, 0xFFFF_FFFF),  # Teredo (RFC 4380)
    _Embedding(0xFFFF_0000, 96, 0),  # IPv4-translated, ::ffff:0:192.0.2.1 (RFC 2765)
    _Embedding(0, 96, 0),  # IPv4-compatible, ::192.0.2.1 (RFC 4291)
)
# By the first 16 bits, which tell most addresses apart from all of these at once.
_EMBEDDED_BY_START = {
    start: [kind for kind in _EMBEDDED if kind.start >> kind.bits - 16 == start]
    for start in {kind.start >> kind.bits - 16 for kind in _EMBEDDED}
}
_SUBSCRIBERS_OWN = (1 << 128 - SUBSCRIBER_BITS) - 1  # mask of the bits that a subscriber varies


def address(text: str) -> str:
    """Return the source that a written client address belongs to: an IPv4 address, or the /64 of an
    IPv6 address ("2001:db8:1:2::/64"). A source itself is returned as it is.

    Raise AddressError for anything else.
    """
    if not (found := source_of(text)):
        shown = repr(text[:MOST_CHARACTERS])
        raise AddressError(
            f"{shown} is too long for an address"
            if len(text) > MOST_CHARACTERS
            else f"{shown} is no IPv4 or IPv6 address"
        )
    return found


@lru_cache(maxsize=REMEMBERED)
def _remembered(text: str) -> str:
    bare = text.strip(" \t")
    if found := _IPV4.fullmatch(bare):
        return found[1] if _is_port(found[2]) else ""
    if (found := _IPV6.fullmatch(bare)) is None or not _is_port(found[3]):
        return ""
    if (number := _number(found[2])) is None:
        return ""
    if found[4] is None:
        return _source(number)
    # "/64" ends a source, and no other range
    is_source = not number & _SUBSCRIBERS_OWN and _carried(number, SUBSCRIBER_BITS) is None
    return _subscriber(number) if is_source else ""


def source_of(text: str) -> str:
    """Return what `address` returns, and "" for a text that is no address."""
    # The length first, so that no long text is hashed, matched or remembered.
    return _remembered(text) if len(text) <= MOST_CHARACTERS else ""


def _is_port(digits: str | None) -> bool:
    return digits is None or int(digits) <= _MOST_PORT


def _number(text: str) -> int | None:
    """Return the 128 bits of a bare IPv6 address; None when the text is none."""
    try:
        return int.from_bytes(inet_pton(AF_INET6, text), "big")
    except OSError:
        return None


def _source(number: int) -> str:
    """Return the source of an IPv6 address."""
    ipv4 = _carried(number)
    return _subscriber(number) if ipv4 is None else str(IPv4Address(ipv4))


def _subscriber(number: int) -> str:
    """Return the network of the subscriber that has an IPv6 address."""
    start = (number & ~_SUBSCRIBERS_OWN).to_bytes(16, "big")
    return f"{inet_ntop(AF_INET6, start)}/{SUBSCRIBER_BITS}"


def _carried(number: int, known: int = 128) -> int | None:
    """Return the IPv4 address in an IPv6 address of which the first `known` bits are known, None
    without one.
    """
    for kind in _EMBEDDED_BY_START.get(number >> 112, ()):
        if kind.bits <= known and number >> 128 - kind.bits == kind.start:
            ipv4 = number >> kind.below & 0xFFFF_FFFF ^ kind.flipped
            # ::1 and :: are no IPv4-compatible addresses, and nobody has an address in 0.0.0.0/8
            return ipv4 if ipv4 >> 24 or kind.start else None
    return None


def bits_of(source: str) -> tuple[int, int]:
    """Return the version of IP and the first address of a source, as a number; (0, 0) for a text
    that is no source.
    """
    try:
        if source.endswith(f"/{SUBSCRIBER_BITS}"):
            return 6, int.from_bytes(inet_pton(AF_INET6, source.partition("/")[0]), "big")
        return 4, int.from_bytes(inet_pton(AF_INET, source), "big")
    except (OSError, ValueError):
        return 0, 0


def network(text: str) -> IPv4Network | IPv6Network:
    """Return the sources that the subject of a list names: those of a range ("192.0.2.0/24",
    "2001:db8::/32"), or the one of a single address.

    A range of IPv6 addresses that carry IPv4 ones is the range of these. Raise AddressError for
    anything else, and for ranges that begin inside themselves or are narrower than a source.
    """
    if _RANGE.fullmatch(text) is None:
        return ip_network(address(text))
    try:
        read = ip_network(text)
    except ValueError as error:
        if (whole := _around(text)) is None:
            raise AddressError(f"{text!r} is no range of IPv4 or IPv6 addresses") from error
        raise AddressError(
            f"{text!r} begins inside the range: write {whole} or a longer prefix"
        ) from error
    return read if isinstance(read, IPv4Network) else _ipv6_range(text, read)


def _around(text: str) -> IPv4Network | IPv6Network | None:
    """Return the range around the address of a written range, None when there is none."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _ipv6_range(text: str, read: IPv6Network) -> IPv4Network | IPv6Network:
    number, bits = int(read.network_address), read.prefixlen
    for kind in _EMBEDDED:
        if bits >= kind.bits and number >> 128 - kind.bits == kind.start:
            ipv4_bits = bits - (96 - kind.below)
            if kind.flipped or ipv4_bits > 32:
                raise AddressError(
                    f"an address in {text!r} counts as the IPv4 address that it carries: write that"
                )
            return IPv4Network((number >> kind.below & 0xFFFF_FFFF, ipv4_bits))
    if bits > SUBSCRIBER_BITS:
        raise AddressError(_narrow(text, str(read.network_address)))
    return read


def listed(text: str) -> str:
    """Return the subject of a list as it is stored: "192.0.2.1", "192.0.2.0/24" or
    "2001:db8::/32". Raise AddressError as `network` does, and for a single IPv6 address.
    """
    found = network(text)
    if isinstance(found, IPv6Network) and "/" not in text:
        raise AddressError(_narrow(text, text))
    return text_of(found)


def text_of(found: IPv4Network | IPv6Network) -> str:
    """Return the text of a network; of one that is a single source, as `address` writes it."""
    return str(found.network_address if found.prefixlen == 32 and found.version == 4 else found)


def _narrow(text: str, one: str) -> str:
    """Return why an IPv6 subject that is narrower than a source is refused."""
    return (
        f"{text!r} is narrower than a /{SUBSCRIBER_BITS}, all of which one subscriber has: write"
        f" {address(one)}"
    )
