"""The form that asks for confirmation before a switch is flipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django import forms
from django.http import QueryDict
from django.utils import timezone

from control.audit import chain
from control.switches.switches import SwitchKind, Verb

# Chosen: for the first look at an incident, for a whole incident, and for a night.
LENGTHS = {"30m": timedelta(minutes=30), "2h": timedelta(hours=2), "8h": timedelta(hours=8)}
_WORDS = {"30m": "30 minutes", "2h": "2 hours", "8h": "8 hours"}


class FlipForm(forms.Form):
    """The form of a flip: reason, end, and the switch's name typed out. Times are UTC."""

    reason = forms.CharField(required=False, max_length=chain.REASON_MAX, strip=True)
    ends = forms.ChoiceField(required=False)
    at = forms.DateTimeField(required=False, input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
    confirm = forms.CharField(required=False, max_length=100, strip=True)

    def __init__(self, kind: SwitchKind, verb: Verb, data: QueryDict | None = None) -> None:
        super().__init__(data)
        self.kind, self.verb = kind, verb
        now = timezone.now()
        lengths = [
            (key, f"{_WORDS[key]}, at {now + length:%H:%M} UTC") for key, length in LENGTHS.items()
        ]
        ends = self.fields["ends"]
        assert isinstance(ends, forms.ChoiceField)
        ends.choices = [*lengths, ("at", "Pick a time"), ("open", "Until I turn it off")]
        # With this default, a switch that people forget ends by itself the same day.
        ends.initial = "2h"
        self.fields["at"].error_messages["invalid"] = (
            "This is not a date and time. Use for example 2026-01-31T16:30."
        )

    @property
    def asks_end(self) -> bool:
        """Whether the form asks for an end: engaging and extending do."""
        return self.verb != "clear"

    def clean_reason(self) -> str:
        """Return the reason. Raise ValidationError when it is empty."""
        if not self.cleaned_data["reason"]:
            raise forms.ValidationError("Say what is wrong. Everyone sees this, and it is kept.")
        return str(self.cleaned_data["reason"])

    def clean_confirm(self) -> str:
        """Return the typed text. Raise ValidationError when it is not the word that confirms."""
        typed = str(self.cleaned_data["confirm"])
        # Typing the name costs a second, and stops a flip of the wrong switch.
        if typed.lower() != self.kind.confirm:
            raise forms.ValidationError(f"Type {self.kind.confirm} to confirm.")
        return typed

    def clean_ends(self) -> str:
        """Return the chosen end. Raise ValidationError when one is asked for and missing."""
        if self.asks_end and not self.cleaned_data["ends"]:
            raise forms.ValidationError("Say when it ends.")
        return str(self.cleaned_data["ends"])

    def clean(self) -> dict[str, object]:
        """Return the values. Add an error to `at` when a picked end is not in the future."""
        data = super().clean() or self.cleaned_data
        if (
            self.asks_end
            and data.get("ends") == "at"
            and "at" not in self.errors
            and (self.until is None or self.until <= timezone.now())
        ):
            self.add_error("at", f"Pick a time after {timezone.now():%d %b, %H:%M} UTC.")
        return data

    @property
    def until(self) -> datetime | None:
        """When the switch ends; None if it stays engaged until someone clears it. Read this only
        after the form was checked.
        """
        if not self.asks_end:
            return None
        ends = self.cleaned_data.get("ends")
        if ends == "at":
            at = self.cleaned_data.get("at")
            return at.astimezone(UTC) if at else None
        return timezone.now() + LENGTHS[ends] if ends in LENGTHS else None
