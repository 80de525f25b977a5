"""Fields and parameters that several REST operations share."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from decider.contracts.vocabulary import Action, Arm, MlState, Reason, Stage, Tier

# Decisions on a page.
MOST, USUAL = 200, 50
# The schema of what `limit_of` reads.
LIMIT = {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}


class WordField(serializers.ChoiceField):
    """A fixed word of the vocabulary for its stored number, spelled as in the filters."""

    def __init__(
        self, kind: type[Action | Arm | MlState | Reason | Stage | Tier], **options: object
    ) -> None:
        self._kind = kind
        super().__init__(choices=[_word(k) for k in kind], **options)

    def to_representation(self, value: object) -> str:
        return _word(self._kind(value))


class Text(serializers.CharField):
    """A text as the document says: a number is none, which the framework would write out and
    take.
    """

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Flag(serializers.BooleanField):
    """True or false and nothing that could stand for them, such as 1 or "no"."""

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


def _word(kind: Action | Arm | MlState | Reason | Stage | Tier) -> str:
    return kind.name.lower().replace("_", "-")


class EstimateOut(serializers.Serializer):
    """How many decisions there were, estimated from those that were kept, with a 95% interval."""

    count = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    kept = serializers.IntegerField(help_text="Stored decisions it rests on.")


def limit_of(request: Request) -> int:
    """How many rows a page is to have. Raises ValidationError."""
    text = request.query_params.get("limit", str(USUAL))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MOST):
        raise ValidationError({"limit": f"A whole number from 1 to {MOST}."})
    return int(text)
