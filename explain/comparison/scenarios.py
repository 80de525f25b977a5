"""Scenarios: the request as it was decided then, as the config in force now decides it, as another
model would, and by the fallback limiter alone.

To find the cause of a difference, each changed config line is put alone into the config of that
time and the record is decided again, until today's answer comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from django.utils import timezone

from control.config import documents
from decider.contracts.artifact import ArtifactError
from decider.contracts.config import ALL_ML, Config, engaged, version_text
from decider.contracts.event import Event
from decider.contracts.features import FEATURES, format_value
from decider.contracts.units import told_apart, wait_span
from decider.contracts.vocabulary import ML_STATE_TEXT, REASONS, Action, MlState, Reason, Stage
from decider.scoring.model import Model
from decider.whatif import replay
from decider.whatif.replay import Again, ReplayError
from decisions.models import Decision
from explain.comparison import effective_config
from explain.comparison.effective_config import ConfigDifference
from explain.shap import model_files
from explain.shap import values as shap_values
from rollouts.models import ModelVersion

# Config differences named at most. Chosen: the sentence has to stay readable.
SHOWN_LINES = 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """One answer to the same request."""

    title: str
    action: int | None
    """None when it cannot be decided here; `note` says why."""
    note: str
    because: tuple[str, ...] = ()
    """What makes the answer differ from the record: config lines old → new, a model version, a
    feature. Empty when it does not differ.
    """
    level: str = ""
    """State of the replay: ok, warn, bad or off; empty for the other scenarios."""
    word: str = ""
    risk: float | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome of deciding again from the record."""

    level: str
    word: str
    detail: str


def find_model(digest: str) -> Model | None:
    """Return a model ready to score, or None when its artifact is missing or invalid."""
    try:
        return model_files.load_model(digest) if digest else None
    except ArtifactError:
        return None


def model_name(digest: str) -> str:
    """Return the name and version of a model, or the start of its digest when the registry does not
    have it.
    """
    row = ModelVersion.objects.filter(digest=digest).first()
    return str(row) if row else digest[:8] or "no model"


def replay_record(d: Decision, event: Event, config: Config | None) -> Replay:
    """Decide the record again with its own config and model. Return whether the answer is identical
    to the bit, in words.
    """
    if config is None:
        return Replay(
            "off", "Not replayed", f"config {version_text(d.config_version)} is not kept here"
        )
    model = find_model(d.model) if d.risk is not None else None
    try:
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
    """Everything besides the record that an answer depends on."""

    config: Config
    digest: str
    ml_state: MlState
    now: float


# What changed, in words, and how it changes a setting.
_Step = tuple[str, Callable[[_Setting], _Setting]]


def decide_scenarios(d: Decision) -> list[Scenario]:
    """Return the scenarios of a stored decision: then, now, by the challenger where there is one,
    and by the fallback limiter alone.
    """
    event, then = d.event(), documents.config(d.config_version)
    first = _then(d, event, then)
    newest = documents.newest()
    if newest is None:
        return [
            first,
            Scenario("As decided now", None, "There is no config document to decide with."),
        ]
    setting = _present(newest, event, timezone.now().timestamp())
    try:
        rest = [
            _now(d, event, then, setting),
            *_other_model(d, event, then, setting),
            _alone(event, then, setting),
        ]
    except ReplayError as error:
        rest = [Scenario("As decided now", None, f"It cannot be decided again here: {error}.")]
    return [first, *rest]


def _present(newest: Config, event: Event, now: float) -> _Setting:
    config = effective_config.narrow_to_request(newest, event, now)
    digest = newest.model.digest if newest.model else ""
    return _Setting(config, digest, _ml_state(newest, now), now)


def _then(d: Decision, event: Event, config: Config | None) -> Scenario:
    # The record's own action and risk are shown even if the replay differs: they are what happened.
    found = replay_record(d, event, config)
    return Scenario(
        f"As decided then, config {version_text(d.config_version)}",
        d.action,
        found.detail,
        (),
        found.level,
        found.word,
        d.risk,
    )


def _ml_state(config: Config, now: float) -> MlState:
    if engaged(config, ALL_ML, now):
        return MlState.SWITCHED_OFF
    return MlState.LIVE if config.model else MlState.NO_MODEL


def _decide(event: Event, then: Config | None, setting: _Setting) -> Again:
    """Decide the record under a setting. Raises ReplayError, also when the model is missing."""
    # Without its model the record would be decided by the fallback limiter, which is another
    # scenario.
    model = find_model(setting.digest) if setting.ml_state == MlState.LIVE else None
    if setting.ml_state == MlState.LIVE and model is None:
        raise ReplayError("the model is not available on this machine")
    # Raises for a record of another layout: rewriting reads the signals by place.
    replay.vectors(event)
    record = effective_config.rewrite_record(
        event, then or setting.config, setting.config, setting.now
    )
    return replay.decide_under(record, setting.config, model, ml_state=setting.ml_state)


def _now(d: Decision, event: Event, then: Config | None, setting: _Setting) -> Scenario:
    again = _decide(event, then, setting)
    off = ", All ML engaged" if setting.ml_state == MlState.SWITCHED_OFF else ""
    title = f"As decided now, config {version_text(setting.config.version)}{off}"
    because = _trace_cause(event, then, setting, again) if again.action != d.action else ()
    note = _note(d, again)
    if again.action == d.action and then is not None and setting.config.version != d.config_version:
        note += " " + _untouched(
            effective_config.list_differences(
                effective_config.narrow_to_request(then, event, event.at), setting.config, event
            )
        )
    return Scenario(title, again.action, note, because, risk=again.risk)


def _untouched(changed: list[ConfigDifference]) -> str:
    if not changed:
        return "No line that bears on it has changed."
    shown = "; ".join(line.sentence for line in changed[:SHOWN_LINES])
    return f"Changed since, without effect here: {shown}."


def _trace_cause(
    event: Event, then: Config | None, now: _Setting, answer: Again, model_word: str = "Live model"
) -> tuple[str, ...]:
    """Return which change leads to the answer under `now`: the first that does so alone, else all
    changes up to the one that tips it.
    """
    if then is None:
        return (
            (
                f"Config {version_text(event.config_version)} is not kept here, so what changed"
                " since cannot be"
                " said."
            ),
        )
    base = _Setting(
        effective_config.narrow_to_request(then, event, event.at),
        event.model,
        MlState(event.ml_state),
        event.at,
    )
    steps = _steps(event, base, now, model_word)
    for said, put in steps:
        if (again := _try(event, then, put(base))) and again.action == answer.action:
            return (said, *_name_feature(event, base.digest, put(base).digest))
    return _trace_together(event, then, base, steps, answer)


def _trace_together(
    event: Event, then: Config, base: _Setting, steps: list[_Step], answer: Again
) -> tuple[str, ...]:
    """Return the changes up to the one that tips the answer, when none does so alone."""
    setting, told = base, []
    for said, put in steps:
        setting = put(setting)
        told.append(said)
        if (again := _try(event, then, setting)) and again.action == answer.action:
            # The newest lines are kept, because the change that tipped the answer is the last one.
            return tuple(told[-SHOWN_LINES:])
    return ("No single change since accounts for it.",)


def _steps(event: Event, base: _Setting, now: _Setting, model_word: str) -> list[_Step]:
    """Return each change from then to now, in words and as a function from one setting to the next.
    `model_word` is what its text calls the model.
    """
    steps: list[_Step] = []
    # State and model first: they replace the whole way of deciding, and a config line alone cannot
    # explain an answer that another model gave.
    if base.ml_state != now.ml_state:
        said = f"{_sentence(base.ml_state)} → {ML_STATE_TEXT[now.ml_state]}"
        # If no model decided then, turning ML on has to bring in today's model.
        digest = now.digest if base.ml_state != MlState.LIVE else base.digest
        steps.append((said, lambda s: replace(s, ml_state=now.ml_state, digest=digest)))
    if base.digest != now.digest and now.digest:
        said = f"{model_word}: {model_name(base.digest)} → {model_name(now.digest)}"
        steps.append((said, lambda s: replace(s, digest=now.digest)))
    for line in effective_config.list_differences(base.config, now.config, event):
        steps.append((line.sentence, _put_line(line)))
    return steps


def _put_line(line: ConfigDifference) -> Callable[[_Setting], _Setting]:
    # A function of its own, because a lambda in the loop would see only the last line.
    return lambda s: replace(s, config=line.put(s.config))


def _sentence(state: MlState) -> str:
    text = ML_STATE_TEXT[state]
    return text[:1].upper() + text[1:]


def _try(event: Event, then: Config, setting: _Setting) -> Again | None:
    try:
        return _decide(event, then, setting)
    except ReplayError:
        return None


def _name_feature(event: Event, one: str, two: str) -> tuple[str, ...]:
    """Return the feature whose SHAP values differ most between two models for this request, in
    words; empty when both are one model.
    """
    if not one or not two or one == two:
        return ()
    row = np.frombuffer(event.features, "<f4").reshape(1, -1)
    try:
        gap = (
            shap_values.compute_values(two, row).contributions[0]
            - shap_values.compute_values(one, row).contributions[0]
        )
    except ArtifactError:
        return ()
    # Only the feature that differs most is named, because staff can check one.
    k = int(np.argmax(np.abs(gap)))
    # Below rounding noise the trees agree, and only the calibration can differ.
    if not abs(gap[k]) > 1e-9:
        return ("Same trees, another calibration",)
    more = "more" if gap[k] > 0 else "less"
    return (
        (
            f"{FEATURES[k].label} at {format_value(FEATURES[k], float(row[0, k]))} counts {more}"
            " against it"
        ),
    )


def _other_model(
    d: Decision, event: Event, then: Config | None, setting: _Setting
) -> list[Scenario]:
    """Return what the challenger decides under the config of now; empty when there is no
    challenger.
    """
    found = _challenger(setting.digest)
    if found is None:
        return []
    title = f"By {found}, {found.state}"
    other = replace(setting, digest=found.digest, ml_state=MlState.LIVE)
    try:
        again = _decide(event, then, other)
    except ReplayError as error:
        return [Scenario(title, None, f"It cannot be asked here: {error}.")]
    because = _trace_cause(event, then, other, again, "Model") if again.action != d.action else ()
    return [Scenario(title, again.action, _note(d, again), because, risk=again.risk)]


def _challenger(live: str) -> ModelVersion | None:
    """Return the model version registered last that is and was not live, or None."""
    rows = ModelVersion.objects.filter(state="registered")
    return rows.exclude(digest=live).order_by("-registered_at").first()


def _alone(event: Event, then: Config | None, setting: _Setting) -> Scenario:
    alone = _decide(event, then, replace(setting, ml_state=MlState.SWITCHED_OFF))
    wait = f", {wait_span(alone.retry_after)} to wait" if alone.retry_after else ""
    told = f"It looks at the plan only, not at risk{wait}."
    return Scenario("By the fallback limiter alone", alone.action, told)


def _note(d: Decision, again: Again) -> str:
    said = f"{Stage(again.stage).label}: {REASONS[Reason(again.reason)].text}."
    if again.risk is None:
        return said
    if d.risk is None or again.risk == d.risk:
        then = "" if d.risk is None else ", no change"
        return f"Risk {again.risk:.2f}{then}. {said}"
    now, before = told_apart(again.risk, d.risk)
    return f"Risk {now}, was {before}. {said}"
