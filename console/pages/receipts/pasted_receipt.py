"""Reading a receipt from what someone pastes or sends."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from django.conf import settings
from django.urls import reverse

from control.deciders import keys
from control.errors import KeysError
from control.models import App
from decider.refusal import receipt as receipts
from decider.refusal.receipt import Key, Receipt, ReceiptError
from decisions.search import lookup

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


@dataclass(frozen=True, slots=True)
class Opened:
    """A receipt whose seal holds, with the app it is about."""

    receipt: Receipt
    app: str
    """Id of the app; "" when no known app has the receipt's pseudonym."""


def open_receipt(text: str) -> Opened:
    """Open a receipt of this installation.

    Raise ReceiptError when it was changed or sealed elsewhere, KeysError when the keys cannot be
    read.
    """
    sealers = receipts.keys_of(keys.load_token_keys(settings.SLUICE_KEYS))
    found = receipts.open_sealed(text, sealers)
    return Opened(found, _app(found, receipts.key_of(text, sealers)))


def _app(found: Receipt, sealer: Key) -> str:
    """Return the id of the app behind a receipt's pseudonym; "" when no known app has it.

    Try the app of its stored decision first, then the registered apps.
    """
    stored = lookup.find(uuid.UUID(bytes=found.decision))
    if stored is not None and sealer.pseudonym(stored.app) == found.app:
        return stored.app
    # A pseudonym is a keyed hash, so each app is tried. This is rare enough to need no index.
    registered = App.objects.values_list("id", flat=True)
    return next((a for a in registered.iterator() if sealer.pseudonym(a) == found.app), "")
