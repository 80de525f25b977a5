"""The page of a receipt, and reading one from what someone pastes. Only a receipt that holds gets an address."""

from __future__ import annotations

import re

from django.apps import apps
from django.conf import settings
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from control import keys
from control.errors import KeysError
from decider import receipt as receipts
from decider.receipt import Receipt, ReceiptError
from decisions.looks import note as look
from decisions.pasted import Reread
from decisions.views import READ
from explain import receipt_story

_FORM = re.compile(r"[\w-]{90,300}", re.ASCII)
"""Nothing shorter is a receipt; a longer word is a credential."""


def read(text: str) -> Reread | None:
    """What a pasted text is, when it has the form of a receipt: where its story is, or why it cannot be relied on."""
    if not _FORM.fullmatch(text):
        return None
    try:
        opened(text)
    except (ReceiptError, KeysError) as error:
        return Reread(hint=f"Read as a receipt. {error}")
    return Reread(address=reverse("receipt", args=[text]))


def opened(text: str) -> Receipt:
    """What a receipt of this installation says. Raises ReceiptError, KeysError."""
    return receipts.open_sealed(text, receipts.keys_of(keys.load_token_keys(settings.SLUICE_KEYS)))


@require_GET
@permission_required(READ, raise_exception=True)
def receipt(request: HttpRequest, text: str) -> HttpResponse:
    """The story of a receipt."""
    try:
        found = opened(text)
    except (ReceiptError, KeysError) as error:
        return render(request, "explain/receipt.html", {"page": "lookup", "r": None, "problem": str(error)}, status=404)
    app = _app(found)
    if app:
        look(request, app, "a receipt")
    return render(request, "explain/receipt.html", {"page": "lookup", "r": receipt_story.tell(found, app), "problem": ""})


def _app(found: Receipt) -> str:
    """The registered app behind a receipt's pseudonym; "" when it is none of them."""
    sealers = receipts.keys_of(keys.load_token_keys(settings.SLUICE_KEYS)).values()
    registered = apps.get_model("control", "App").objects.values_list("id", flat=True)
    return next((a for a in registered.iterator() if any(k.pseudonym(a) == found.app for k in sealers)), "")
