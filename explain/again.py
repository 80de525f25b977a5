"""Deciding a stored decision again: with its own config, to verify the record, and with the config of now."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from django.utils import timezone

from decider import replay
from decider.artifact import ArtifactError
from decider.config import Config
from decider.event import Event
from decider.models import Model
from decider.replay import Again, ReplayError
from decider.vocabulary import REASONS, Action, MlState, Reason, Stage
from decisions import configs, why
from decisions.models import Decision

from . import artifacts


@dataclass(frozen=True, slots=True)
class Replay:
    """How deciding again from the record came out."""

    level: str
    word: str
    detail: str


_scoring = threading.Lock()
"""A model scores for one thread at a time."""


def model_of(digest: str) -> Model | None:
    """A model ready to score; None when it is not here or may not be used."""
    try:
        return artifacts.model(digest) if digest else None
    except ArtifactError:
        return None


def replayed(d: Decision, event: Event, config: Config | None) -> Replay:
    """Decides the record again with its own config and model, and says whether the answer is the same to the bit."""
    if config is None:
        return Replay("off", "Not replayed", f"config {d.config_version} is not kept here")
    model = model_of(d.model) if d.risk is not None else None
    try:
        with _scoring:
            again = replay.decide_again(event, config, model)
    except ReplayError as error:
        return Replay("warn", "Not replayed", str(error))
    if not again.identical:
        return Replay("bad", "Replay differs", _differs(d, again))
    if d.risk is not None and model is None:
        return Replay("warn", "Policy verified", "same answer from the recorded scores; the model is not here to score again")
    return Replay("ok", "Replay verified", f"{timezone.now():%H:%M:%S}, identical to the bit")


def _differs(d: Decision, again: Again) -> str:
    then = f"{Action(d.action).word} at risk {_exact(d.risk)}, wait {d.retry_after:.6g} s"
    return f"recorded {then}; now {Action(again.action).word} at risk {_exact(again.risk)}, wait {again.retry_after:.6g} s"


def _exact(value: float | None) -> str:
    return "–" if value is None else f"{value:.9f}"


@dataclass(frozen=True, slots=True)
class Now:
    """The request decided under the config of now."""

    title: str
    action: int
    note: str


def decided_now(d: Decision) -> tuple[list[Now], str]:
    """The recorded request under the newest config, and by the fallback limiter alone; or why that cannot be said."""
    config = configs.newest()
    if config is None:
        return [], "There is no config document to decide with."
    now = timezone.now().timestamp()
    off = any(s.name == "all_ml" and (s.until is None or s.until > now) for s in config.switches)
    state = MlState.SWITCHED_OFF if off else MlState.LIVE if config.model else MlState.NO_MODEL
    model = model_of(config.model.digest) if config.model else None
    if state == MlState.LIVE and model is None:
        return [], "The live model is not here to score with."
    event = d.event()
    try:
        with _scoring:
            live = replay.decide_under(event, config, model, ml_state=state)
        alone = replay.decide_under(event, config, None, ml_state=MlState.SWITCHED_OFF)
    except ReplayError as error:
        return [], f"It cannot be decided again here: {error}."
    title = f"Same request, config {config.version}{', All ML engaged' if off else ''}"
    wait = f"{why.duration(alone.retry_after)} to wait" if alone.retry_after else ""
    return [Now(title, live.action, _note(d, live)), Now("Same request, fallback limiter alone", alone.action, wait)], ""


def _note(d: Decision, again: Again) -> str:
    said = f"{Stage(again.stage).label}: {REASONS[Reason(again.reason)].text}."
    if again.risk is None:
        return said
    then = "" if d.risk is None else ", no change" if again.risk == d.risk else f", was {d.risk:.2f}"
    return f"Risk {again.risk:.2f}{then}. {said}"
