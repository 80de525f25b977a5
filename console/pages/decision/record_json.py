"""The stored record of a decision as JSON."""

from __future__ import annotations

import json
import math

import numpy as np

from decider.contracts.event import Event
from decider.contracts.features import NAMES
from decider.contracts.vocabulary import Action, Arm, MlState, Reason, Stage, Tier
from decisions import reason_text
from decisions.models import Decision
from explain.models import Explanation


def record_text(d: Decision, explanation: Explanation | None, *, with_token: bool) -> str:
    """Return the stored record as JSON text, indented for people."""
    return json.dumps(
        record_fields(d, explanation, with_token=with_token), indent=2, ensure_ascii=False
    )


def record_fields(d: Decision, explanation: Explanation | None, *, with_token: bool) -> object:
    """Return the stored record as JSON values: what the decider wrote, and the explanation when
    there is one.

    `with_token` includes the digest of the credential. Contributions are in log-odds.
    """
    fields: dict[str, object] = {
        "id": d.name,
        "at": d.at.isoformat(),
        **{n: getattr(d, n) for n in _PLAIN},
    }
    if with_token:
        fields["token_digest"] = d.token_digest
    # Numbers of the vocabulary become words, because readers do not know the numbers.
    fields |= {
        "tier": Tier(d.tier).word,
        "action": Action(d.action).word,
        "stage": Stage(d.stage).name.lower(),
        "reason": Reason(d.reason).name.lower(),
        "arm": Arm(d.arm).name.lower(),
        "ml_state": MlState(d.ml_state).name.lower(),
    }
    fields["signals"] = reason_text.signals(d)
    # The decider stores little-endian float32; a vector of another schema has no names here.
    row = np.frombuffer(bytes(d.features), "<f4").tolist()
    fields["features"] = dict(zip(NAMES, row, strict=False)) if len(row) == len(NAMES) else row
    if e := explanation:
        fields["explain"] = {
            "method": "tree_shap",
            "unit": "log_odds",
            "base": e.base,
            "raw": e.raw,
            "sum_error": e.sum_error,
            "contributions": dict(zip(NAMES, e.values.tolist(), strict=True)),
        }
    return _finite(fields)


# All fields of an event but these, which `record_fields` writes in their own way.
_PLAIN = tuple(
    n
    for n in Event.__struct_fields__
    if n not in ("id", "at", "token_digest", "features", "signals")
)


def _finite(value: object) -> object:
    """Replace NaN by null and an infinity by a word, recursively: JSON knows neither."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    return value
