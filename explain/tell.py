"""Short reasons for tables of decisions, where the model's findings say more than the machine reason."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from decider.artifact import ArtifactError
from decider.features import FEATURES, SCHEMA, format_value
from decider.vocabulary import Reason
from decisions.models import Decision

from . import artifacts, reasons
from .models import Explanation


def short(decisions: Sequence[Decision]) -> dict[uuid.UUID, str]:
    """The strongest finding of each decision that risk decided and that is explained."""
    told = {d.id: d for d in decisions if d.reason == Reason.RISK_HIGH and d.feature_schema == SCHEMA}
    if not told:
        return {}
    found = Explanation.objects.filter(decision__in=list(told), at__in=[d.at for d in told.values()])
    return {e.decision: text for e in found if (text := _strongest(e, told[e.decision]))}


def _strongest(explanation: Explanation, d: Decision) -> str:
    k = int(np.argmax(explanation.values))
    value = float(np.frombuffer(bytes(d.features), "<f4")[k])
    if explanation.values[k] <= 0 or value != value:
        return ""
    text = f"{FEATURES[k].label.split(',')[0]}: {format_value(FEATURES[k], value)}"
    try:
        typical = reasons.typical(artifacts.artifact(explanation.model), d.tier)
    except ArtifactError:
        typical = None
    return f"{text}, peers {format_value(FEATURES[k], typical[k])}" if typical else text
