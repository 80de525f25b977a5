"""The JSON Schema of `sluice.yaml`, for editors and for checks before a commit."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from control.declared.form import Declaration
from decider.contracts.vocabulary import Tier

# Shipped beside the code; `manage.py export --schema` prints it.
SHIPPED = Path(__file__).parent / "resources" / "sluice.schema.json"


@cache
def schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12)."""
    made = msgspec.json.schema(Declaration)
    # msgspec does not write down which keys a mapping with fixed words takes
    tiers = made["$defs"]["Declaration"]["properties"]["tiers"]
    tiers["propertyNames"] = {"enum": [tier.word for tier in Tier]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sluice.yaml",
    } | made


def text() -> str:
    """Return the schema as it is shipped."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
