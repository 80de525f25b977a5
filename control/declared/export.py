"""Writes the present state of an installation as `sluice.yaml`: stable, so that two exports of the
same state are the same text, and a change shows as a small difference.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, Struct

from control.declared import yaml_text
from control.declared.form import Declaration, Sampling, UnknownApps

HEAD = """\
# What this installation is; the form is sluice.schema.json. `manage.py plan sluice.yaml` shows what
# a change of this file would do, and `manage.py apply sluice.yaml` does it. An entry that is named
# here is this file's in whole: what it leaves out has its default. Switches, overrides and rules
# with an end are never here.
"""
# Few fields, which a reader wants to see all.
_WHOLE = (Sampling, UnknownApps)


def write(declared: Declaration) -> str:
    """Return a declaration as the text of a file."""
    value = plain(declared)
    blocks = ["\n".join(yaml_text.write({name: part})) + "\n" for name, part in value.items()]
    return HEAD + "\n".join(blocks)


def plain(value: Any) -> Any:
    """Return a struct of the form as plain mappings, without the fields that have their default."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, Struct):
        return value
    whole = isinstance(value, _WHOLE)
    return {
        field.name: plain(held)
        for field in msgspec.structs.fields(value)
        if (held := getattr(value, field.name)) is not UNSET
        and (whole or field.required or held != _default(field))
    }


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is NODEFAULT else field.default_factory()
