"""The guard of an address that others can reach: who asks there must know the gateways' secret, or,
for the metrics alone, a token. A Unix socket needs none: its mode says who may open it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hmac import compare_digest

# The header in which a gateway sends the secret.
HEADER = b"x-sluice-secret"


class Guard:
    """What those who ask must know. Several secrets are good at once while one replaces another."""

    __slots__ = ("_secrets", "_tokens")

    def __init__(self, secrets: Iterable[bytes], tokens: Iterable[bytes] = ()) -> None:
        self.replace(secrets, tokens)

    def replace(self, secrets: Iterable[bytes], tokens: Iterable[bytes] = ()) -> None:
        """Believe these from now on."""
        self._secrets, self._tokens = tuple(secrets), tuple(tokens)

    def knows(self, secret: bytes) -> bool:
        """Return whether this is a gateway's secret."""
        return _is_among(secret, self._secrets)

    def may_measure(self, authorization: bytes) -> bool:
        """Return whether this value of Authorization holds a token for the metrics."""
        scheme, _, token = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and _is_among(token.strip(), self._tokens)


def _is_among(given: bytes, known: tuple[bytes, ...]) -> bool:
    # All are compared, each in a time that says nothing of how much of it is right.
    found = False
    for one in known:
        found |= compare_digest(one, given)
    return found
