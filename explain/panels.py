"""What stands beside the explanation on a decision page and needs the policy function again: the way back, worlds, limits."""

from __future__ import annotations

from decider.replay import ReplayError
from decider.vocabulary import Action
from decisions import configs
from decisions.models import Decision

from . import limits, way_back, worlds
from .page import DecisionPage


def way_of(d: Decision) -> way_back.WayBack | None:
    """The way back of a stored refusal; None for an admit. Computed on demand, about 20 ms."""
    if d.action == Action.ADMIT:
        return None
    config = configs.config(d.config_version)
    if config is None:
        return way_back.WayBack(none=f"Config {d.config_version} is not kept here, so no change can be verified.")
    model = worlds.model_of(d.model)
    try:
        with worlds.scoring:
            return way_back.find(d.event(), config, model)
    except ReplayError as error:
        return way_back.WayBack(none=f"It cannot be decided again here: {error}.")


def limits_of(d: Decision, cut: float | None) -> list[limits.Limit]:
    """Every limit evaluated; empty when the record cannot be decided again here."""
    config = configs.config(d.config_version)
    try:
        return limits.of(d.event(), config, cut) if config else []
    except ReplayError:
        return []


def beside(d: Decision, shown: DecisionPage) -> dict[str, object]:
    """Template variables of these panels."""
    cut = shown.cut.at if shown.cut else None
    return {"way": way_of(d), "worlds": worlds.of(d), "limits": limits_of(d, cut)}
