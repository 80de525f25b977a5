"""What a decider takes of the outcomes in their stream: those that a gateway's program of its fleet
has just sent, each once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from decider.contracts.requests import Outcome, outcomes_in
from decider.contracts.sealed import outcomes as sealing
from decider.contracts.sealed.codes import SealError
from decider.contracts.store import OutcomesStatus, cut
from decider.node.recent import Recent

# Seconds that count as recent, and between two notes. Chosen: a minute, as for all that a page
# says of now.
RECENT_S, NOTE_EVERY_S = 60.0, 2.0


class OutcomeIntake:
    """The reader of one decider's outcomes."""

    def __init__(self, token_key: bytes, *, unsealed: bool = False) -> None:
        """Take what is sealed with the fleet's key, and with `unsealed` also what has no seal."""
        self._checker = sealing.Checker(sealing.derive_key(token_key))
        self._takes_unsealed = unsealed
        self._recent = Recent(RECENT_S, NOTE_EVERY_S)
        self.refused = self.unsealed = 0
        """Entries since the start: not believed, and taken without a seal."""
        self.why = ""

    def take(
        self, entry_id: bytes, fields: Mapping[bytes, bytes], now: float
    ) -> tuple[list[Outcome], int]:
        """Return the outcomes of an entry that is read at `now` (unix seconds), and how many items
        of it are none. Raise SealError for an entry that is not believed.
        """
        body, seal = fields.get(sealing.BODY, b""), fields.get(sealing.SEAL)
        if seal is None and self._takes_unsealed:
            self.unsealed += 1
            return outcomes_in(body)
        try:
            if seal is None:
                raise SealError("they are not sealed: an older program sent them, or a stranger")
            # The store begins an entry's id with its own time, in milliseconds. Ids only grow, so
            # after one of the future, by a clock or by a stranger, this decider's time holds.
            self._checker.check(body, seal, min(int(entry_id.split(b"-")[0]) / 1e3, now))
        except SealError as error:
            self.refused, self.why = self.refused + 1, str(error)
            raise
        return outcomes_in(body)

    def status(self, now: float | None = None) -> OutcomesStatus:
        """Return the counts for the heartbeat. `now`: seconds of a clock that is not set."""
        now = time.monotonic() if now is None else now
        refused, unsealed = self._recent.since((self.refused, self.unsealed), now)
        return OutcomesStatus(self.refused, refused, self.unsealed, unsealed, cut(self.why))
