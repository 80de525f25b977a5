"""The runs that training plays: ordinary crowds, crowds that differ, and web clients.

No run is one of the referee's worlds. Where a run changes the same thing, it changes it for a part
of the apps, by other numbers, and together with other things. All is a function of the training
seed; a run's seed ends in 0 to 3, which keeps it apart from the referee's.
"""

from __future__ import annotations

from dataclasses import replace

from learning.traffic import services
from learning.traffic.conduct import Conduct, Surge
from learning.traffic.simulate import Scenario
from learning.traffic.web_crowd import WebMix

# Hour of the week at which each run begins, so that no single hour is the whole training set.
WEEK_HOURS = (34, 81, 130, 9)
# A Monday at 00:00 UTC, from which the runs' hours count; ages are relative to it.
MONDAY = 1_789_344_000.0
# Apart from each other by more than ten times any training seed in use, so that no two runs share a
# seed: ordinary runs, those that differ, and those that the first model decides.
SEED_BLOCK = 100_000_000
# Crowds of one training, each of which plays all runs. Chosen: few apps are loud, and with one
# crowd the loud ones of another were often taken for abusers.
CROWDS = 2
# Rows kept of one app of a run. Chosen: rows of one app are alike, and half as many of twice as
# many apps take as long to fit.
ROWS_OF_APP = 100
# Web clients are fewer than apps and run longer: visits and quiet attacks take minutes.
WEB_APPS, WEB_SECONDS = 0.25, 2.0
# Requests a second that a web run's services have room for, by client. Generous: web servers are
# rarely short of room, and overload is what the other runs are about.
WEB_ROOM = 2.0
# Probability with which a run that the first model decides admits what it would refuse. Chosen: it
# barely changes who gets through, and a row never stands for more than 50.
EXPLORED = 0.02

# Half of the abusers know what is good, take new ids and addresses, and share pools of addresses;
# six in ten honest apps fail often, each at its own share. Sign-ins fail as web sites have it.
EVASIVE = Conduct(
    rotate_after=20,
    quiet_abuse=True,
    noise=(0.0, 0.9),
    noisy_share=0.6,
    changed_share=0.5,
    rotate_sources=True,
    source_pools=6,
    failed_sign_in=200,
)
# Most abusers call themselves retries and hide each errand among many harmless calls.
DISGUISED = Conduct(
    abuse_share=0.12,
    claims_retry=True,
    noise=(0.0, 0.9),
    noisy_share=0.3,
    changed_share=0.7,
    source_pools=12,
    disguise=(0.5, 0.9),
    failed_sign_in=303,
)
# What the first model meets: abusers that take new ids quickly, and a crowd that comes in a rush.
PRESSED = Conduct(
    rotate_after=12,
    claims_retry=True,
    noise=(0.0, 0.9),
    noisy_share=0.25,
    changed_share=0.4,
    rotate_sources=True,
    surges=(Surge(100.0, 40.0, 1.8),),
)
# Shares of abusive apps in the ordinary runs, as the cohorts' priors tell; None: the cohorts' own.
# Half of the runs are calmer: a model that always met as many abusers would take no prior at its
# word.
ABUSIVE = (None, 0.03, None, 0.04)
# Long enough in force for a queue to build up and drain within one run.
HARD_TIMES = (
    services.Slowdown("search", 90, 400, 40, 0.25),
    services.Slowdown("payments", 160, 400, 40, 0.3),
)


def ordinary(seed: int, seconds: float, apps: int) -> list[Scenario]:
    """Return four runs of the ordinary crowd, of `seconds` with `apps` apps each.

    Two admit everything and two refuse by the fallback limiter, so that no policy censors all of
    the data. Two begin with an empty memory, and the same two have services with bad times. In two
    profiles tell nothing of who abuses, and two have few abusers.
    """
    return [
        Scenario(
            seed=seed * 10 + k,
            # Each run begins elsewhere in the crowd's schedule, so together they see all of it.
            start=MONDAY + WEEK_HOURS[k] * 3600.0 + (60, 130, 200, 270)[k],
            seconds=seconds,
            apps=apps,
            # Different loads: features of rate must not tell one run from another.
            rate=apps * (0.1, 0.1, 0.13, 0.08)[k],
            observe_only=k in (0, 2),
            fresh=k in (1, 2),
            slowdowns=HARD_TIMES if k in (1, 2) else (),
            shuffled_profiles=k in (2, 3),
            abusive_apps=ABUSIVE[k],
        )
        for k in range(len(WEEK_HOURS))
    ]


def different(seed: int, seconds: float, apps: int) -> list[Scenario]:
    """Return two runs of crowds that differ from the ordinary one, and two of web clients."""
    first = SEED_BLOCK + seed * 10
    return [
        Scenario(
            seed=first,
            start=MONDAY + 55 * 3600.0 + 100,
            seconds=seconds,
            apps=apps,
            rate=apps * 0.1,
            observe_only=True,
            shuffled_profiles=True,
            conduct=EVASIVE,
        ),
        Scenario(
            seed=first + 1,
            start=MONDAY + 110 * 3600.0 + 180,
            seconds=seconds,
            apps=apps,
            rate=apps * 0.11,
            slowdowns=HARD_TIMES,
            conduct=DISGUISED,
            late_work=0.7,
        ),
        _web(first + 2, 20, seconds, apps, WebMix(hostile=0.25), observe_only=True),
        _web(first + 3, 140, seconds, apps, WebMix(hostile=0.15, pace=2.0)),
    ]


def decided(seed: int, seconds: float, apps: int) -> list[Scenario]:
    """Return three runs for a first model to decide: the ordinary crowd, one under pressure, and
    web clients.
    """
    first = 2 * SEED_BLOCK + seed * 10
    return [
        Scenario(
            seed=first,
            start=MONDAY + 62 * 3600.0 + 30,
            seconds=seconds,
            apps=apps,
            rate=apps * 0.1,
            explore=EXPLORED,
        ),
        Scenario(
            seed=first + 1,
            start=MONDAY + 17 * 3600.0 + 150,
            seconds=seconds,
            apps=apps,
            rate=apps * 0.1,
            shuffled_profiles=True,
            conduct=PRESSED,
            late_work=0.5,
            explore=EXPLORED,
        ),
        _web(first + 2, 100, seconds, apps, WebMix(hostile=0.2), explore=EXPLORED),
    ]


def first_stage(seed: int, seconds: float, apps: int) -> list[Scenario]:
    """Return the runs that no model decides: of each crowd the ordinary and the different ones."""
    return [
        replace(run, most_per_app=ROWS_OF_APP)
        for crowd in _crowds(seed)
        for run in (*ordinary(crowd, seconds, apps), *different(crowd, seconds, apps))
    ]


def second_stage(seed: int, seconds: float, apps: int) -> list[Scenario]:
    """Return the runs that a first model decides, of each crowd."""
    return [
        replace(run, most_per_app=ROWS_OF_APP)
        for crowd in _crowds(seed)
        for run in decided(crowd, seconds, apps)
    ]


def all_runs(seed: int, seconds: float, apps: int) -> list[Scenario]:
    """Return every run of one training, in the order in which it is played."""
    return [*first_stage(seed, seconds, apps), *second_stage(seed, seconds, apps)]


def _crowds(seed: int) -> range:
    """Return the seeds of a training's crowds. No two trainings share one."""
    return range(CROWDS * seed, CROWDS * (seed + 1))


def tells_truth(scenario: Scenario) -> bool:
    """Return whether the apps of a run have profiles that are true on average."""
    return scenario.web is None and not scenario.shuffled_profiles


def _web(
    seed: int,
    hour: int,
    seconds: float,
    apps: int,
    mix: WebMix,
    observe_only: bool = False,
    explore: float = 0.0,
) -> Scenario:
    clients = max(1, round(WEB_APPS * apps))
    return Scenario(
        seed=seed,
        start=MONDAY + hour * 3600.0,
        seconds=WEB_SECONDS * seconds,
        # Nothing has to settle: all clients are new or come back.
        warm_up=5.0,
        apps=clients,
        rate=WEB_ROOM * clients,
        observe_only=observe_only,
        explore=explore,
        web=mix,
    )
