"""What a refused client is told beside the action: causes, and a receipt for support.

Explaining a row takes about 80 microseconds, so explaining has a budget of time. Once it is spent,
a refusal is told only what follows from its stage and machine reason. So a flood of refusals, which
comes when time is scarce, cannot slow decisions down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decider.contracts.requests import Decision
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal import findings
from decider.refusal.receipt import MODEL_BYTES, Key, Receipt
from decider.scoring.model import Model

# Share of this thread's time for explaining. Chosen: throughput hardly suffers, and it is enough to
# explain about 200 refusals a second at 80 to 115 us each (docs/adr/0011).
SHARE = 0.02
# Seconds of budget that can be saved up. A batch of refusals can add this much to the wait of other
# requests, so it stays at a millisecond: about ten explanations in a row.
BURST_S = 0.001


class Budget:
    """The budget of seconds that explaining may take: SHARE of the time that passes, saved up to
    BURST_S.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._left, self._at = BURST_S, clock()

    def start(self) -> float | None:
        """Return the clock's reading, to be handed to `end`; None when nothing is left to spend."""
        now = self._clock()
        self._left = min(BURST_S, self._left + SHARE * (now - self._at))
        self._at = now
        return now if self._left > 0.0 else None

    def end(self, started: float) -> None:
        """Charge the time since `started`, a clock reading from `start`, to the budget."""
        # What is left may go below zero: the cost of a row is known only afterwards, and `start`
        # returns None until the debt is paid.
        self._left -= self._clock() - started


class Basis(NamedTuple):
    """Config, model and features that a request was decided by."""

    config_version: int
    model: Model | None
    row: NDArray[np.float32] | None
    """(1, N_FEATURES); None when the model was not asked."""
    tier: int


class Teller:
    """The writer of causes and receipts into refusals."""

    def __init__(self, token_key: bytes, budget: Budget | None = None) -> None:
        self._key = Key(token_key)
        self._budget = Budget() if budget is None else budget
        self.explained = 0
        """Refusals with a score whose reasons were found."""
        self.over_budget = 0
        """Refusals with a score for which there was no time."""

    def tell(self, decision: Decision, app: str, now: float, basis: Basis) -> None:
        """Write causes and receipt into the refusal `decision`, made at `now` (unix seconds)."""
        found, reason, model = self._findings(basis), Reason(decision.reason), basis.model
        decision.told = findings.told(Action(decision.action), reason, found)
        decision.receipt = self._key.seal(
            Receipt(
                decision=decision.id,
                at=now,
                action=Action(decision.action),
                stage=Stage(decision.stage),
                reason=reason,
                retry_after=math.ceil(decision.retry_after),
                config_version=basis.config_version,
                model=model.digest[: 2 * MODEL_BYTES] if model else "",  # two hex digits a byte
                app=self._key.pseudonym(app),
                codes=tuple(finding.code for finding in found),
            )
        )

    def _findings(self, basis: Basis) -> list[findings.Finding]:
        """Return the findings of the model against the row; none when the budget is spent or no
        model was asked.
        """
        model, row = basis.model, basis.row
        if model is None or row is None or model.explainer is None:
            return []
        if (started := self._budget.start()) is None:
            self.over_budget += 1
            return []
        contributions = model.explainer.values(row)[0].tolist()
        found = findings.findings(
            contributions, row[0].tolist(), findings.typical(model.artifact, basis.tier)
        )
        self._budget.end(started)
        self.explained += 1
        return found
