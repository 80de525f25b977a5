"""A row of any table tells in a few words which one it is, in the shell and in errors."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from django.apps import apps
from django.db import models

ROOMS = ("control", "decisions", "explain", "monitoring", "rollouts", "console")
MOMENT = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
# By kind of field, the first that fits; what is not named here gets 7.
VALUES: list[tuple[type[models.Field], object]] = [
    (models.DateTimeField, MOMENT),
    (models.DateField, MOMENT.date()),
    (models.UUIDField, uuid.UUID(int=7)),
    (models.BooleanField, True),
    (models.JSONField, {}),
    (models.BinaryField, b"7"),
    (models.CharField, "seven"),
    (models.TextField, "seven"),
]
NAMED = [
    model
    for model in apps.get_models()
    if model.__module__.split(".")[0] in ROOMS and "__str__" in vars(model)
]


def value(field: models.Field) -> object:
    if field.name == "id" and isinstance(field, models.UUIDField):
        return uuid.UUID(int=7)
    return next((found for kind, found in VALUES if isinstance(field, kind)), 7)


@pytest.mark.parametrize("model", NAMED, ids=lambda model: model._meta.label)
def test_a_row_says_which_one_it_is(model: type[models.Model]) -> None:
    fields = [f for f in model._meta.concrete_fields if not f.is_relation]
    keys = {f.attname: "seven" for f in model._meta.concrete_fields if f.is_relation}
    full = model(**{f.attname: value(f) for f in fields} | keys)
    assert 0 < len(str(full)) < 200
    empty = model(**{f.attname: None if f.null else value(f) for f in fields} | keys)
    assert 0 < len(str(empty)) < 200
    assert "None" not in str(full) + str(empty)


def test_every_room_with_tables_is_looked_at() -> None:
    assert {model._meta.app_label for model in NAMED} >= {
        "control",
        "decisions",
        "explain",
        "rollouts",
    }
