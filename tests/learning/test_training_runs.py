"""The runs that training plays, and what differs in them from the ordinary crowd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from decider.contracts import defaults
from decider.contracts.vocabulary import Tier
from learning.traffic import referee, services, simulate, world
from learning.traffic.behaviour import DISGUISE_WORTH, PlannedRequest
from learning.traffic.conduct import ORDINARY, Conduct
from learning.traffic.crowd import Crowd
from learning.traffic.simulate import Scenario, Simulation
from learning.traffic.world import AppKind
from learning.training import fit, metrics, runs, train

START = 1_790_000_000.0


def crowd(conduct: Conduct) -> Crowd:
    return Crowd(world.draw_population(3, 800, now=START), 3, START, 160.0, conduct)


def played(some: Crowd, seconds: float) -> list[PlannedRequest]:
    return [p for k in range(round(seconds / 0.1)) for p in some.due(START + (k + 1) * 0.1)]


# ---- which runs there are
# ---------------------------------------------------------------------


def test_no_run_shares_a_seed_with_another_or_with_the_referee() -> None:
    mine = [s.seed for k in range(300) for s in runs.all_runs(k, 10.0, 10)]
    assert len(set(mine)) == len(mine)
    theirs = (*referee.SEEDS, *referee.MORE_SEEDS, *referee.TUNING_SEEDS)
    # the last digit keeps them apart, whatever the training seed
    assert {seed % 10 for seed in mine}.isdisjoint(seed % 10 for seed in theirs)


def test_no_run_is_a_world_of_the_referee() -> None:
    worlds = {w.conduct for w in referee.WORLDS} - {ORDINARY}
    told = {w.flat_prior for w in referee.WORLDS} - {None}
    for scenario in runs.all_runs(7, 200.0, 1_600):
        assert scenario.conduct not in worlds
        assert scenario.conduct.noise != referee.NOISE
        assert scenario.flat_prior not in told
        assert scenario.start != referee.START


def test_half_of_the_first_runs_have_profiles_that_tell_nothing() -> None:
    first = runs.first_stage(7, 200.0, 1_600)
    assert sum(s.shuffled_profiles or s.web is not None for s in first) >= len(first) / 2
    assert sum(s.web is not None for s in runs.all_runs(7, 200.0, 1_600)) == 3 * runs.CROWDS
    assert all(s.explore for s in runs.second_stage(7, 200.0, 1_600))


def test_the_crowds_of_all_trainings_are_different() -> None:
    seeds = [s.seed for k in range(50) for s in runs.all_runs(k, 10.0, 10)]
    assert len(seeds) == len(set(seeds))


def test_half_of_the_ordinary_runs_have_few_abusers() -> None:
    ordinary = runs.ordinary(7, 200.0, 1_600)
    told = [s.abusive_apps for s in ordinary if s.abusive_apps is not None]
    assert len(told) == len(ordinary) / 2
    assert max(told) < 0.05
    # the calm world of the referee is another
    assert referee.CALM_ABUSIVE not in told


# ---- profiles
# ---------------------------------------------------------------------------------


def test_shuffled_profiles_look_as_before_and_tell_nothing_of_the_app() -> None:
    people = world.draw_population(3, 6_000, now=START)
    mixed = world.shuffle_profiles(people)
    assert [(a.kind, a.weight, a.profile.app, a.profile.tier) for a in mixed.apps] == [
        (a.kind, a.weight, a.profile.app, a.profile.tier) for a in people.apps
    ]
    for name in world.TELLING:
        before, after = ([getattr(a.profile, name) for a in p.apps] for p in (people, mixed))
        assert sorted(before) == sorted(after)
        assert before != after
    abusive = np.array([a.abusive for a in mixed.apps])
    for told, linked in ((people, True), (mixed, False)):
        prior = np.array([a.profile.cohort_prior for a in told.apps])
        assert (abs(np.corrcoef(prior, abusive)[0, 1]) > 0.1) == linked


# ---- conduct
# ---------------------------------------------------------------------------------


def test_a_share_of_the_abusers_changes_and_the_others_abuse_as_usual() -> None:
    some = crowd(Conduct(claims_retry=True, changed_share=0.5))
    abusers = [c for c in some.clients if c.abusive]
    changed = [c for c in abusers if c.changed]
    assert 0.25 < len(changed) / len(abusers) < 0.75
    for planned in played(some, 20):
        mine = some.clients[planned.app]
        assert planned.request.attempt == (mine.abusive and mine.changed)


def test_an_abuser_that_rotates_takes_new_addresses_only_where_the_world_says_so() -> None:
    for moves in (False, True):
        some = crowd(Conduct(rotate_after=3, rotate_sources=moves))
        one = next(c for c in some.clients if c.abusive and len(c._pool) > 1)
        before = list(one._pool)
        one.drop_id()
        assert (one._pool != before) is moves
        assert len(one._pool) == len(before)


def test_abusers_of_a_pool_share_its_addresses() -> None:
    some = crowd(Conduct(source_pools=4))
    pools = {tuple(c._pool) for c in some.clients if c.abusive}
    assert len(pools) == 4
    assert len({tuple(c._pool) for c in crowd(ORDINARY).clients if c.abusive}) > 40


def test_disguised_abusers_hide_each_errand_among_ordinary_calls() -> None:
    errands = {}
    for name, conduct in (("usual", ORDINARY), ("disguised", Conduct(disguise=(0.9, 0.95)))):
        some = crowd(conduct)
        some.incident(AppKind.SCRAPER, 10, START, 600.0)
        mine = [p.value < DISGUISE_WORTH for p in played(some, 30) if p.abusive]
        errands[name] = np.mean(mine)
    assert errands["disguised"] < 0.3 < errands["usual"]


def test_noise_is_about_a_share_of_the_honest_apps() -> None:
    usual = crowd(ORDINARY).clients
    noisy = crowd(Conduct(noise=(0.0, 0.9), noisy_share=0.4)).clients
    honest = [k for k, c in enumerate(usual) if not c.abusive]
    differ = [usual[k]._failed_sign_in != noisy[k]._failed_sign_in for k in honest]
    assert np.mean(differ) == pytest.approx(0.4, abs=0.06)
    assert max(noisy[k]._failed_sign_in for k in honest) > 0.8


@pytest.mark.parametrize("status", [200, 303, 401])
def test_a_failed_sign_in_shows_another_page_under_the_worlds_status(status: int) -> None:
    scenario = Scenario(3, START, apps=50, rate=20.0, conduct=Conduct(failed_sign_in=status))
    run = Simulation(scenario)
    client = run.crowd.clients[0]
    sizes: dict[bool, set[int]] = {}
    for right in (True, False):
        planned = next(p for p in iter(lambda: client._stuff(START), None) if _right(p) is right)
        answers = [run._answered(planned) for _ in range(30)]
        assert {found for found, _ in answers} == {201 if right else status}
        sizes[right] = {size for _, size in answers}
    assert sizes[True].isdisjoint(sizes[False])


def _right(planned: PlannedRequest) -> bool:
    return not planned.request.token.startswith(services.EXPIRED_PREFIX)


# ---- services
# --------------------------------------------------------------------------------


def goodput(late_work: float) -> float:
    """Share of requests served in the second half of ten seconds at three times the capacity."""
    policy = defaults.SERVICES[0]
    model = services.ServiceModel(policy, START, late_work=late_work)
    offers = range(int(30 * policy.capacity))
    served = [
        model.offer(1.0, START + k / (3.0 * policy.capacity), k * 0.618 % 1.0)[0] for k in offers
    ]
    return float(np.mean(served[len(served) // 2 :]))


def test_late_work_costs_capacity_and_overload_then_ruins_the_goodput() -> None:
    assert goodput(0.0) > 0.25
    assert goodput(0.5) < goodput(0.0) / 1.5
    assert goodput(1.0) < 0.1


def test_a_queue_of_late_work_is_bounded_and_drains() -> None:
    policy = defaults.SERVICES[0]
    model = services.ServiceModel(policy, START, late_work=1.0)
    for k in range(int(200 * policy.capacity)):
        model.offer(1.0, START + k / (10.0 * policy.capacity), 0.1)
    assert model.backlog <= (services.LONGEST_QUEUE_S + 1.0) * policy.capacity
    assert model.offer(1.0, START + 60.0, 0.5)[0]


def test_bodies_of_one_kind_of_answer_are_alike_and_others_differ() -> None:
    sizes = [services.answer_bytes("GET /v2/orders/#", 200, k / 50) for k in range(50)]
    assert max(sizes) <= 10 * min(sizes)
    assert services.answer_bytes("GET /v2/orders/#", 304, 0.5) == 0
    usual = {services.answer_bytes(f"GET /{k}", 200, 0.5) for k in range(50)}
    assert len(usual) > 40
    assert services.endpoint_of("GET", "/v2/orders/17") == "GET /v2/orders/#"


# ---- exploration and weights
# -----------------------------------------------------------------


def test_explored_rows_stand_for_those_left_out() -> None:
    base = Scenario(5, START, seconds=25.0, warm_up=5.0, apps=400, rate=150.0, most_per_app=10**6)
    start = simulate.starting_config(base)
    # small buckets, so that many requests are refused
    tiers = [structs.replace(tier, rate=0.2, burst=3) for tier in start.tiers]
    strict = structs.replace(start, tiers=tiers)
    plain = Simulation(base, strict).run()
    explored = Simulation(replace(base, explore=0.25), strict).run()
    assert sum(plain.by_action[1:]) > 500
    assert plain.traffic.action.any()
    assert set(explored.traffic.weight) == {1.0, 4.0}
    assert not explored.traffic.action.any()
    # clients react to what gets through, so the two runs are alike and not equal
    assert explored.traffic.weight.sum() == pytest.approx(len(plain.traffic.at), rel=0.2)


def test_no_app_counts_for_more_than_its_most_in_a_fit() -> None:
    traffic = Simulation(Scenario(5, START, seconds=20.0, warm_up=5.0, apps=60, rate=90.0)).run()
    heavy = replace(traffic.traffic, weight=traffic.traffic.weight * 50.0)
    counted = fit.balance_apps(heavy)
    _, app = np.unique(heavy.app, return_inverse=True)
    total = np.bincount(app, counted)
    assert total.max() == pytest.approx(fit.MOST_OF_APP)
    assert total.min() >= 50.0
    # rows of a full reservoir and rows of a quiet app count as one each, as they always did
    assert fit.balance_apps(traffic.traffic) == pytest.approx(1.0)


def test_an_app_stays_on_its_side_when_the_second_stage_joins() -> None:
    one, two = (
        Simulation(Scenario(seed, START, seconds=8.0, warm_up=2.0, apps=80, rate=60.0)).run()
        for seed in (5, 6)
    )
    first, second = (train.split_apps(run.traffic, 1) for run in (one, two))
    both = train.join_splits(first, second)
    n = len(one.traffic.at)
    for name in train.Split.__slots__:
        assert np.array_equal(getattr(both, name)[:n], getattr(first, name))
        assert np.array_equal(getattr(both, name)[n:], getattr(second, name))
    joined = simulate.join_traffic([one.traffic, two.traffic])
    assert not set(joined.app[both.train]) & set(joined.app[both.test])


def test_training_in_two_stages_is_deterministic_on_a_tiny_run(kept_training) -> None:
    """The other one may be of an earlier process."""
    one = kept_training(seconds=42.0, apps=240)
    two = train.train(seed=3, seconds=42.0, apps=240, crowds=2, workers=0)
    for name in ("risk_model", "value_model", "risk_calibration", "value_calibration"):
        assert getattr(one.artifact, name) == getattr(two.artifact, name)


# ---- reliability
# -----------------------------------------------------------------------------


def test_reliability_tells_the_share_of_abuse_by_tier_and_risk() -> None:
    rng = np.random.default_rng(1)
    p = np.repeat([0.5, 0.9], 4_000)
    abusive = rng.random(8_000) < np.repeat([0.2, 0.9], 4_000)
    tier = np.where(np.arange(8_000) % 2 == 0, int(Tier.FREE), int(Tier.PREMIUM)).astype(np.int8)
    found = metrics.reliability(abusive, p, np.ones(8_000), tier)
    assert set(found) == {
        f"reliability_{name}_{risk}" for name in ("free", "premium") for risk in (50, 90)
    }
    assert found["reliability_free_50"] == pytest.approx(0.2, abs=0.03)
    assert found["reliability_premium_90"] == pytest.approx(0.9, abs=0.03)


def test_only_apps_with_true_profiles_calibrate_and_no_row_is_lost() -> None:
    scenario = Scenario(5, START, seconds=8.0, warm_up=2.0, apps=80, rate=60.0)
    played = [scenario, replace(scenario, seed=6, shuffled_profiles=True)]
    traffic = simulate.join_traffic([Simulation(one).run().traffic for one in played])
    before = train.split_apps(traffic, 1)
    after = train.choose_calibrated(traffic, before, played)
    seeds = traffic.app // simulate.APPS_PER_SEED
    assert set(seeds[after.calibrate]) == {5}
    assert np.array_equal(after.test, before.test)
    assert (after.train.astype(int) + after.calibrate + after.test == 1).all()
