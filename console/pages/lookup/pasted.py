"""What someone pastes into a search box: first a receipt or a credential, which must leave no
trace, then anything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from console.pages.receipts import reading
from console.pages.receipts.reading import PastedReceipt
from decider.contracts.ids import parse_decision_id
from decisions.search import credentials, lookup
from decisions.search.lookup import QueryReading

# Characters; a credential a decider takes is not longer.
LONGEST = 8_192
NOT_YOURS = "Looking up a token needs the right to see token digests. Support and auditors have it."
IN_ADDRESS = (
    "It is, or looks like, a credential or a receipt, which has no place in an address. Send it in"
    " the body of a POST."
)
_UNKNOWN = (
    "It looks like a credential. It was hashed and not kept, and no stored decision carried it."
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a text was read as."""

    reading: QueryReading
    elsewhere: str = ""
    """Address of the page about it, when lookup is not the one."""
    receipt: PastedReceipt | None = None
    """The receipt it is, when `elsewhere` is its page."""
    withheld: bool = False
    """Whether it is, or may be, a credential or a receipt: the reading does not hold it, and no
    query did.
    """


_RECEIPT = re.compile(r"\bsluice-receipt\W{1,4}([\w-]{20,})", re.I)
_DECISION = re.compile(r"\bdec_[0-9a-f]{32}\b", re.I)
_HEADER = re.compile(
    r"(?:proxy-)?authorization:\s*(\S.*)|[\w-]*(?:api|access|auth)[\w-]*(?:key|token):\s*(\S+)",
    re.I,
)


def meant(text: str) -> str:
    """The receipt, decision id or credential inside what people really paste: a reply, an error's
    body, lines of headers.

    The text itself when it holds none of them, or several different decisions.
    """
    text = text.strip()
    if receipt := _RECEIPT.search(text):
        return receipt[1]
    if len(ids := set(_DECISION.findall(text))) == 1:
        return str(ids.pop())
    header = _HEADER.fullmatch(text)
    return str(header[1] or header[2]) if header else text


def read(text: str, insist: str = "", *, with_token: bool) -> Found:
    """Reads a pasted text. What was read as nothing is not repeated in the reading; `with_token`:
    may see token digests.
    """
    found = in_address(text if insist else meant(text), insist, with_token=with_token)
    return (
        found
        if found.withheld or found.reading.kind != "nothing"
        else _nothing(found.reading.hint, withheld=False)
    )


def in_address(text: str, insist: str = "", *, with_token: bool) -> Found:
    """The same for a text from an address, where a plain one that was read as nothing stands anyway
    and is repeated.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return _nothing(f"It has {len(text):,} characters; at most {LONGEST:,} are read.")
    hint = ""
    if not insist and (receipt := reading.read(text)):
        if receipt.address:
            return Found(QueryReading("nothing", ""), receipt.address, receipt, withheld=True)
        hint = receipt.hint
    if not _is_plain(text) and (
        secret := _as_credential(text, with_token=with_token, insisted=bool(insist))
    ):
        return (
            Found(secret, withheld=True) if secret.kind == "token" or not hint else _nothing(hint)
        )
    return _nothing(hint) if hint else Found(lookup.interpret(text[:200], insist))


def _is_plain(text: str) -> bool:
    """Whether a text is an id or a digest, which is no credential whatever else it looks like."""
    digest = text.startswith(lookup.TOKEN) and not credentials.looks_secret(
        text.removeprefix(lookup.TOKEN)
    )
    return not text or digest or parse_decision_id(text) is not None


def _as_credential(text: str, *, with_token: bool, insisted: bool) -> QueryReading | None:
    """By its digest first, and the text itself is given to no query. None when it is no
    credential.
    """
    shaped = credentials.has_shape(text) if insisted else credentials.looks_secret(text)
    try:
        digest = credentials.known(text)
    except credentials.NoKeyError as error:
        return _nothing(str(error) if with_token else NOT_YOURS).reading if shaped else None
    if not digest and not shaped:
        return None
    if not with_token:
        return _nothing(NOT_YOURS).reading
    return lookup.of_digest(digest) if digest else _nothing(_UNKNOWN).reading


def _nothing(hint: str, *, withheld: bool = True) -> Found:
    return Found(QueryReading("nothing", "", hint=hint), withheld=withheld)
