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

from console.frame.permissions import READ
from console.pages.lookup import pasted, saved
from console.pages.receipts import reading
from control.directory import apps as directory
from decider.contracts.ids import format_decision_id, parse_decision_id
from decisions.search import credentials


@require_POST
@permission_required(READ, raise_exception=True)
def save(request: HttpRequest) -> HttpResponse:
    """Keeps the search on the page under a name."""
    query = request.POST.get("query", "")[:4_000]
    try:
        kept = saved.save(
            by=request.user,
            name=request.POST.get("name", ""),
            query=query,
            shared="shared" in request.POST,
        )
    except saved.SecretError as error:
        messages.error(request, str(error))
        return redirect("lookup")  # without the query, which holds it
    except saved.SaveError as error:
        messages.error(request, str(error))
        return redirect(f"{reverse('lookup')}?{query}")
    messages.info(
        request, f"Saved as “{kept.name}”{', for everyone' if kept.shared else ', for you alone'}."
    )
    return redirect(f"{reverse('lookup')}?{kept.query}")


@require_POST
@permission_required(READ, raise_exception=True)
def delete(request: HttpRequest, number: int) -> HttpResponse:
    """Deletes one's own saved search."""
    if saved.remove(by=request.user, number=number):
        messages.info(request, "The saved search is deleted.")
    else:
        messages.error(request, "There is no such saved search of yours.")
    return redirect("lookup")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the palette."""

    icon: str
    label: str
    hint: str
    href: str


@sensitive_post_parameters("q")
@require_POST
@permission_required(READ, raise_exception=True)
def palette(request: HttpRequest) -> HttpResponse:
    """Decisions, apps and saved searches for what is typed; posted, and never repeated when it may
    be a credential.
    """
    text = pasted.meant(request.POST.get("q", ""))
    return render(request, "decisions/palette_found.html", {"lines": _lines(request, text)})


def _lines(request: HttpRequest, text: str) -> list[Line]:
    if not text or "\x00" in text:
        return []
    if raw := parse_decision_id(text):
        name = format_decision_id(raw)
        return [Line("search", name, "Decision", reverse("decision", args=[name]))]
    if (receipt := reading.read(text)) and receipt.address:
        return [Line("search", "A receipt", "Open its story", receipt.address)]
    if credentials.is_secret(text) or len(text) < 2:
        return []
    exact = directory.app(text)
    apps = [
        Line("key", known.name, f"{known.id}, {known.tenant_name}", reverse("app", args=[known.id]))
        for known in ([exact] if exact else directory.named(text, limit=6).apps[:6])
    ]
    kept = [
        Line("search", s.name, "Saved search" if s.mine else f"Shared by {s.owner}", s.href)
        for s in saved.visible(request.user)
        if text.casefold() in s.name.casefold()
    ]
    return apps + kept[:4]
