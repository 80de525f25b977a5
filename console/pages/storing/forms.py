"""The form by which buried events are replayed or discarded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from control.audit import chain

DOINGS = (("replay", "Replay"), ("discard", "Discard"))


class SettleForm(forms.Form):
    """Which events, what is done with them, and why."""

    do = forms.ChoiceField(
        choices=DOINGS,
        error_messages={
            "required": "Choose to replay or to discard.",
            "invalid_choice": "Choose to replay or to discard.",
        },
    )
    number = forms.TypedMultipleChoiceField(
        coerce=int, error_messages={"required": "Choose at least one."}
    )
    reason = forms.CharField(
        max_length=chain.REASON_MAX,
        error_messages={"required": "Say why; it is kept in the audit log."},
    )

    def __init__(self, data: Mapping[str, Any] | None, numbers: list[int]) -> None:
        """Read a form in which these numbers may be chosen."""
        super().__init__(data)
        # only what the form names can be read, and a name that is no number of one is an error
        self.fields["number"].choices = [(str(n), str(n)) for n in numbers]  # type: ignore[attr-defined]
