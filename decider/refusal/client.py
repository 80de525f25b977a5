"""What a refused client is told beside the action: causes, and a receipt for support.

Explaining a row takes about 80 microseconds, so explaining has a budget of time: a flood of
refusals, which comes when time is scarce, cannot slow decisions down. Once the budget runs short, a
refusal is told the reasons of the app's last one, if that is some seconds old and had the same
machine reason. What is left of the budget goes to apps that nobody knows reasons for. Where it is
spent, a refusal is told what follows from its stage and machine reason.
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
# Share of BURST_S that is kept for apps whose reasons nobody knows yet.
RESERVE = 0.5
# Seconds for which the reasons of an app's refusal may be told with its next ones. Chosen: within
# the shortest window of the features that lead most reasons, so they hardly change.
EARLIER_S = 10.0
# Apps whose last reasons are kept: 20 seconds' worth at 200 explanations a second.
MOST_KEPT = 4_096


class Budget:
    """The budget of seconds that explaining may take: SHARE of the time that passes, saved up to
    BURST_S.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """Let the budget grow by `clock`, and charge what explaining takes by `cpu`: that the
        system halted the process within it costs nothing.
        """
        self._clock, self._cpu = clock, cpu
        self._left, self._at = BURST_S, clock()

    def start(self, reserve: float = 0.0) -> float | None:
        """Return a reading of the CPU's clock, to be handed to `end`; None when no more than the
        share `reserve` of BURST_S is left.
        """
        now = self._clock()
        self._left = min(BURST_S, self._left + SHARE * (now - self._at))
        self._at = now
        return self._cpu() if self._left > reserve * BURST_S else None

    def end(self, started: float) -> None:
        """Charge the CPU time since `started`, a reading from `start`, to the budget."""
        # What is left may go below zero: the cost of a row is known only afterwards, and `start`
        # returns None until the debt is paid.
        self._left -= self._cpu() - started


class Earlier(NamedTuple):
    """The findings of an app's last refusal that was explained."""

    at: float
    """Unix seconds."""
    reason: int
    model: str
    found: list[findings.Finding]


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
        self._kept: dict[str, Earlier] = {}
        self.explained = 0
        """Refusals with a score whose reasons were found."""
        self.as_earlier = 0
        """Refusals with a score that were told the reasons of an earlier one."""
        self.over_budget = 0
        """Refusals with a score for which there was no time and no earlier one."""

    def tell(self, decision: Decision, app: str, now: float, basis: Basis) -> None:
        """Write causes and receipt into the refusal `decision`, made at `now` (unix seconds)."""
        reason, model = Reason(decision.reason), basis.model
        found, earlier = self._reasons(app, reason, now, basis)
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
                earlier=earlier,
            )
        )

    def _reasons(
        self, app: str, reason: int, now: float, basis: Basis
    ) -> tuple[list[findings.Finding], bool]:
        """Return the findings of the model against the row, and whether they are an earlier
        refusal's; none when no model was asked, or when neither time nor an earlier one is there.
        """
        model, row = basis.model, basis.row
        if model is None or row is None or model.explainer is None:
            return [], False
        kept = self._kept.get(app)
        if kept and (kept.reason, kept.model) != (reason, model.digest):
            kept = None
        recent = kept is not None and 0.0 <= now - kept.at <= EARLIER_S
        started = self._budget.start(RESERVE if recent else 0.0)
        if started is not None:
            found = self._explain(model, row, basis.tier, started)
            self._keep(app, Earlier(now, reason, model.digest, found))
            return found, False
        if kept is not None and recent:
            self.as_earlier += 1
            return kept.found, True
        self.over_budget += 1
        return [], False

    def _explain(
        self, model: Model, row: NDArray[np.float32], tier: int, started: float
    ) -> list[findings.Finding]:
        assert model.explainer is not None
        contributions = model.explainer.values(row)[0].tolist()
        found = findings.findings(
            contributions, row[0].tolist(), findings.typical(model.artifact, tier)
        )
        self._budget.end(started)
        self.explained += 1
        return found

    def _keep(self, app: str, what: Earlier) -> None:
        """Keep an app's findings, and forget those that were kept first if there are too many."""
        self._kept.pop(app, None)
        self._kept[app] = what
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
