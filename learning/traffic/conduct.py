"""How the clients of a world differ from the ordinary crowd.

Training plays the ordinary crowd and some that differ (`learning.training.runs`). The worlds of the
referee (`learning.traffic.referee`) differ in other ways. With the defaults, a crowd is the
ordinary one to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from learning.traffic.world import AppKind

# Largest share of first tries that abusers make on average. Their active times are thinned to it,
# so that a few loud scrapers are not most of the traffic.
ABUSE_SHARE = 0.18


@dataclass(frozen=True, slots=True)
class Surge:
    """A time in which all honest apps send more. Times are in seconds after the start."""

    first: float
    lasts: float
    factor: float
    """First tries, as a multiple of the usual number."""

    def holds(self, elapsed: float) -> bool:
        return self.first <= elapsed < self.first + self.lasts


@dataclass(frozen=True, slots=True)
class PlannedIncident:
    """Up to `apps` of the louder apps of a kind become active at once; see `Crowd.incident`."""

    kind: AppKind
    apps: int
    first: float
    """Seconds after the start."""
    lasts: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """How the clients of a world behave; by default as the ordinary crowd does."""

    abuse_share: float = ABUSE_SHARE
    """Largest share of first tries that abusers make on average, 0 to 1."""
    rotate_after: int = 0
    """Refusals after which an abuser goes on under a new app id and forgets them; 0 for never."""
    claims_retry: bool = False
    """Abusers say of each request that it is the first retry (`x-sluice-attempt: 1`)."""
    quiet_abuse: bool = False
    """Abuse always succeeds, so that no 4xx gives it away: abusers have valid credentials, cards
    and ids. Their ordinary calls fail as often as before.
    """
    noise: tuple[float, float] | None = None
    """Least and most of three shares, drawn for each honest client: of its sign-ins that fail, of
    the deleted ids that it keeps asking for, and of its charges that are declined. None: as usual.
    """
    surges: tuple[Surge, ...] = ()
    noisy_share: float = 1.0
    """Share of the honest apps to which `noise` applies, 0 to 1; the others are as usual."""
    changed_share: float = 1.0
    """Share of the abusers to which `rotate_after`, `rotate_sources`, `claims_retry`,
    `quiet_abuse`, `source_pools` and `disguise` apply, 0 to 1; the others abuse as usual.
    """
    rotate_sources: bool = False
    """An abuser that takes a new app id takes new addresses as well."""
    source_pools: int = 0
    """Pools of addresses that abusers share, several apps to a pool; 0: each app has its own."""
    disguise: tuple[float, float] | None = None
    """Least and most share of an abuser's requests that are ordinary calls. None: as usual."""
    failed_sign_in: int = 401
    """Status of a sign-in with a wrong credential. Web sites often say 200 or 303."""

    def honest_factor(self, elapsed: float) -> float:
        """Return the number of honest first tries as a multiple of the usual, `elapsed` seconds
        after the start. The largest of several surges counts.
        """
        return max((s.factor for s in self.surges if s.holds(elapsed)), default=1.0)


ORDINARY = Conduct()
