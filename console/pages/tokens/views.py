"""The page of a person's own API tokens: make one, see it once, revoke it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from console.frame.people import person
from control.audit import chain, tokens
from control.errors import Refused
from control.models import AuditEntry


class TokenForm(forms.Form):
    """The form for a new token: what it is for, and how long it lasts."""

    reason = forms.CharField(
        max_length=chain.REASON_MAX, error_messages={"required": "Say what the token is for."}
    )
    days = forms.IntegerField(
        min_value=tokens.SHORTEST_DAYS,
        max_value=tokens.LONGEST_DAYS,
        initial=tokens.USUAL_DAYS,
        error_messages={
            "required": (
                f"Say how many days it lives, {tokens.SHORTEST_DAYS} to {tokens.LONGEST_DAYS}."
            )
        },
    )


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as it is listed: never the token itself."""

    key: str
    """Its first characters."""
    reason: str
    created: datetime
    expiry: datetime


@require_http_methods(["GET", "POST"])
# The text is the token, which an error report must not hold.
@sensitive_variables("text")
@permission_required(tokens.PERMISSION, raise_exception=True)
def token_page(request: HttpRequest) -> HttpResponse:
    """Show the person's tokens, and make a new one when the form is posted.

    The answer to a post is the only page that ever shows a token.
    """
    form = TokenForm(request.POST if request.method == "POST" else None)
    text, refused = "", ""
    if form.is_valid():
        try:
            _, text = tokens.create(
                by=person(request),
                days=form.cleaned_data["days"],
                reason=form.cleaned_data["reason"],
            )
            form = TokenForm()
        except Refused as error:
            refused = str(error)
    bad = bool(refused or form.errors)
    context = {
        "page": "",
        "form": form,
        "text": text,
        "refused": refused,
        "rows": _rows(person(request)),
        "most": tokens.MOST,
    }
    return render(
        request, "console/tokens.html", context, status=422 if bad else 201 if text else 200
    )


def _rows(user: AbstractUser) -> list[TokenRow]:
    """Return a person's valid tokens, with their reasons from the audit log."""
    living = list(tokens.living(user))
    # The token's own row holds no reason; its entry in the audit log does.
    made = AuditEntry.objects.filter(
        action="token_made", subject__in=[f"token {one.token_key}" for one in living]
    )
    reasons = dict(made.values_list("subject", "reason"))
    return [
        TokenRow(one.token_key, reasons.get(f"token {one.token_key}", ""), one.created, one.expiry)
        for one in living
    ]


@require_POST
@permission_required(tokens.PERMISSION, raise_exception=True)
def revoke_token(request: HttpRequest, token: str) -> HttpResponse:
    """Revoke one of the person's own tokens at once. Raise Http404 when there is no such token."""
    if not tokens.revoke(by=person(request), token=token):
        raise Http404("You have no such token.")
    messages.info(request, f"The token {token}… is revoked. Calls with it are refused from now on.")
    return redirect("tokens")
