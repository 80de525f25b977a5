"""Short reasons for tables of decisions, where the model's findings say more than the machine
reason.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from decider.contracts.artifact import ArtifactError
from decider.contracts.features import SCHEMA
from decider.contracts.vocabulary import Reason
from decisions import reason_text
from decisions.models import Decision
from explain.models import Explanation
from explain.shap import model_files, waterfall
from explain.text import reason_codes


def write_short_reasons(decisions: Sequence[Decision]) -> dict[uuid.UUID, str]:
    """Return a short reason for each decision, by its id, for a table."""
    found = _findings(decisions)
    return {d.id: found.get(d.id) or reason_text.brief(d) for d in decisions}


def _findings(decisions: Sequence[Decision]) -> dict[uuid.UUID, str]:
    """Return the finding that opens a decision's page, by the decision's id. Only decisions that
    risk decided and that are explained have one.
    """
    told = {
        d.id: d
        for d in decisions
        if reason_text.find_telling_reason(d.action, d.reason) == Reason.RISK_HIGH
        and d.feature_schema == SCHEMA
    }
    if not told:
        return {}
    # Times are given besides ids, so that only the partitions of those days are read.
    times = [d.at for d in told.values()]
    found = Explanation.objects.filter(decision__in=list(told), at__in=times)
    _read_features(told, times)
    return {e.decision: text for e in found if (text := _leading(e, told[e.decision]))}


def _read_features(told: dict[uuid.UUID, Decision], times: list[datetime]) -> None:
    """Read the features of decisions that were read without them, all in one query."""
    without = {id_ for id_, d in told.items() if "features" in d.get_deferred_fields()}
    if without:
        rows = Decision.objects.filter(id__in=without, at__in=times)
        for id_, features in rows.values_list("id", "features"):
            told[id_].features = features


def _leading(explanation: Explanation, d: Decision) -> str:
    """Return the strongest finding: feature, value and what is usual. Return "" when nothing spoke
    against the request or its model is missing; the decision's page then says so too.
    """
    try:
        found = reason_codes.rank_reasons(
            waterfall.build_from_explanation(
                explanation, d, model_files.load_artifact(explanation.model)
            )
        )
    except ArtifactError:
        return ""
    if not found:
        return ""
    reason = found[0]
    # What follows a comma in a label is its window; a table cell has no room for it.
    text = f"{reason.feature.label.split(',')[0]}: {reason.shown_value}"
    return text if reason.typical is None else f"{text}, usual {reason.shown_typical}"
