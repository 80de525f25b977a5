"""The forms by which people are made and changed."""

from __future__ import annotations

from django import forms

from control.audit import chain
from control.audit.actors import ROLE_LABELS
from control.people import accounts

# What can be done to a person: its name in the form, and whether it needs a role.
CHANGES = {"give": True, "take": True, "deactivate": False, "activate": False, "link": False}


def _reason(why: str) -> forms.CharField:
    return forms.CharField(max_length=chain.REASON_MAX, error_messages={"required": why})


class PersonForm(forms.Form):
    """The form for a new person. They have no role yet."""

    email = forms.CharField(
        max_length=accounts.LONGEST_EMAIL,
        error_messages={"required": "Give the email that they sign in with."},
    )
    first = forms.CharField(
        max_length=accounts.LONGEST_NAME, error_messages={"required": "Give a first name."}
    )
    last = forms.CharField(
        max_length=accounts.LONGEST_NAME, error_messages={"required": "Give a last name."}
    )
    reason = _reason("Say why they need an account.")


class ChangeForm(forms.Form):
    """The form for one change of a person."""

    what = forms.ChoiceField(choices=[(name, name) for name in CHANGES])
    role = forms.ChoiceField(choices=list(ROLE_LABELS.items()), required=False)
    reason = _reason("Give a reason; the audit log keeps it.")

    def clean(self) -> dict[str, object]:
        """Add an error when a role is needed and missing."""
        given: dict[str, object] = super().clean() or {}
        if CHANGES.get(str(given.get("what"))) and not given.get("role"):
            self.add_error("role", "Choose a role.")
        return given


class ReviewForm(forms.Form):
    """The form that records a review."""

    reason = _reason("Say what you looked at; the audit log keeps it.")
