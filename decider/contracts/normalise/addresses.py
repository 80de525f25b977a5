"""One reading of client addresses, for checks, logs, lists and features alike.

A gateway, a proxy or a log may write an address with a port, brackets or a zone, in capitals, with
zeros or as an IPv4 address mapped into IPv6. All of these are one address. In IPv6 one subscriber
has at least a /64 and can vary the rest of the address at will (RFC 6177), so the /64 is what
counts as one source.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

# Characters of a written address: 45 of the longest IPv6 text, with brackets, port and zone.
MOST_CHARACTERS: Final = 64
# Bits of an IPv6 address that a network assigns to a subscriber, who varies the others at will.
SUBSCRIBER_BITS: Final = 64
# Addresses remembered. Chosen: some 10 MB, and the addresses of a busy minute.
REMEMBERED: Final = 65_536

_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)(?:%[^\]]*)?\](?::[0-9]{1,5})?", re.ASCII)
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}", re.ASCII)


class AddressError(ValueError):
    """A text is no client address."""


@lru_cache(maxsize=REMEMBERED)
def address(text: str) -> str:
    """Return the source that a written client address belongs to: the IPv4 address, or the /64 of
    an IPv6 address ("2001:db8:1:2::/64").

    Raise AddressError for anything else: names, ranges, "unknown", several addresses.
    """
    if len(text) > MOST_CHARACTERS:
        raise AddressError(f"{text[:MOST_CHARACTERS]!r} is too long for an address")
    bare = text.strip(" \t")
    if (found := _BRACKETED.fullmatch(bare) or _WITH_PORT.fullmatch(bare)) is not None:
        bare = found[1]
    try:
        read = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        raise AddressError(f"{text!r} is no IPv4 or IPv6 address") from None
    if isinstance(read, ipaddress.IPv6Address):
        if read.ipv4_mapped is not None:
            return str(read.ipv4_mapped)
        return str(ipaddress.IPv6Network((read, SUBSCRIBER_BITS), strict=False))
    return str(read)
