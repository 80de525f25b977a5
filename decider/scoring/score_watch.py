"""What a decider tells of scores that were no numbers."""

from __future__ import annotations

from decider.contracts.vocabulary import MlState

# Seconds for which a bad score is told. Chosen: several heartbeats, and looks at a page; a model
# that seldom fails shows all the same.
SHOWN_S = 60.0


class ScoreWatch:
    """Whether a decider's model gave unusable scores lately."""

    def __init__(self) -> None:
        self._seen, self._model, self._until = 0, "", 0.0

    def ml_state(self, state: MlState, bad: int, model: str, now: float) -> MlState:
        """Return `state`, or BAD_SCORE where ML is live and a score was bad within SHOWN_S.

        `bad`: unusable scores since the start. `model`: the digest of the one that is asked; what
        another one did is forgotten. `now`: seconds of a clock that is not set.
        """
        if model != self._model:
            self._model, self._until = model, 0.0
        if bad != self._seen:
            self._seen, self._until = bad, now + SHOWN_S
        return MlState.BAD_SCORE if state == MlState.LIVE and now < self._until else state
