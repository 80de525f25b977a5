"""The waiting clients in simulated time, with the real engine: a run of an hour, so that waits of
twenty minutes end within it.
"""

from __future__ import annotations

from msgspec import structs

from bench.waiting_clients.crowd import HARD, WaitingCrowd
from bench.waiting_clients.ledger import Answered
from bench.waiting_clients.rows import not_tried_row, reason_rows, trial_row
from decider.contracts.requests import Decision
from decider.contracts.vocabulary import HTTP_STATUS, Action, Reason
from decider.http.responses import retry_after
from decider.scoring.model import Model
from learning.traffic import simulate
from learning.traffic.behaviour import PlannedRequest
from learning.traffic.crowd import Crowd
from learning.training import train

# Simulated seconds, of which the first are as hard as the live run; seed; apps; and first tries a
# second.
SECONDS, SEED, APPS, RATE = 3_600.0, 7_015, 1_500, 45.0
# Seconds. A live run of a few minutes seldom sees the end of a wait of this length or more.
LONG_S = 200


class WaitingSimulation(simulate.Simulation):
    """A simulation in which half of the apps wait. It takes the place of its own crowd."""

    def __init__(self, scenario: simulate.Scenario, model: Model) -> None:
        config = structs.replace(
            simulate.starting_config(scenario), ml_time_limit_ms=train.UNHURRIED_MS
        )
        super().__init__(scenario, config, model)
        assert isinstance(self.crowd, Crowd)
        self.waiting = WaitingCrowd(self.crowd, self.population, HARD, scenario.seed)
        self._refused: PlannedRequest | None = None
        # the simulation then calls `due` and `react` of this class instead of the crowd's
        self.crowd = self  # type: ignore[assignment]

    def due(self, upto: float) -> list[PlannedRequest]:
        """Return what the crowd wants to send until `upto`."""
        return self.waiting.due(upto)

    def _decide(self, batch: list[PlannedRequest], now: float) -> None:
        sent = [planned for planned in batch if self.waiting.may_send(planned, now)]
        if sent:
            super()._decide(sent, now)

    def answer(
        self, planned: PlannedRequest, decision: Decision, cost: float, now: float
    ) -> tuple[int, float]:
        """Let a waiting client read its refusal. Return the action and the seconds to wait."""
        action, wait = Action(decision.action), retry_after(decision)
        self._refused = None
        if planned.app in self.waiting.clients and action != Action.ADMIT:
            reason, self._refused = Reason(decision.reason).name.lower(), planned
            answer = Answered(HTTP_STATUS[action], reason, wait, refused=True)
            self.waiting.clients.read(planned, answer, now)
        return decision.action, float(wait)

    def react(self, sent: PlannedRequest, status: int, wait: float, now: float) -> None:
        """Tell the client of `sent` its answer, unless `answer` has already done so."""
        if sent is self._refused:
            return
        if sent.app in self.waiting.clients:
            self.waiting.clients.read(sent, Answered(status), now)
        else:
            self.waiting.crowd.react(sent, status, wait, now)


def play(model: Model, seconds: float = SECONDS) -> WaitingSimulation:
    """Return a finished run."""
    start = train.MONDAY + 10 * 3600.0
    scenario = simulate.Scenario(
        SEED, start, seconds, apps=APPS, rate=RATE, slowdowns=HARD.slowdowns, conduct=HARD.conduct
    )
    run = WaitingSimulation(scenario, model)
    run.run()
    return run


def measure(model: bytes) -> list[dict[str, object]]:
    """Return the rows of a simulated hour."""
    clients = play(Model.load(model)).waiting.clients
    tried = clients.trials
    said = (
        f"{SECONDS:,.0f} simulated seconds of the real engine, {APPS:,} apps, {RATE:.0f} first"
        " tries/s, the hardships of the live run at its start"
    )
    long = [t for t in tried if t.refusal.wait >= LONG_S]
    return [
        trial_row("waiting clients: all repeats admitted, simulated", tried, said, True),
        trial_row(
            f"waiting clients: after waits of {LONG_S} s and more, simulated", long, said, False
        ),
        *reason_rows("simulated", tried),
        not_tried_row("simulated", clients.not_tried()),
    ]
