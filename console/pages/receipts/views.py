"""The page of a receipt. The console links to it only for a receipt whose seal holds."""

from __future__ import annotations

from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from console.frame import app_looks
from console.frame.permissions import READ
from control.errors import KeysError
from decider.refusal.receipt import ReceiptError
from decisions.search.receipts import open_receipt
from explain.text import receipt as receipt_text


@require_GET
@permission_required(READ, raise_exception=True)
def receipt(request: HttpRequest, text: str) -> HttpResponse:
    """Show the story of a receipt; status 404 and the reason when it cannot be relied on."""
    try:
        found = open_receipt(text)
    except (ReceiptError, KeysError) as error:
        return render(
            request,
            "explain/receipt.html",
            {"page": "lookup", "r": None, "problem": str(error)},
            status=404,
        )
    if found.app:
        app_looks.note(request, found.app, "a receipt")
    story = receipt_text.write_receipt_story(found.receipt, found.app)
    return render(request, "explain/receipt.html", {"page": "lookup", "r": story, "problem": ""})
