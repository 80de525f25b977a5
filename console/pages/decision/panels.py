"""What stands beside the explanation on a decision page and needs the policy function again: the
way back, worlds, limits.
"""

from __future__ import annotations

import numpy as np

from console.pages.decision.page import DecisionPage
from control.config import documents
from control.directory import apps as directory
from decider.contracts.features import FEATURES
from decider.contracts.vocabulary import Action
from decider.whatif.replay import ReplayError
from decisions.models import Decision
from explain.comparison import limits, peers, scenarios, shared_load, timeline
from explain.models import Explanation
from explain.recourse import search as recourse_search


def way_of(d: Decision) -> recourse_search.Recourse | None:
    """The way back of a stored refusal; None for an admit. Computed on demand, about 20 ms."""
    if d.action == Action.ADMIT:
        return None
    config = documents.config(d.config_version)
    if config is None:
        return recourse_search.Recourse(
            none=f"Config {d.config_version} is not kept here, so no change can be verified."
        )
    model = scenarios.find_model(d.model)
    try:
        return recourse_search.find_recourse(d.event(), config, model)
    except ReplayError as error:
        return recourse_search.Recourse(none=f"It cannot be decided again here: {error}.")


def limits_of(d: Decision, cut: float | None) -> list[limits.Limit]:
    """Every limit evaluated; empty when the record cannot be decided again here."""
    config = documents.config(d.config_version)
    try:
        return limits.evaluate_limits(d.event(), config, cut) if config else []
    except ReplayError:
        return []


def beside(d: Decision, shown: DecisionPage) -> dict[str, object]:
    """Template variables of these panels."""
    cut = shown.cut.at if shown.cut else None
    happened = timeline.build_timeline(d, shown.story.http)
    return {
        "way": way_of(d),
        "worlds": scenarios.decide_scenarios(d),
        "limits": limits_of(d, cut),
        "happened": happened,
    }


def around(d: Decision) -> dict[str, object]:
    """Template variables of the panels that read many decisions and load by themselves."""
    known = directory.app(d.app)
    return {
        "d": d,
        "name": known.name if known else d.app,
        "peers": peers.compare_with_peers(d, telling(d)),
        "shared": shared_load.estimate_shared_load(d),
    }


def telling(d: Decision) -> tuple[str, ...]:
    """The behaviour that spoke most against a decision, filled up with the usual features; names,
    at most `peers.MOST`.
    """
    found = Explanation.objects.filter(decision=d.id, at=d.at).first()
    values = found.values if found else np.zeros(len(FEATURES))
    order = [int(k) for k in np.argsort(-values) if values[k] > 0]
    names = [FEATURES[k].name for k in order if FEATURES[k].source in ("counters", "feedback")]
    return tuple(dict.fromkeys([*names, *peers.USUAL_FEATURES]))[: peers.SHOWN_FEATURES]
