"""Fields that several REST operations share."""

from __future__ import annotations

from rest_framework import serializers

from decider.contracts.vocabulary import Action, Arm, MlState, Reason, Stage, Tier

# The kinds of vocabulary words that are stored as numbers.
Vocabulary = Action | Arm | MlState | Reason | Stage | Tier


def text_schema(most: int) -> dict[str, object]:
    """Return the OpenAPI schema of a text parameter: at most `most` characters, and no NUL.

    PostgreSQL keeps no NUL in a text, so such a value could match nothing.
    """
    return {"type": "string", "maxLength": most, "pattern": r"^[^\x00]*$"}


class WordField(serializers.ChoiceField):
    """A field that shows a stored number as its vocabulary word, spelled as in the filters."""

    def __init__(
        self,
        kind: type[Vocabulary],
        *,
        allow_null: bool = False,
        source: str | None = None,
        help_text: str | None = None,
    ) -> None:
        self._kind = kind
        super().__init__(
            choices=[_word(member) for member in kind],
            allow_null=allow_null,
            source=source,
            help_text=help_text,
        )

    def to_representation(self, value: int | str) -> str:
        return _word(self._kind(int(value)))


class Text(serializers.CharField):
    """A field that takes only text; the framework's own field would turn a number into text."""

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Flag(serializers.BooleanField):
    """A field that takes only true and false; the framework's own field would take 1 and "no"."""

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


def _word(member: Vocabulary) -> str:
    return member.name.lower().replace("_", "-")


class EstimateOut(serializers.Serializer[object]):
    """How many decisions there were, estimated from those that were kept, with a 95% interval."""

    count = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    kept = serializers.IntegerField(help_text="Stored decisions that the estimate rests on.")
