"""What a search for a way back to admit finds."""

from __future__ import annotations

from dataclasses import dataclass

from decider.contracts.units import cut_figures, figure
from decider.contracts.vocabulary import Action


@dataclass(frozen=True, slots=True)
class Change:
    """One lever that was pulled, with its levels before and after, in `unit`."""

    lever: str
    """Name in `decider.whatif.levers`."""
    label: str
    before: float
    after: float
    unit: str


@dataclass(frozen=True, slots=True)
class Way:
    """Changes that belong together, and how the request is decided with them."""

    changes: tuple[Change, ...]
    action: int
    risk: float | None
    """Risk with the change; None when no model would be asked."""
    sentence: str
    short: str
    """As it continues the action's word: "at 12 requests a second, spread over time"."""
    was: str
    """What the app did instead, in words."""
    effort: float
    """How large the change is, to compare levers: no unit."""
    steady: bool = True
    """Whether a little more of the change is admitted as well. A way that is not steady is shown
    only when no steady one is found, and says so.
    """
    unchanged: bool = False
    """Whether the action is the same as in the record."""
    edge: float | None = None
    """Risk at which the action would change, with the change made: where an admit ends, or where a
    refusal begins. None where the admit goes on to 1 or the refusal begins at 0. The record's own
    threshold is another one, because load, tokens and value change as well.
    """

    @property
    def admits(self) -> bool:
        return self.action == Action.ADMIT

    @property
    def percent(self) -> float:
        """Place of its risk on the scale, percent."""
        return round(100.0 * (self.risk or 0.0), 2)

    @property
    def edge_percent(self) -> float:
        """Place of its edge on the scale, percent."""
        return round(100.0 * (self.edge or 0.0), 2)

    @property
    def figures(self) -> tuple[str, ...]:
        """Its risk and its edge, with enough digits to differ; the risk alone without an edge."""
        if self.edge is None:
            return (figure(self.risk),)
        return cut_figures(self.risk or 0.0, self.edge)


@dataclass(frozen=True, slots=True)
class Recourse:
    """The ways that would have been admitted, and the largest change of levers that would not have
    been enough alone. Ways that change the strongest reason come first, then the smallest change.
    """

    ways: tuple[Way, ...] = ()
    missed: tuple[Way, ...] = ()
    none: str = ""
    """Why there is no way back; empty when there is one."""
    aside: str = ""
    """Sentence where no way changes what the strongest reason names; empty where one does."""
