"""Guessing passwords gets slower with each wrong one: for a name from an address, and for an
address whatever the names. No name is ever locked, so nobody keeps its owner out from elsewhere.

Tries are kept under a keyed digest: people type passwords into the field for the name.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from control.models import SignInTry

# Wrong tries without a wait. Chosen: of one name enough for someone who mistypes, of an address
# enough for an office behind one address after a change of passwords.
FREE_OF_NAME, FREE_OF_ADDRESS = 5, 50
# Longest waits, seconds. Chosen: 900 leaves a name about 110 guesses a day from one address; 60
# slows somebody down who tries one password on many names, to 1,440 a day, and keeps an office
# that shares their address out for no longer.
MOST_OF_NAME_S, MOST_OF_ADDRESS_S = 900, 60
# Time without a try after which the counts begin anew. Chosen: whoever mistyped yesterday has all
# free tries today.
FORGET = timedelta(days=1)
# Time for which an address is known as one from which a name signed in. Chosen: longer than a
# holiday.
KNOWN = timedelta(days=30)
# Doublings of the first wait that are computed: 2 to the 20th is more than any longest wait.
_DOUBLINGS = 20
# Bits of an IPv6 address by which one customer of a provider is told from the others (RFC 6177).
_SITE = 64


@dataclass(frozen=True, slots=True)
class _Limit:
    """How one count slows down."""

    key: str
    free: int
    most_s: int


def wait_before(address: str, name: str, now: datetime) -> int:
    """Count a try to sign in as `name` from `address`, and return 0; or, while one must wait, count
    nothing and return how many seconds are left.

    It counts before the password is checked, so that tries at the same time cannot miss each other.
    `settle` takes the try of a right password back.
    """
    of_name, of_address = _limits(address, name)
    with transaction.atomic():
        rows = _locked([of_name.key, of_address.key], now)
        mine, all_from_there = rows[of_name.key], rows[of_address.key]
        held = [mine]
        # who signed in from here before does not wait for what others try from here
        if mine.signed_in_at is None or now - mine.signed_in_at > KNOWN:
            held.append(all_from_there)
        left = max((row.next_at - now).total_seconds() for row in held)
        if left > 0:
            return math.ceil(left)
        for row, limit in ((mine, of_name), (all_from_there, of_address)):
            row.tries = 1 if now - row.at > FORGET else row.tries + 1
            row.at = now
            row.next_at = now + timedelta(seconds=delay_s(row.tries, limit.free, limit.most_s))
            row.save(update_fields=["tries", "at", "next_at"])
    return 0


def settle(address: str, name: str, now: datetime) -> None:
    """Forget the wrong tries of a name from an address where the right password came, and take this
    one back from the address.
    """
    of_name, of_address = _limits(address, name)
    with transaction.atomic():
        rows = _locked([of_name.key, of_address.key], now)
        mine, all_from_there = rows[of_name.key], rows[of_address.key]
        mine.tries, mine.next_at, mine.signed_in_at, mine.at = 0, now, now, now
        mine.save(update_fields=["tries", "next_at", "signed_in_at", "at"])
        all_from_there.tries = max(all_from_there.tries - 1, 0)
        all_from_there.next_at = now
        all_from_there.save(update_fields=["tries", "next_at"])


def forget(now: datetime) -> int:
    """Delete what no longer slows anybody down, and return how many rows."""
    return SignInTry.objects.filter(at__lt=now - KNOWN).delete()[0]


def delay_s(tries: int, free: int, most_s: int) -> int:
    """Return for how many seconds nothing is tried after so many wrong tries: 0 up to the last free
    one, then 1, 2, 4 and so on up to `most_s`.
    """
    if tries < free:
        return 0
    return int(min(most_s, 2 ** min(tries - free, _DOUBLINGS)))


def _limits(address: str, name: str) -> tuple[_Limit, _Limit]:
    site = _site_of(address)
    return (
        _Limit(_key("name", site, name), FREE_OF_NAME, MOST_OF_NAME_S),
        _Limit(_key("address", site), FREE_OF_ADDRESS, MOST_OF_ADDRESS_S),
    )


def _site_of(address: str) -> str:
    """Return the network that counts as one address: one customer has 2 to the 64th of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), _SITE), strict=False))
    return str(found)


def _key(*parts: str) -> str:
    # the lengths keep parts apart, whatever they hold
    text = "".join(f"{len(part)}:{part}" for part in parts)
    key = hashlib.sha256(settings.SECRET_KEY.encode()).digest()
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), key=key, digest_size=16
    ).hexdigest()


def _locked(keys: list[str], now: datetime) -> dict[str, SignInTry]:
    """Return the rows of these keys, made where there are none, and locked."""
    SignInTry.objects.bulk_create(
        # in order, as two transactions that lock in different orders wait for each other
        [SignInTry(key=key, at=now, next_at=now) for key in sorted(keys)],
        ignore_conflicts=True,
    )
    rows = SignInTry.objects.select_for_update().filter(key__in=keys).order_by("key")
    return {row.key: row for row in rows}
