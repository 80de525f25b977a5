"""Reading a receipt from what someone pastes or sends."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from django.urls import reverse

from control.errors import KeysError
from decider.refusal.receipt import ReceiptError
from decisions.search.receipts import open_receipt

# A shorter text is too short for a receipt; a longer word is a credential.
_FORM = re.compile(r"[\w-]{90,300}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PastedReceipt:
    """What a pasted text with the form of a receipt turned out to be."""

    address: str = ""
    """Address of its page; empty when the receipt cannot be relied on."""
    hint: str = ""
    """Why the receipt cannot be relied on; empty when it can."""
    decision: uuid.UUID | None = None
    """The decision that the receipt is about."""
    app: str = ""
    """Id of the app; empty when it is not known."""


def read_receipt(text: str) -> PastedReceipt | None:
    """Return the address of a pasted receipt's page, or why the receipt cannot be relied on.

    Return None when the text does not have the form of a receipt.
    """
    if not _FORM.fullmatch(text):
        return None
    try:
        found = open_receipt(text)
    except (ReceiptError, KeysError) as error:
        return PastedReceipt(hint=f"Read as a receipt. {error}")
    decision = uuid.UUID(bytes=found.receipt.decision)
    return PastedReceipt(reverse("receipt", args=[text]), decision=decision, app=found.app)
