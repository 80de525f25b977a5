"""What someone pastes into a search box: first a receipt or a credential, which must leave no trace, then anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from decider.ids import parse_decision_id

from . import credentials, lookup
from .lookup import Reading

LONGEST = 8_192
"""Characters; a credential a decider takes is not longer."""
NOT_YOURS = "Looking up a token needs the right to see token digests. Support and auditors have it."
_UNKNOWN = "It looks like a credential. It was hashed and not kept, and no stored decision carried it."


@dataclass(frozen=True, slots=True)
class Reread:
    """What a room above made of a text: the address of the page about it, or what is wrong with it."""

    address: str = ""
    hint: str = ""


Reader = Callable[[str], Reread | None]
READERS: list[Reader] = []
"""A room above reads more; None: not its kind of text."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a pasted text was read as."""

    reading: Reading
    elsewhere: str = ""
    """Address of the page about it, when lookup is not the one."""


def read(text: str, insist: str = "", *, with_token: bool) -> Found:
    """Reads a pasted text. What was read as nothing is not repeated in the reading; `with_token`: may see token digests."""
    text = text.strip()
    if len(text) > LONGEST:
        return _nothing(f"It has {len(text):,} characters; at most {LONGEST:,} are read.")
    hint = ""
    for reader in () if insist else READERS:
        if reread := reader(text):
            if reread.address:
                return Found(Reading("nothing", ""), reread.address)
            hint = reread.hint
    plain = not text or bool(insist) or parse_decision_id(text) is not None or text.startswith(lookup.TOKEN)
    if not plain and (secret := _as_credential(text, with_token=with_token)):
        return Found(secret) if secret.kind == "token" or not hint else _nothing(hint)
    if hint:
        return _nothing(hint)
    reading = lookup.read(text[:200], insist)
    return Found(reading) if reading.kind != "nothing" else _nothing(reading.hint)


def _as_credential(text: str, *, with_token: bool) -> Reading | None:
    """By its digest alone: the text itself is given to no query. None when it is no credential."""
    if not with_token:
        return _nothing(NOT_YOURS).reading if credentials.looks_secret(text) else None
    try:
        digest = credentials.known(text)
    except credentials.NoKeyError as error:
        return _nothing(str(error)).reading if credentials.looks_secret(text) else None
    if digest:
        return lookup.of_digest(digest)
    return _nothing(_UNKNOWN).reading if credentials.looks_secret(text) else None


def _nothing(hint: str) -> Found:
    return Found(Reading("nothing", "", hint=hint))
