"""The forms that decide a request, turn four eyes on or off, and close a review."""

from __future__ import annotations

from django import forms

from control.audit import chain

DOINGS = (
    ("approve", "Approve"),
    ("veto", "Veto"),
    ("withdraw", "Withdraw"),
    ("rebase", "Rebase"),
)


class ReasonForm(forms.Form):
    """A form that asks for a reason."""

    reason = forms.CharField(
        max_length=chain.REASON_MAX,
        error_messages={"required": "Say why. Everyone sees this, and it is kept."},
    )


class DecideForm(ReasonForm):
    """What someone does with a request, and the digest of what they have read."""

    do = forms.ChoiceField(choices=DOINGS)
    digest = forms.CharField(max_length=64)

    def clean(self) -> dict[str, object]:
        """Return the values. Say of a field that nobody sees above the form what is wrong."""
        data = super().clean() or self.cleaned_data
        for name in ("do", "digest"):
            for error in self.errors.get(name, []):
                self.add_error(None, f"{name}: {error}")
        return data


class ModeForm(ReasonForm):
    """Whether four eyes shall be on."""

    on = forms.TypedChoiceField(
        choices=(("yes", "On"), ("no", "Off")), coerce=lambda text: text == "yes"
    )
