"""The forms by which a refusal is disputed and a dispute is decided."""

from __future__ import annotations

from django import forms

from control.audit import chain
from decisions.outcomes.disputes import TICKET_MAX

VERDICTS = (("uphold", "It was wrong: a false throttle"), ("decline", "It was correct"))


class OpenForm(forms.Form):
    """The form that opens a dispute: why the refusal was wrong."""

    reason = forms.CharField(
        max_length=chain.REASON_MAX,
        error_messages={
            "required": "Say how you know that it was wrong; the second person reads it."
        },
    )
    ticket = forms.CharField(required=False, max_length=TICKET_MAX)


class VerdictForm(forms.Form):
    """The form for the verdict of the second person."""

    verdict = forms.ChoiceField(
        choices=VERDICTS,
        error_messages={
            "required": "Say whether it was wrong.",
            "invalid_choice": "Say whether it was wrong.",
        },
    )
    reason = forms.CharField(
        max_length=chain.REASON_MAX,
        error_messages={"required": "Say what you found; whoever opened the dispute reads it."},
    )
