"""Fields of request bodies that take a value of their own type only: a number is no name, and 0 is no "no"."""

from __future__ import annotations

from rest_framework import serializers


class TextField(serializers.CharField):
    """A JSON string."""

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class FlagField(serializers.BooleanField):
    """true or false."""

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data
