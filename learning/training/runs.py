"""The runs that training plays: ordinary crowds, crowds that differ, and web clients.

No run is one of the referee's worlds. A run may change the same thing as a referee's world, but
only for a part of the apps, by other numbers, and together with other changes. The training seed
decides everything. The seed of a run ends in 0 to 3, so it is never one of the referee's seeds.
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
# Distance between the seeds of ordinary runs, of runs that differ, and of runs that the first model
# decides: more than ten times any training seed in use, so that no two runs share a seed.
SEED_BLOCK = 100_000_000
# Crowds of the model that ships, each of which plays all runs. Chosen: few apps of a crowd are
# loud, and a model that knew one crowd often took the loud apps of another for abusers. Models of
# six crowds and more admitted a quarter less abuse than models of two, at as many false throttles
# (docs/adr/0034).
CROWDS = 12
# Rows kept of one app of a run. Chosen: rows of one app are alike, so more apps teach more than
# more rows of each, and take as long to fit.
ROWS_OF_APP = 100
# Web clients are fewer than apps and run longer: visits and quiet attacks take minutes.
WEB_APPS, WEB_SECONDS = 0.25, 2.0
# Capacity of a web run's services, in requests a second for each client. Generous: web servers are
# rarely short of room, and the other runs have overload.
WEB_ROOM = 2.0
# Probability with which a run that the first model decides admits a request that it would refuse.
# Chosen: it barely changes who gets through, and such a request stands for no more than 50.
EXPLORED = 0.02

# Half of the abusers use valid credentials, cards and ids, take new app ids and addresses, and
# share pools of addresses. Six in ten honest apps fail often, each with shares of its own. A failed
# sign-in is answered with 200, as many web sites do.
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
# Most abusers claim that their requests are retries, and hide them among many harmless calls.
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
# A run for the first model to decide: abusers take new ids quickly, and honest traffic surges.
PRESSED = Conduct(
    rotate_after=12,
    claims_retry=True,
    noise=(0.0, 0.9),
    noisy_share=0.25,
    changed_share=0.4,
    rotate_sources=True,
    surges=(Surge(100.0, 40.0, 1.8),),
)
# Share of abusive apps in each ordinary run, to which the cohorts' priors are scaled; None leaves
# the priors. Half of the runs are calmer: a model that always met equally many abusers would not
# learn to rely on the prior.
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
    runs the profiles do not tell who abuses, and in two runs few apps abuse.
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


def first_stage(seed: int, seconds: float, apps: int, crowds: int = CROWDS) -> list[Scenario]:
    """Return the runs that no model decides: the ordinary and the different ones of each crowd."""
    return [
        replace(run, most_per_app=ROWS_OF_APP)
        for crowd in _crowds(seed, crowds)
        for run in (*ordinary(crowd, seconds, apps), *different(crowd, seconds, apps))
    ]


def second_stage(seed: int, seconds: float, apps: int, crowds: int = CROWDS) -> list[Scenario]:
    """Return the runs that a first model decides, of each crowd."""
    return [
        replace(run, most_per_app=ROWS_OF_APP)
        for crowd in _crowds(seed, crowds)
        for run in decided(crowd, seconds, apps)
    ]


def all_runs(seed: int, seconds: float, apps: int, crowds: int = CROWDS) -> list[Scenario]:
    """Return every run of one training, in the order in which it is played."""
    return [
        run for stage in (first_stage, second_stage) for run in stage(seed, seconds, apps, crowds)
    ]


def _crowds(seed: int, crowds: int) -> range:
    """Return the seeds of a training's crowds. No two trainings of as many crowds share one."""
    return range(crowds * seed, crowds * (seed + 1))


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
        # Short, because the engine knows returning clients from before, and the others are new.
        warm_up=5.0,
        apps=clients,
        rate=WEB_ROOM * clients,
        observe_only=observe_only,
        explore=explore,
        web=mix,
    )
