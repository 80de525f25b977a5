"""Which address a request of the console came from: what sign-in pauses and throttles count by.

The Envoy in front of the console connects over a Unix socket, which only this installation's user
may open, and names the client in a header. Whatever else a client writes is not believed.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# The header in which that Envoy names the client (examples/console/envoy.yaml).
_NAMED = "HTTP_X_SLUICE_CLIENT"
_FORWARDED = "HTTP_X_FORWARDED_FOR"
# Characters of an address: the longest IPv6 address with a zone of an interface's name.
_LONGEST = 64


def settle(environ: WSGIEnvironment, *, behind_proxy: bool) -> None:
    """Write the client's address into REMOTE_ADDR, and take the headers that claim one away.

    `behind_proxy`: without that Envoy, a proxy of yours stands in front and appends the address
    that connected to it to x-forwarded-for.
    """
    named, forwarded = environ.pop(_NAMED, ""), environ.pop(_FORWARDED, "")
    # gunicorn's word for a Unix socket's peer; one that came over TCP has an address
    peer = environ.get("REMOTE_ADDR", "")
    if named and not peer:
        environ["REMOTE_ADDR"] = _address(named)
    elif behind_proxy:
        environ["REMOTE_ADDR"] = _address(forwarded.rpartition(",")[2]) or peer


def _address(text: str) -> str:
    """Return an address in its usual spelling; "" for what is none."""
    try:
        found = ipaddress.ip_address(text.strip()) if len(text) <= _LONGEST else None
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return str(found) if found else ""
