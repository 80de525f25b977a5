"""The referee's worlds, and how their clients behave."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

from learning.traffic import referee, services, simulate, world
from learning.traffic.behaviour import DISGUISE_WORTH, PlannedRequest
from learning.traffic.conduct import ORDINARY, Conduct, PlannedIncident, Surge
from learning.traffic.crowd import Crowd
from learning.traffic.simulate import Scenario, Simulation
from learning.traffic.world import AppKind
from learning.training import train
from tests.test_architecture import imported, modules

START = 1_790_000_000.0
ORDINARY_REQUESTS = "36ee56dc9f2560aa"
ORDINARY_RUN = "21617481d77703d0"
DIFFERS = {
    "usual": set(),
    "calm": {"abusive_apps"},
    "flash crowd": {"conduct.surges"},
    "retry storm": {"incidents", "slowdowns"},
    "brown-out": {"slowdowns"},
    "stuffing": {"incidents"},
    "scraper": {"incidents"},
    "key rotation": {"conduct.rotate_after"},
    "claims retry": {"conduct.claims_retry"},
    "flat profiles": {"flat_prior"},
    "quiet abuse": {"conduct.quiet_abuse"},
    "noisy honest": {"conduct.noise"},
    "all shifts": {"conduct.quiet_abuse", "conduct.noise", "flat_prior"},
}


def crowd(conduct: Conduct = ORDINARY, apps: int = 800) -> Crowd:
    return Crowd(world.draw_population(3, apps, now=START), 3, START, 160.0, conduct)


def played(some: Crowd, seconds: float, begin: float = 0.0) -> list[PlannedRequest]:
    return [p for k in range(round(seconds / 0.1)) for p in some.due(START + begin + (k + 1) * 0.1)]


def status(planned: PlannedRequest) -> int:
    request = planned.request
    return services.answer_status(request.method, request.path, planned.query, request.token)


def loud(some: Crowd, kind: AppKind, apps: int = 8) -> set[int]:
    return set(some.incident(kind, apps, START, 600.0))


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def test_the_ordinary_crowd_sends_what_it_always_sent() -> None:
    sent = [
        (round(p.at - START, 4), p.app, p.request, p.query, round(p.value, 4))
        for p in played(crowd(), 20)
    ]
    assert digest(repr(sent)) == ORDINARY_REQUESTS


def test_an_ordinary_run_ends_as_it_always_ended() -> None:
    slow = services.Slowdown("search", 10, 400, 10, 0.25)
    scenario = Scenario(3, START, seconds=30.0, warm_up=10.0, apps=90, rate=120.0)
    run = Simulation(replace(scenario, slowdowns=(slow,))).run()
    order = np.lexsort((run.traffic.at, run.traffic.app))
    told = (
        run.by_action,
        run.served,
        run.failed,
        run.traffic.app[order].tolist(),
        run.traffic.action[order].tolist(),
        np.round(run.traffic.features.astype(float).mean(axis=0), 3).tolist(),
    )
    assert digest(repr(told)) == ORDINARY_RUN


def differing(one: object, other: object, prefix: str = "") -> set[str]:
    """Names of the fields in which two values of a dataclass differ."""
    names = (f.name for f in fields(one))  # type: ignore[arg-type]
    return {prefix + name for name in names if getattr(one, name) != getattr(other, name)}


@pytest.mark.parametrize("name", referee.BY_NAME)
def test_a_world_differs_from_the_usual_one_in_what_it_says(name: str) -> None:
    mine, usual = (referee.BY_NAME[n].scenario(referee.SEEDS[0]) for n in (name, "usual"))
    found = differing(mine, usual) - {"conduct"}
    found |= differing(mine.conduct, usual.conduct, "conduct.")
    assert found == DIFFERS[name]


def test_the_usual_world_is_the_ordinary_crowd_with_a_memory() -> None:
    usual = referee.USUAL.scenario(referee.SEEDS[0])
    assert usual.conduct == ORDINARY
    assert differing(usual, Scenario(usual.seed, usual.start)) == {"seconds", "apps", "rate"}


def test_no_seed_of_the_referee_occurs_in_training() -> None:
    mine = (*referee.SEEDS, *referee.MORE_SEEDS, *referee.TUNING_SEEDS)
    assert len(set(mine)) == len(mine)
    of_training = {s.seed for k in range(3_000) for s in train.scenarios(k, 10.0, 10)}
    assert not of_training & set(mine)
    # each run's seed is ten times the training seed and one of four digits
    last = {seed % 10 for seed in of_training}
    assert not last & {seed % 10 for seed in mine}


def test_training_cannot_see_the_worlds() -> None:
    secret = ("learning.traffic.referee", "learning.evaluation")
    found = [
        f"{path} imports {name}"
        for path, tree in modules("learning")
        if path.startswith("learning/training/")
        for name in imported(tree)
        if name.startswith(secret)
    ]
    assert found == []
    assert all(s.conduct == ORDINARY for s in train.scenarios(7, 10.0, 10))


def test_an_abuser_takes_a_new_app_id_after_its_eighth_refusal() -> None:
    some = crowd(referee.ROTATING)
    some._patience[:] = 1e9  # none gives way in this test
    who = min(loud(some, AppKind.SCRAPER))
    one = next(p for p in played(some, 10) if p.app == who)
    for _ in range(7):
        some.react(one, 429, 5.0, START + 10)
    assert some.clients[who].id == one.request.app
    some.react(one, 429, 5.0, START + 10)
    fresh = some.clients[who].id
    assert fresh != one.request.app
    assert {p.request.app for p in played(some, 60, 10) if p.app == who and not p.tried} == {fresh}


def test_late_refusals_of_a_dropped_id_do_not_wear_out_the_next_one() -> None:
    some = crowd(referee.ROTATING)
    some._patience[:] = 1e9
    who = min(loud(some, AppKind.SCRAPER))
    one = next(p for p in played(some, 10) if p.app == who)
    for _ in range(40):
        some.react(one, 403, 0.0, START + 10)
    assert some.clients[who].ids_dropped == 1


def test_an_honest_client_keeps_its_app_id_whatever_is_refused() -> None:
    some = crowd(referee.ROTATING)
    one = next(p for p in played(some, 5) if not p.abusive)
    for _ in range(20):
        some.react(one, 429, 5.0, START + 5)
    assert some.clients[one.app].id == one.request.app


def test_only_abusers_claim_that_each_request_is_a_retry() -> None:
    some = crowd(referee.CLAIMING)
    loud(some, AppKind.STUFFER)
    first = played(some, 20)
    assert {(p.abusive, p.request.attempt) for p in first} == {(True, 1), (False, 0)}
    assert {p.tried for p in first} == {0}


def test_a_retry_that_claims_what_all_do_still_ends_after_the_usual_tries() -> None:
    some = crowd(referee.CLAIMING)
    some._patience[:] = 1e9
    loud(some, AppKind.STUFFER)
    tried = {0}
    for k in range(40):
        for planned in played(some, 1.0, float(k)):
            if planned.abusive:
                assert planned.request.attempt == 1
                tried.add(planned.tried)
                some.react(planned, 429, 0.5, START + k + 1.0)
    assert 3 <= max(tried) <= 4


def test_nothing_that_a_quiet_abuser_tries_ends_in_a_4xx() -> None:
    usual, quiet = crowd(), crowd(referee.QUIET)
    for kind in (AppKind.SCRAPER, AppKind.STUFFER, AppKind.CARD_TESTER):
        loud(usual, kind), loud(quiet, kind)
    # what is worth less than a disguise is an errand
    assert any(status(p) >= 400 for p in played(usual, 40) if p.value < DISGUISE_WORTH)
    mine = [p for p in played(quiet, 40) if p.abusive and p.value < DISGUISE_WORTH]
    assert len(mine) > 300
    assert {status(p) for p in mine} <= {200, 201}


def test_noisy_honest_clients_fail_more_often_than_usual() -> None:
    failed = {}
    for name, conduct in (("usual", ORDINARY), ("noisy", referee.NOISY)):
        sign_ins = [
            status(p) == 401
            for p in played(crowd(conduct), 60)
            if not p.abusive and p.request.path == "/v2/auth/token"
        ]
        assert len(sign_ins) > 100
        failed[name] = np.mean(sign_ins)
    assert failed["usual"] < 0.3 <= failed["noisy"] <= 0.7


def test_a_surge_multiplies_honest_first_tries_and_no_others() -> None:
    calm, surging = crowd(), crowd(Conduct(surges=(Surge(10.0, 60.0, 4.0),)))
    for elapsed, factor in ((9.9, 1.0), (10.0, 4.0), (69.9, 4.0), (70.0, 1.0)):
        now = START + elapsed
        active = calm.active(now)
        usual, mine = calm.rates(now, active), surging.rates(now, active)
        honest = ~calm._abusive
        assert mine[honest] == pytest.approx(factor * usual[honest])
        assert np.array_equal(mine[~honest], usual[~honest])


def test_flat_profiles_tell_nothing_and_keep_the_truth() -> None:
    people = world.draw_population(3, 900, now=START)
    flat = world.flatten_profiles(people, 0.07)
    assert [(a.kind, a.weight, a.profile.app, a.profile.tier) for a in flat.apps] == [
        (a.kind, a.weight, a.profile.app, a.profile.tier) for a in people.apps
    ]
    told = [a.profile for a in flat.apps]
    assert {p.cohort_prior for p in told} == {0.07}
    assert not any(
        p.abuse_history or p.chargeback_history or p.false_throttle_history for p in told
    )
    for name in ("created_at", "verified"):
        before, after = ([getattr(a.profile, name) for a in p.apps] for p in (people, flat))
        assert sorted(before) == sorted(after)
        assert before != after


def test_a_planned_incident_begins_when_its_time_comes() -> None:
    incident = PlannedIncident(AppKind.SCRAPER, 5, 2.0, 4.0)
    scenario = Scenario(3, START, seconds=3.0, apps=800, rate=50.0, incidents=(incident,))
    run = Simulation(scenario)
    while run.crowd.now < START + 1.7:
        run._step(run.crowd.now + simulate.STEP_S)
    assert not (run.crowd._forced_until > START).any()
    run._step(START + 2.2)
    forced = np.flatnonzero(run.crowd._forced_until > START + 2.2)
    assert len(forced) == 5
    assert {AppKind(k) for k in run.crowd.kinds[forced]} == {AppKind.SCRAPER}


def test_a_service_tells_how_long_a_request_would_wait() -> None:
    policy = simulate.starting_config(Scenario(3, START)).services[0]
    model = services.ServiceModel(policy, START)
    for _ in range(int(2 * policy.capacity)):
        model.offer(1.0, START + 1.0, 0.99)
    assert model.wait(START + 1.0) == pytest.approx(2.0, abs=0.01)
    assert model.wait(START + 2.5) == pytest.approx(0.5, abs=0.01)
    assert model.wait(START + 9.0) == 0.0
