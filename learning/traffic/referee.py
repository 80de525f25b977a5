"""The referee: worlds in which deciders are judged, and which training never sees. Version 1.

The table is frozen. A world that changes gets another name, and the table another version, so that
figures of two days compare. Each world says in one sentence how it differs from `usual`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from learning.traffic import services
from learning.traffic.conduct import ORDINARY, Conduct, PlannedIncident, Surge
from learning.traffic.services import Slowdown
from learning.traffic.simulate import Scenario
from learning.traffic.world import AppKind

# Raised with every change of a world or a seed.
VERSION = 1
# No seed of a training run ends like these: training runs have ten times a seed plus 0 to 3.
SEEDS = (10_005, 10_016, 10_027, 10_038, 10_049)
# As many further seeds, for narrower intervals.
MORE_SEEDS = (10_055, 10_066, 10_077, 10_088, 10_099)
# Seeds on which static quotas are tuned. Quotas tuned on the referee's own seeds would look too
# good.
TUNING_SEEDS = (20_004, 20_014)
# Wednesday, 16 September 2026, 10:00 UTC: an hour of the week at which no training run begins. It
# is also the top of the crowd's hour, whose bursts of scheduled jobs end while a world settles.
START = 1_789_552_800.0
# Seconds to settle and seconds counted; apps, and first tries a second, of every world.
SETTLE_S, COUNTED_S, APPS, RATE = 40.0, 120.0, 1_000, 100.0
# Share of the apps that is abusive in the calm world; the cohorts have about 0.075.
CALM_ABUSIVE = 0.02
# Seconds after the start at which a disturbance begins: 20 counted seconds show the time before it,
# and its end is counted as well.
DISTURBED_FROM_S = 60.0
# Seconds between two bad times of one service: longer than any run, so each comes once.
ONCE_S = 1e6


@dataclass(frozen=True, slots=True)
class RefereeWorld:
    """One world. Every field beside the first two stands for a difference from `usual`."""

    name: str
    says: str
    """One sentence for people: what happens in it."""
    conduct: Conduct = ORDINARY
    incidents: tuple[PlannedIncident, ...] = ()
    slowdowns: tuple[Slowdown, ...] = ()
    abusive_apps: float | None = None
    flat_prior: float | None = None
    overload: bool = False
    """More is asked for than the services can do."""

    def scenario(self, seed: int) -> Scenario:
        """Return the run of this world with one seed."""
        return Scenario(
            seed=seed,
            start=START,
            seconds=SETTLE_S + COUNTED_S,
            warm_up=SETTLE_S,
            apps=APPS,
            rate=RATE,
            slowdowns=self.slowdowns,
            abusive_apps=self.abusive_apps,
            flat_prior=self.flat_prior,
            conduct=self.conduct,
            incidents=self.incidents,
        )


USUAL = RefereeWorld(
    "usual",
    "The crowd is the ordinary one: abusers make 18% of the first tries, where the cohorts have"
    " enough of them.",
)
ROTATING = replace(ORDINARY, rotate_after=8)
CLAIMING = replace(ORDINARY, claims_retry=True)
QUIET = replace(ORDINARY, quiet_abuse=True)
# Least and most share of an honest client's sign-ins, ids and charges that fail.
NOISE = (0.3, 0.7)
NOISY = replace(ORDINARY, noise=NOISE)
# About the mean share of abusive apps, so that the prior is true of all apps together.
FLAT_PRIOR = 0.07


def _slow(service: str, factor: float, lasts: float) -> Slowdown:
    return services.Slowdown(service, DISTURBED_FROM_S, ONCE_S, lasts, factor)


WORLDS = (
    USUAL,
    RefereeWorld(
        "calm",
        "2% of the apps are abusive, and the priors of all cohorts say so.",
        abusive_apps=CALM_ABUSIVE,
    ),
    RefereeWorld(
        "flash crowd",
        "Honest apps send four times their first tries for 60 s.",
        conduct=replace(ORDINARY, surges=(Surge(DISTURBED_FROM_S, 60.0, 4.0),)),
        overload=True,
    ),
    RefereeWorld(
        "retry storm",
        "For 50 s 30 honest clients retry at once, search has a quarter of its capacity and"
        " payments 0.3.",
        incidents=(PlannedIncident(AppKind.STORM, 30, DISTURBED_FROM_S, 50.0),),
        slowdowns=(_slow("search", 0.25, 50.0), _slow("payments", 0.3, 50.0)),
        overload=True,
    ),
    RefereeWorld(
        "brown-out",
        "All services have 0.35 of their capacity for 60 s.",
        slowdowns=tuple(
            _slow(name, 0.35, 60.0)
            for name in ("orders-read", "ledger-write", "search", "payments", "auth")
        ),
        overload=True,
    ),
    RefereeWorld(
        "stuffing",
        "Ten credential stuffers are active at once for 60 s.",
        incidents=(PlannedIncident(AppKind.STUFFER, 10, DISTURBED_FROM_S, 60.0),),
    ),
    RefereeWorld(
        "scraper",
        "Twelve scrapers are active at once for 60 s.",
        incidents=(PlannedIncident(AppKind.SCRAPER, 12, DISTURBED_FROM_S, 60.0),),
    ),
    RefereeWorld(
        "key rotation",
        "After 8 refusals an abuser takes a new app id, which has no profile, and goes on.",
        conduct=ROTATING,
    ),
    RefereeWorld(
        "claims retry",
        "Abusers send `x-sluice-attempt: 1` with every request.",
        conduct=CLAIMING,
    ),
    RefereeWorld(
        "flat profiles",
        "All profiles have the cohort prior 0.07 and no history; age and verification are shuffled"
        " over the apps.",
        flat_prior=FLAT_PRIOR,
    ),
    RefereeWorld(
        "quiet abuse",
        "What abusers try succeeds: it never ends in a 4xx. Their ordinary calls are as ever.",
        conduct=QUIET,
    ),
    RefereeWorld(
        "noisy honest",
        "Each honest app has 30 to 70% of its sign-ins fail and its cards declined, and asks on for"
        " 30 to 70% of the ids it meets deleted.",
        conduct=NOISY,
    ),
    RefereeWorld(
        "all shifts",
        "Flat profiles, quiet abuse and noisy honest apps together.",
        conduct=replace(ORDINARY, quiet_abuse=True, noise=NOISE),
        flat_prior=FLAT_PRIOR,
    ),
)
BY_NAME = {world.name: world for world in WORLDS}
