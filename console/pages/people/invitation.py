"""The page on which a person chooses a password, reached by a link that works once."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.password_validation import password_validators_help_texts
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods

from console.frame.sign_in.password import LONGEST_PASSWORD
from control.errors import Refused
from control.people import accounts
from control.people.accounts import Invitation

# Key of the session: the parts of the link that was opened.
_OPENED = "invitation"


@login_not_required
@require_GET
@sensitive_variables("token", "invitation")
def opened(request: HttpRequest, person: str, token: str) -> HttpResponse:
    """Remember an opened link in the session and go on at an address without it: the address of a
    form that was refused lands in logs. Answer 404 for a link that does not work.
    """
    invitation = Invitation(person, token)
    if accounts.invited(invitation) is None:
        return _broken(request)
    request.session[_OPENED] = [person, token]
    return redirect("choose-password")


@login_not_required
@require_http_methods(["GET", "POST"])
@sensitive_post_parameters()
@sensitive_variables("password", "again", "invitation")
def choose_password(request: HttpRequest) -> HttpResponse:
    """Show the form for a new password, and set it when it is posted. Answer 404 for a link that
    does not work, without saying why.
    """
    invitation = Invitation(*request.session.get(_OPENED, ("", "")))
    found = accounts.invited(invitation)
    if found is None:
        return _broken(request)
    why = ""
    if request.method == "POST":
        password, again = request.POST.get("password", ""), request.POST.get("again", "")
        if not (why := _unfit(password, again)):
            try:
                accounts.choose_password(invitation, password)
            except Refused as error:
                why = str(error)
            else:
                del request.session[_OPENED]
                messages.info(request, "Your password is set. Sign in with it.")
                return redirect("login")
    context = {"found": found, "why": why, "rules": password_validators_help_texts()}
    return render(request, "console/invitation.html", context, status=422 if why else 200)


def _unfit(password: str, again: str) -> str:
    """Return what is wrong with a password before it is judged; "" for nothing."""
    if password != again:
        return "The two passwords are not the same."
    if len(password) > LONGEST_PASSWORD or "\0" in password:
        return f"A password has at most {LONGEST_PASSWORD:,} characters, and no NUL."
    return ""


def _broken(request: HttpRequest) -> HttpResponse:
    return render(request, "console/invitation.html", {"found": None}, status=404)
