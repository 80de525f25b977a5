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
    """What weighs most of what is unlike similar apps; what weighs most where nothing is, or nobody knows how those are."""
    values, row = explanation.values, np.frombuffer(bytes(d.features), "<f4").astype(float)
    adverse = [int(k) for k in np.argsort(-values) if values[k] > 0 and not np.isnan(row[k])]
    if not adverse:
        return ""
    try:
        typical = reasons.typical(artifacts.artifact(explanation.model), d.tier)
    except ArtifactError:
        typical = None
    found = ((FEATURES[k], row[k], typical[k] if typical else None) for k in adverse)
    told = [(f, format_value(f, x), "" if usual is None else format_value(f, usual)) for f, x, usual in found]
    feature, value, usual = next((one for one in told if one[1] != one[2]), told[0])
    text = f"{feature.label.split(',')[0]}: {value}"
    return f"{text}, peers {usual}" if usual and usual != value else text
