"""Which address a request of the console came from: what sign-in and throttles count by.

The Envoy in front of the console connects over a Unix socket, which only this installation's user
may open, and names who connected to it in a header. `X-Forwarded-For` is believed only as far as
the proxies of `SLUICE_TRUSTED_PROXIES` wrote it; whatever else a client writes is not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The header in which that Envoy names who connected to it (examples/console/envoy.yaml).
_NAMED = "HTTP_X_SLUICE_CLIENT"
_FORWARDED = "HTTP_X_FORWARDED_FOR"
_SCHEME = "HTTP_X_FORWARDED_PROTO"
# Characters of an address: the longest IPv6 address with a zone of an interface's name.
_LONGEST = 64
# Addresses of the header that are looked at, from its end. Chosen: nobody has more proxies in a
# row, and a client may write thousands.
_HOPS = 10


def settle(environ: WSGIEnvironment, trusted: Sequence[Network]) -> None:
    """Write the client's address into REMOTE_ADDR, and take the headers that claim one away.

    `trusted`: the networks of the proxies in front. Each appends the address that connected to it
    to x-forwarded-for. Where there are some, whoever else connects is not believed on HTTPS either.
    """
    named, forwarded = environ.pop(_NAMED, ""), environ.pop(_FORWARDED, "")
    # gunicorn's word for a Unix socket's peer; one that came over TCP has an address
    peer = environ.get("REMOTE_ADDR", "")
    if named and not peer:
        peer = environ["REMOTE_ADDR"] = _address(named)
    if _is_of(peer, trusted):
        environ["REMOTE_ADDR"] = _behind(peer, forwarded, trusted)
    elif trusted:
        # gunicorn made the one from the other, which Envoy hands on where there are proxies
        environ.pop(_SCHEME, None)
        environ["wsgi.url_scheme"] = "http"


def _behind(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """Return the last address that no trusted proxy has; the farthest known one if all have."""
    client = peer
    for text in reversed(forwarded.rsplit(",", _HOPS)[-_HOPS:]):
        if not _is_of(client, trusted) or not (found := _address(text)):
            break
        client = found
    return client


def _is_of(address: str, networks: Sequence[Network]) -> bool:
    if not address:
        return False
    try:
        found = ipaddress.ip_address(address)
    # gunicorn's word for the peer of a socket that is neither: no proxy of ours
    except ValueError:
        return False
    return any(found in network for network in networks)


def _address(text: str) -> str:
    """Return an address in its usual spelling; "" for what is none."""
    try:
        found = ipaddress.ip_address(text.strip()) if len(text) <= _LONGEST else None
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return str(found) if found else ""
