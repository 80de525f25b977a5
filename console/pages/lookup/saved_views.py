"""Saved searches, and what the command palette finds while someone types."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from console.frame.people import person
from console.frame.permissions import READ
from console.pages.lookup import pasted_text, saved_searches
from console.pages.receipts import pasted_receipt
from control.directory import apps as directory
from decider.contracts.ids import format_decision_id, parse_decision_id
from decisions.search import credentials


@require_POST
@permission_required(READ, raise_exception=True)
def save_search(request: HttpRequest) -> HttpResponse:
    """Save the search on the page under a name."""
    query = request.POST.get("query", "")[:4_000]
    try:
        kept = saved_searches.save_search(
            by=person(request),
            name=request.POST.get("name", ""),
            query=query,
            shared="shared" in request.POST,
        )
    except saved_searches.SecretError as error:
        messages.error(request, str(error))
        return redirect("lookup")  # without the query, which holds the credential
    except saved_searches.SaveError as error:
        messages.error(request, str(error))
        return redirect(f"{reverse('lookup')}?{query}")
    messages.info(
        request, f"Saved as “{kept.name}”{', for everyone' if kept.shared else ', for you alone'}."
    )
    return redirect(f"{reverse('lookup')}?{kept.query}")


@require_POST
@permission_required(READ, raise_exception=True)
def delete_search(request: HttpRequest, number: int) -> HttpResponse:
    """Delete one's own saved search."""
    if saved_searches.remove_search(by=person(request), number=number):
        messages.info(request, "The saved search is deleted.")
    else:
        messages.error(request, f"You have no saved search with the number {number}.")
    return redirect("lookup")


@dataclass(frozen=True, slots=True)
class PaletteEntry:
    """One line of the palette."""

    icon: str
    label: str
    hint: str
    href: str


@sensitive_post_parameters("q")
@require_POST
@permission_required(READ, raise_exception=True)
def palette(request: HttpRequest) -> HttpResponse:
    """Find decisions, apps and saved searches that match the typed text.

    The text is posted, and never repeated when it may be a credential.
    """
    text = pasted_text.meant(request.POST.get("q", ""))
    return render(request, "decisions/palette_found.html", {"lines": _lines(request, text)})


def _lines(request: HttpRequest, text: str) -> list[PaletteEntry]:
    """Return the palette's entries for a text; [] when it may be a credential."""
    if not text or "\x00" in text:
        return []
    if raw := parse_decision_id(text):
        name = format_decision_id(raw)
        return [PaletteEntry("search", name, "Decision", reverse("decision", args=[name]))]
    if (receipt := pasted_receipt.read_receipt(text)) and receipt.address:
        return [PaletteEntry("search", "A receipt", "Open its story", receipt.address)]
    # One letter matches too much to help, and a credential goes into no query.
    if credentials.is_secret(text) or len(text) < 2:
        return []
    exact = directory.app(text)
    apps = [
        PaletteEntry(
            "key", known.name, f"{known.id}, {known.tenant_name}", reverse("app", args=[known.id])
        )
        for known in ([exact] if exact else directory.named(text, limit=6).apps[:6])
    ]
    kept = [
        PaletteEntry("search", s.name, "Saved search" if s.mine else f"Shared by {s.owner}", s.href)
        for s in saved_searches.visible_searches(person(request))
        if text.casefold() in s.name.casefold()
    ]
    return apps + kept[:4]
