"""Where a check names its client's address, and how that is read.

A gateway names the address in x-sluice-source, a header that it sets itself and never takes from a
client. A gateway that cannot do so leaves x-forwarded-for, to which each proxy appends the address
it got the request from: what stands left of the proxies that are trusted, the client may have
written itself.

A request whose address is missing or cannot be read has no source. It is decided all the same: the
client may have written what cannot be read, and must not be refused for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from decider.contracts.normalise.addresses import source_of

# Most proxies in front of the gateway. Chosen: more than any real chain, so a larger number is a
# mistake.
MOST_HOPS: Final = 16


class SourceRule(NamedTuple):
    """The header that names a client's address, and the reading of its value."""

    header: str
    read: Callable[[str], str]
    """Return the source, "" for none."""


NAMED: Final = SourceRule("x-sluice-source", source_of)


def forwarded(hops: int) -> SourceRule:
    """Return the rule for x-forwarded-for as a gateway leaves it that has `hops` trusted proxies in
    front of itself (as Envoy's xff_num_trusted_hops): the gateway appended the last entry, and each
    of these proxies one before.
    """
    return SourceRule("x-forwarded-for", partial(_forwarded, hops))


def _forwarded(hops: int, value: str) -> str:
    """Return the source in the entry with `hops` entries to its right. A list without it did not
    pass all trusted proxies, so none of its entries can be relied on.
    """
    entries = value.rsplit(",", hops + 1)
    return source_of(entries[-1 - hops]) if len(entries) > hops else ""
