"""The panels beside the explanation that run the policy function again (way back, worlds, limits),
and those about other decisions (peers, shared load).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from console.pages.decision.page import DecisionPage, Explained, explained, named_feature
from control.config import documents
from control.directory import apps as directory
from decider.contracts.config import version_text
from decider.contracts.features import FEATURES
from decider.contracts.vocabulary import Action
from decider.whatif.replay import ReplayError
from decisions.models import Decision
from explain.comparison import limits, peers, scenarios, shared_load, timeline
from explain.comparison.peers import PeerComparison, Peers
from explain.models import Explanation
from explain.recourse import search as recourse_search
from explain.recourse.ways import Recourse


def way_of(d: Decision, known: Explained) -> Recourse | None:
    """Return the way back to admit for a stored refusal, None for an admit. `known`: from
    `page.explained`.

    The search takes about 20 ms. If the config is not kept or the record cannot be decided again,
    `none` of the result says so.
    """
    if d.action == Action.ADMIT:
        return None
    config = documents.config(d.config_version)
    if config is None:
        return Recourse(
            none=(
                f"Config {version_text(d.config_version)} is not kept here, so no change can be"
                " verified."
            )
        )
    model = scenarios.find_model(d.model)
    try:
        return recourse_search.find_recourse(d.event(), config, model, named_feature(d, known))
    except ReplayError as error:
        return Recourse(none=f"It cannot be decided again here: {error}.")


def batch_helps(d: Decision, known: Explained) -> bool:
    """Return whether the batch that a response asked for would have been admitted; True where that
    cannot be verified. `known`: as in `way_of`.
    """
    way = way_of(d, known)
    missed = way.missed if way else ()
    return not any(change.lever == "batch" for one in missed for change in one.changes)


def limits_of(d: Decision, cut: float | None) -> list[limits.Limit]:
    """Return every limit that was evaluated, in the order of the stages.

    `cut` is the drawn threshold of risk, 0 to 1. Return [] when the record cannot be decided again
    here.
    """
    config = documents.config(d.config_version)
    try:
        return limits.evaluate_limits(d.event(), config, cut) if config else []
    except ReplayError:
        return []


def replayed_panels(d: Decision, shown: DecisionPage) -> dict[str, object]:
    """Return the template variables of the panels that decide the record again."""
    cut = shown.cut.at if shown.cut else None
    happened = timeline.build_timeline(d, shown.story.http)
    return {
        "way": way_of(d, shown.explained),
        "worlds": scenarios.decide_scenarios(d),
        "limits": limits_of(d, cut),
        "happened": happened,
    }


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A decision among its peers, and who else loaded the limit that fired."""

    name: str
    """Name of the decision's app, or its id when nobody registered it."""
    peers: Peers
    shared: shared_load.SharedLoad | None
    """None where no limit fired that requests use up."""
    ordinary: PeerComparison | None
    """What the headline names first, where its peers have as much of it now."""


def surroundings(d: Decision) -> Surroundings:
    """Read the panels about other decisions.

    They read many rows, so the page loads them by a later request.
    """
    known, beside = directory.app(d.app), peers.compare_with_peers(d, telling(d))
    return Surroundings(
        known.name if known else d.app,
        beside,
        shared_load.estimate_shared_load(d),
        _ordinary_now(d, beside),
    )


def _ordinary_now(d: Decision, beside: Peers) -> PeerComparison | None:
    """Return the comparison of the feature that the headline names first, where its peers have as
    much of it now: then what is usual has changed since the model's training.
    """
    reasons = explained(d).reasons
    if not reasons or reasons[0].typical is None or reasons[0].value <= reasons[0].typical:
        return None
    named = reasons[0].feature.name
    return next((row for row in beside.rows if row.feature.name == named and row.ordinary), None)


def telling(d: Decision) -> tuple[str, ...]:
    """Return the names of the features to compare with peers, at most `peers.SHOWN_FEATURES`.

    First the one that the headline names, then the behaviour that spoke most against the request,
    then the usual features.
    """
    found = Explanation.objects.filter(decision=d.id, at=d.at).first()
    # Without an explanation all contributions count as 0, so only the usual features are left.
    values = found.values if found else np.zeros(len(FEATURES))
    order = [int(k) for k in np.argsort(-values) if values[k] > 0]
    named = [reason.feature for reason in explained(d).reasons[:1]]
    # Only what the app does (counters, feedback) compares with others; facts about it do not.
    names = [
        feature.name
        for feature in (*named, *(FEATURES[k] for k in order))
        if feature.source in ("counters", "feedback")
    ]
    return tuple(dict.fromkeys([*names, *peers.USUAL_FEATURES]))[: peers.SHOWN_FEATURES]
