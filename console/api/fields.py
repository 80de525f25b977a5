"""Fields and parameters that several REST operations share."""

from __future__ import annotations

from rest_framework import serializers

from decider.contracts.vocabulary import Action, Arm, MlState, Reason, Stage, Tier


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
