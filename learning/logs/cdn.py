"""Addresses of content delivery networks."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# Published ranges of Cloudflare and Fastly. Each of their addresses stands for many clients, so
# limits by address would punish all of them.
_CDN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "173.245.48.0/20",
        "103.21.244.0/22",
        "103.22.200.0/22",
        "103.31.4.0/22",
        "141.101.64.0/18",
        "108.162.192.0/18",
        "190.93.240.0/20",
        "188.114.96.0/20",
        "197.234.240.0/22",
        "198.41.128.0/17",
        "162.158.0.0/15",
        "104.16.0.0/13",
        "104.24.0.0/14",
        "172.64.0.0/13",
        "131.0.72.0/22",
        "151.101.0.0/16",
        "199.232.0.0/16",
        "2400:cb00::/32",
        "2606:4700::/32",
        "2803:f800::/32",
        "2405:b500::/32",
        "2405:8100::/32",
        "2a06:98c0::/29",
        "2c0f:f248::/32",
    )
)


# A log names the same addresses again and again, and two dozen networks are slow to try each time.
@lru_cache(maxsize=65_536)
def is_cdn(source: str) -> bool:
    """Return whether a source, as `addresses.address` writes it, belongs to a content delivery
    network.
    """
    # an IPv6 source is a /64, and every network above is larger
    first = ipaddress.ip_address(source.partition("/")[0])
    return any(first in network for network in _CDN)
