"""Three worlds: the request as it was decided then, as the config in force now decides it, and as
another model would.

A difference is traced by experiment, never by reading: each changed line is put alone into the
document of then and the record decided again, until the answer of now comes out.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from django.utils import timezone

from control.config import documents
from decider.contracts.artifact import ArtifactError
from decider.contracts.config import Config
from decider.contracts.event import Event
from decider.contracts.features import FEATURES, format_value
from decider.contracts.units import rounded_span
from decider.contracts.vocabulary import ML_STATE_TEXT, REASONS, Action, MlState, Reason, Stage
from decider.scoring.model import Model
from decider.whatif import replay
from decider.whatif.replay import Again, ReplayError
from decisions.models import Decision
from explain.comparison import effective_config
from explain.comparison.effective_config import Line
from explain.shap import model_files
from explain.shap import values as shap_values
from rollouts.models import ModelVersion

# A model scores for one thread at a time.
scoring = threading.Lock()
SHOWN_LINES = 4


@dataclass(frozen=True, slots=True)
class World:
    """One answer to the same request."""

    title: str
    action: int | None
    """None when it cannot be decided here; `note` says why."""
    note: str
    because: tuple[str, ...] = ()
    """What makes it differ from the record: config lines old → new, a model version, a feature.
    Empty when it does not.
    """
    level: str = ""
    """State of the replay: ok, warn, bad or off; empty for the other worlds."""
    word: str = ""
    risk: float | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """How deciding again from the record came out."""

    level: str
    word: str
    detail: str


def model_of(digest: str) -> Model | None:
    """A model ready to score; None when it is not here or may not be used."""
    try:
        return model_files.model(digest) if digest else None
    except ArtifactError:
        return None


def model_name(digest: str) -> str:
    """The name people know a model by; the digest's beginning when it is not here."""
    row = ModelVersion.objects.filter(digest=digest).first()
    return str(row) if row else digest[:8] or "no model"


def replayed(d: Decision, event: Event, config: Config | None) -> Replay:
    """Decides the record again with its own config and model, and says whether the answer is the
    same to the bit.
    """
    if config is None:
        return Replay("off", "Not replayed", f"config {d.config_version} is not kept here")
    model = model_of(d.model) if d.risk is not None else None
    try:
        with scoring:
            again = replay.decide_again(event, config, model)
    except ReplayError as error:
        return Replay("warn", "Not replayed", str(error))
    if not again.identical:
        return Replay("bad", "Replay differs", _differs(d, again))
    if d.risk is not None and model is None:
        return Replay(
            "warn",
            "Policy verified",
            "same answer from the recorded scores; the model is not here to score again",
        )
    return Replay("ok", "Replay verified", f"{timezone.now():%H:%M:%S}, identical to the bit")


def _differs(d: Decision, again: Again) -> str:
    then = f"{Action(d.action).word} at risk {_exact(d.risk)}, wait {d.retry_after:.6g} s"
    return (
        f"recorded {then}; now {Action(again.action).word} at risk {_exact(again.risk)}, wait"
        f" {again.retry_after:.6g} s"
    )


def _exact(value: float | None) -> str:
    return "–" if value is None else f"{value:.9f}"


@dataclass(frozen=True, slots=True)
class _Setting:
    """What decides besides the record."""

    config: Config
    digest: str
    ml_state: MlState
    now: float


def of(d: Decision) -> list[World]:
    """The worlds of a stored decision: then, now, another model where there is one, and the
    fallback limiter alone.
    """
    event, then = d.event(), documents.config(d.config_version)
    first = _then(d, event, then)
    newest = documents.newest()
    if newest is None:
        return [first, World("As decided now", None, "There is no config document to decide with.")]
    now = timezone.now().timestamp()
    setting = _Setting(
        effective_config.at(newest, event, now),
        newest.model.digest if newest.model else "",
        _ml_state(newest, now),
        now,
    )
    try:
        rest = [
            _now(d, event, then, setting),
            *_other_model(d, event, then, setting),
            _alone(event, then, setting),
        ]
    except ReplayError as error:
        rest = [World("As decided now", None, f"It cannot be decided again here: {error}.")]
    return [first, *rest]


def _then(d: Decision, event: Event, config: Config | None) -> World:
    found = replayed(d, event, config)
    return World(
        f"As decided then, config {d.config_version}",
        d.action,
        found.detail,
        (),
        found.level,
        found.word,
        d.risk,
    )


def _ml_state(config: Config, now: float) -> MlState:
    if any(s.name == "all_ml" and (s.until is None or s.until > now) for s in config.switches):
        return MlState.SWITCHED_OFF
    return MlState.LIVE if config.model else MlState.NO_MODEL


def _decide(event: Event, then: Config | None, setting: _Setting) -> Again:
    """The record under a setting. Raises ReplayError, also when the model is not here to score
    with.
    """
    model = model_of(setting.digest) if setting.ml_state == MlState.LIVE else None
    if setting.ml_state == MlState.LIVE and model is None:
        raise ReplayError("the model is not here to score with")
    replay.vectors(event)
    record = effective_config.record_under(
        event, then or setting.config, setting.config, setting.now
    )
    with scoring:
        return replay.decide_under(record, setting.config, model, ml_state=setting.ml_state)


def _now(d: Decision, event: Event, then: Config | None, setting: _Setting) -> World:
    again = _decide(event, then, setting)
    off = ", All ML engaged" if setting.ml_state == MlState.SWITCHED_OFF else ""
    title = f"As decided now, config {setting.config.version}{off}"
    because = _trace(event, then, setting, again) if again.action != d.action else ()
    note = _note(d, again)
    if again.action == d.action and then is not None and setting.config.version != d.config_version:
        note += " " + _untouched(
            effective_config.lines(
                effective_config.at(then, event, event.at), setting.config, event
            )
        )
    return World(title, again.action, note, because, risk=again.risk)


def _untouched(changed: list[Line]) -> str:
    if not changed:
        return "No line that bears on it has changed."
    shown = "; ".join(line.sentence for line in changed[:SHOWN_LINES])
    return f"Changed since, without effect here: {shown}."


def _trace(
    event: Event, then: Config | None, now: _Setting, answer: Again, model_word: str = "Live model"
) -> tuple[str, ...]:
    """Which change brings the answer under `now` about: the first that does so alone, else all up
    to the one that tips it.
    """
    if then is None:
        return (
            (
                f"Config {event.config_version} is not kept here, so what changed since cannot be"
                " said."
            ),
        )
    base = _Setting(
        effective_config.at(then, event, event.at), event.model, MlState(event.ml_state), event.at
    )
    steps = _steps(event, base, now, model_word)
    for said, put in steps:
        if (again := _try(event, then, put(base))) and again.action == answer.action:
            return (said, *_feature(event, base.digest, put(base).digest))
    setting, told = base, []
    for said, put in steps:
        setting = put(setting)
        told.append(said)
        if (again := _try(event, then, setting)) and again.action == answer.action:
            return tuple(told[-SHOWN_LINES:])
    return ("No single change since accounts for it.",)


def _steps(event: Event, base: _Setting, now: _Setting, model_word: str) -> list:
    """Each change from then to now, in words and as a step from one setting to the next.
    `model_word`: what its model is called.
    """
    steps = []
    if base.ml_state != now.ml_state:
        said = f"{_sentence(base.ml_state)} → {ML_STATE_TEXT[now.ml_state]}"
        digest = now.digest if base.ml_state != MlState.LIVE else base.digest
        steps.append((said, lambda s: _with(s, ml_state=now.ml_state, digest=digest)))
    if base.digest != now.digest and now.digest:
        said = f"{model_word}: {model_name(base.digest)} → {model_name(now.digest)}"
        steps.append((said, lambda s: _with(s, digest=now.digest)))
    for line in effective_config.lines(base.config, now.config, event):
        steps.append((line.sentence, lambda s, put=line.put: _with(s, config=put(s.config))))
    return steps


def _with(setting: _Setting, **changed) -> _Setting:
    """The setting with some fields changed."""
    fields = {name: getattr(setting, name) for name in _Setting.__slots__}
    return _Setting(**(fields | changed))


def _sentence(state: MlState) -> str:
    text = ML_STATE_TEXT[state]
    return text[:1].upper() + text[1:]


def _try(event: Event, then: Config, setting: _Setting) -> Again | None:
    try:
        return _decide(event, then, setting)
    except ReplayError:
        return None


def _feature(event: Event, one: str, two: str) -> tuple[str, ...]:
    """The feature that two models see most differently in this request, in risk evidence; empty
    when it is one model.
    """
    if not one or not two or one == two:
        return ()
    row = np.frombuffer(event.features, "<f4").reshape(1, -1)
    try:
        gap = (
            shap_values.values(two, row).contributions[0]
            - shap_values.values(one, row).contributions[0]
        )
    except ArtifactError:
        return ()
    k = int(np.argmax(np.abs(gap)))
    if not abs(gap[k]) > 1e-9:
        return ("Same trees, another calibration",)
    more = "more" if gap[k] > 0 else "less"
    return (
        (
            f"{FEATURES[k].label} at {format_value(FEATURES[k], float(row[0, k]))} counts {more}"
            " against it"
        ),
    )


def _other_model(d: Decision, event: Event, then: Config | None, setting: _Setting) -> list[World]:
    """As the challenger would decide under the config of now; empty when there is none."""
    found = _challenger(setting.digest)
    if found is None:
        return []
    title = f"By {found}, {found.state}"
    other = _with(setting, digest=found.digest, ml_state=MlState.LIVE)
    try:
        again = _decide(event, then, other)
    except ReplayError as error:
        return [World(title, None, f"It cannot be asked here: {error}.")]
    because = _trace(event, then, other, again, "Model") if again.action != d.action else ()
    return [World(title, again.action, _note(d, again), because, risk=again.risk)]


def _challenger(live: str):
    """The model version registered last that neither is live nor was; None when there is none."""
    rows = ModelVersion.objects.filter(state="registered")
    return rows.exclude(digest=live).order_by("-registered_at").first()


def _alone(event: Event, then: Config | None, setting: _Setting) -> World:
    alone = _decide(event, then, _with(setting, ml_state=MlState.SWITCHED_OFF))
    wait = f"{rounded_span(alone.retry_after)} to wait" if alone.retry_after else ""
    return World("By the fallback limiter alone", alone.action, wait)


def _note(d: Decision, again: Again) -> str:
    said = f"{Stage(again.stage).label}: {REASONS[Reason(again.reason)].text}."
    if again.risk is None:
        return said
    then = (
        "" if d.risk is None else ", no change" if again.risk == d.risk else f", was {d.risk:.2f}"
    )
    return f"Risk {again.risk:.2f}{then}. {said}"
