"""The page of a receipt, and reading one from what someone pastes. Only a receipt that holds gets
an address.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from django.apps import apps
from django.conf import settings
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from control.deciders import keys
from control.errors import KeysError
from decider.refusal import receipt as receipts
from decider.refusal.receipt import Key, Receipt, ReceiptError
from decisions import lookup
from decisions.looks import note as look
from decisions.pasted import Reread
from decisions.views import READ
from explain import receipt_story

_FORM = re.compile(r"[\w-]{90,300}", re.ASCII)
"""Nothing shorter is a receipt; a longer word is a credential."""


def read(text: str) -> Reread | None:
    """What a pasted text is, when it has the form of a receipt: where its story is, or why it
    cannot be relied on.
    """
    if not _FORM.fullmatch(text):
        return None
    try:
        found = opened(text)
    except (ReceiptError, KeysError) as error:
        return Reread(hint=f"Read as a receipt. {error}")
    decision = uuid.UUID(bytes=found.receipt.decision)
    return Reread(reverse("receipt", args=[text]), kind="receipt", decision=decision, app=found.app)


@dataclass(frozen=True, slots=True)
class Opened:
    """A receipt that holds, with the app it is about."""

    receipt: Receipt
    app: str
    """Id of the app; "" when its pseudonym is nobody's who is known here."""


def opened(text: str) -> Opened:
    """What a receipt of this installation says. Raises ReceiptError, KeysError."""
    sealers = receipts.keys_of(keys.load_token_keys(settings.SLUICE_KEYS))
    found = receipts.open_sealed(text, sealers)
    return Opened(found, _app(found, receipts.key_of(text, sealers)))


@require_GET
@permission_required(READ, raise_exception=True)
def receipt(request: HttpRequest, text: str) -> HttpResponse:
    """The story of a receipt."""
    try:
        found = opened(text)
    except (ReceiptError, KeysError) as error:
        return render(
            request,
            "explain/receipt.html",
            {"page": "lookup", "r": None, "problem": str(error)},
            status=404,
        )
    if found.app:
        look(request, found.app, "a receipt")
    story = receipt_story.tell(found.receipt, found.app)
    return render(request, "explain/receipt.html", {"page": "lookup", "r": story, "problem": ""})


def _app(found: Receipt, sealer: Key) -> str:
    """The app behind a receipt's pseudonym: that of its stored decision when it is the same, else a
    registered one; "" when it is none of them.
    """
    stored = lookup.find(uuid.UUID(bytes=found.decision))
    if stored is not None and sealer.pseudonym(stored.app) == found.app:
        return stored.app
    registered = apps.get_model("control", "App").objects.values_list("id", flat=True)
    return next((a for a in registered.iterator() if sealer.pseudonym(a) == found.app), "")
