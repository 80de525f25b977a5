"""Reading what someone pastes into a search box.

A receipt or a credential must leave no trace, so both are recognised before anything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from console.pages.receipts import pasted_receipt
from console.pages.receipts.pasted_receipt import PastedReceipt
from decider.contracts.ids import parse_decision_id
from decisions.search import credentials, lookup
from decisions.search.lookup import QueryReading

LONGEST = credentials.LONGEST
NOT_YOURS = "Looking up a token needs the right to see token digests. Support and auditors have it."
IN_ADDRESS = (
    "This text is, or looks like, a credential or a receipt, which must not be in an address. Send"
    " it in the body of a POST."
)
_UNKNOWN = (
    "This text looks like a credential. It was hashed and not kept; no stored decision carries it."
)


@dataclass(frozen=True, slots=True)
class PastedText:
    """A pasted text and what Sluice took it for."""

    reading: QueryReading
    elsewhere: str = ""
    """Address of another page that is about the text; empty when lookup shows it."""
    receipt: PastedReceipt | None = None
    """The receipt that the text is, if `elsewhere` is its page."""
    withheld: bool = False
    """Whether the text is, or may be, a credential or a receipt. Then neither `reading` nor a query
    holds the text.
    """


# A receipt as its header or a problem document carries it; at most four characters between.
_RECEIPT = re.compile(r"\bsluice-receipt\W{1,4}([\w-]{20,})", re.I)
_DECISION = re.compile(r"\bdec_[0-9a-f]{32}\b", re.I)
# Header lines that carry a credential: these, and X-Api-Key, Access-Token and the like.
_AUTHORIZATION = ("authorization", "proxy-authorization")
_CREDENTIAL_WORDS = ("api", "access", "auth")
_CREDENTIAL_ENDS = ("key", "token")


def meant(text: str) -> str:
    """Return the receipt, decision id or credential inside what people really paste: a reply, an
    error's body, lines of headers.

    Return the text itself when it holds none of them, or several different decisions, or is longer
    than `LONGEST`.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return text
    if receipt := _RECEIPT.search(text):
        return receipt[1]
    # Two ids may be two questions, so neither is guessed.
    if len(ids := set(_DECISION.findall(text))) == 1:
        return str(ids.pop())
    return _in_header(text) or text


def _in_header(text: str) -> str:
    """Return the credential of a header line; "" for any other text."""
    name, _, value = text.partition(":")
    name, value = name.lower(), value.strip()
    if name in _AUTHORIZATION:
        return "" if "\n" in value else value
    named = name.endswith(_CREDENTIAL_ENDS) and any(word in name for word in _CREDENTIAL_WORDS)
    plain = name.replace("-", "").replace("_", "").isalnum()
    return value if named and plain and len(value.split()) == 1 else ""


def read_pasted(text: str, insist: str = "", *, with_token: bool) -> PastedText:
    """Return what a pasted text is: an id, a token, a receipt, or nothing known.

    Of a text that is nothing known, the answer repeats no part: it may be a secret. `with_token`
    says whether the reader may see token digests.
    """
    found = read_in_address(text if insist else meant(text), insist, with_token=with_token)
    return (
        found
        if found.withheld or found.reading.kind != "nothing"
        else _nothing(found.reading.hint, withheld=False)
    )


def read_in_address(text: str, insist: str = "", *, with_token: bool) -> PastedText:
    """Return what a text from the page's address is.

    Unlike `read_pasted`, repeat a plain text that is nothing known: the address shows it anyway.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return _nothing(f"This text has {len(text):,} characters; the limit is {LONGEST:,}.")
    hint = ""
    if not insist and (receipt := pasted_receipt.read_receipt(text)):
        if receipt.address:
            return PastedText(QueryReading("nothing", ""), receipt.address, receipt, withheld=True)
        hint = receipt.hint
    if not _is_plain(text) and (
        secret := _as_credential(text, with_token=with_token, insisted=bool(insist))
    ):
        return (
            PastedText(secret, withheld=True)
            if secret.kind == "token" or not hint
            else _nothing(hint)
        )
    return _nothing(hint) if hint else PastedText(lookup.interpret(text[:200], insist))


def _is_plain(text: str) -> bool:
    """Tell whether a text is empty, a decision id or a digest, and so no credential."""
    digest = text.startswith(lookup.TOKEN) and not credentials.looks_secret(
        text.removeprefix(lookup.TOKEN)
    )
    return not text or digest or parse_decision_id(text) is not None


def _as_credential(text: str, *, with_token: bool, insisted: bool) -> QueryReading | None:
    """Return the reading of a credential by its digest; None when the text is not a credential.

    No query gets the text itself.
    """
    # A reader who says that the text is an id or a name is right, unless it has a secret's shape.
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


def _nothing(hint: str, *, withheld: bool = True) -> PastedText:
    """Return the answer for a text that is nothing known, with a hint for the reader."""
    return PastedText(QueryReading("nothing", "", hint=hint), withheld=withheld)
