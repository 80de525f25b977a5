"""The preview of a flip: what it would have changed. The real policy function decides the stored
decisions of the last hour again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from django.http import HttpRequest

from console.frame import app_looks
from control.config import changes
from control.switches import switches
from decider.contracts.config import Config
from decider.contracts.event import Event
from decider.contracts.vocabulary import MlState
from decider.scoring.model import Model
from decider.whatif.replay import decide_under
from decisions.preview import Preview, compare, last_hour, live_model

Turn = Literal["engage", "clear"]


def preview_for(request: HttpRequest, verb: switches.Verb) -> Preview:
    """Return the preview of a flip, and note the looks at the apps of its examples."""
    found = preview_all_ml("clear" if verb == "clear" else "engage")
    apps = (example.app for example in found.examples if example.app)
    app_looks.note_apps(request, apps, "an example of what a switch would change")
    return found


def preview_all_ml(turn: Turn) -> Preview:
    """Decide the last hour again with ML off (engage) or on (clear); return the differences."""
    config = changes.current()
    model = live_model(config.model) if turn == "clear" else None
    return compare_decisions(*last_hour(), config, turn, model)


def compare_decisions(
    events: Iterable[Event], stored: int, config: Config, turn: Turn, model: Model | None
) -> Preview:
    """Decide each event again, and return the differences from what was recorded.

    The counts are scaled to all `stored` decisions.
    """
    live = MlState.LIVE if config.model else MlState.NO_MODEL
    state = MlState.SWITCHED_OFF if turn == "engage" else live

    def redecide(event: Event) -> tuple[int, int]:
        return event.action, decide_under(event, config, model, ml_state=state).action

    return compare(events, stored, redecide)
