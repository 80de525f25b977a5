"""The population, its behaviour and its services."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from decider.contracts import defaults
from learning.traffic import services, world
from learning.traffic.crowd import Crowd
from learning.traffic.world import AppKind

START = 1_790_000_000.0


def crowd(apps: int = 600, seed: int = 3, rate: float = 120.0) -> Crowd:
    return Crowd(world.draw_population(seed, apps, now=START), seed, START, rate)


def played(some: Crowd, seconds: float) -> list:
    return [p for k in range(round(seconds / 0.1)) for p in some.due(START + (k + 1) * 0.1)]


def test_the_same_seed_gives_the_same_population_and_another_seed_another() -> None:
    assert world.draw_population(3, 400, now=START) == world.draw_population(3, 400, now=START)
    assert (
        world.draw_population(3, 400, now=START).profiles()
        != world.draw_population(4, 400, now=START).profiles()
    )


def test_the_date_changes_nothing_but_the_dates() -> None:
    old, new = (
        world.draw_population(3, 200, now=START),
        world.draw_population(3, 200, now=START + 86_400),
    )
    assert [a.kind for a in old.apps] == [a.kind for a in new.apps]
    assert {
        n.profile.created_at - o.profile.created_at for o, n in zip(old.apps, new.apps, strict=True)
    } == {86_400}


def test_a_population_has_every_tier_and_kind_and_a_few_apps_are_most_of_the_traffic() -> None:
    people = world.draw_population(3, 3000, now=START)
    assert {a.profile.tier for a in people.apps} == {0, 1, 2, 3}
    assert {a.kind for a in people.apps} == set(AppKind)
    assert len({a.profile.app for a in people.apps}) == 3000
    weights = np.sort([a.weight for a in people.apps])[::-1]
    assert weights[:300].sum() > 0.5 * weights.sum()
    assert set(people.tenants()) == {a.profile.tenant for a in people.apps}


def test_the_prior_told_of_a_cohort_is_its_true_share_of_abusers() -> None:
    people = world.draw_population(3, 20_000, now=START)
    for cohort in world.COHORTS:
        mine = [a for a in people.apps if a.cohort == cohort.name]
        share = sum(a.abusive for a in mine) / len(mine)
        assert share == pytest.approx(cohort.prior, abs=4 * (cohort.prior / len(mine)) ** 0.5)


def test_an_empty_population_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one app"):
        world.draw_population(3, 0)


def test_a_crowd_says_the_same_for_the_same_seed_at_about_the_rate_asked_for() -> None:
    one, two = played(crowd(), 30), played(crowd(), 30)
    assert [(p.at, p.request) for p in one] == [(p.at, p.request) for p in two]
    assert 0.5 * 120 * 30 < len(one) < 2.5 * 120 * 30
    assert all(a.at <= b.at + 0.1 for a, b in itertools.pairwise(one))


def test_obeying_clients_wait_for_retry_after_and_others_do_not() -> None:
    some = crowd()
    waiting = {p.app for p in played(some, 5) if some._obeys[p.app] and not some._storms[p.app]}
    for planned in played_from(some, 5.1, 0.3):
        some.react(planned, 429, 20.0, START + 5.4)
    held = {i for i in waiting if some._hold_until[i] > START + 5.4}
    assert held
    after = played_from(some, 5.5, 15.0)
    assert not held & {p.app for p in after}
    back = played_from(some, 20.6, 20.0)
    assert held & {p.app for p in back if p.request.attempt > 0}


def played_from(some: Crowd, begin: float, seconds: float) -> list:
    return [p for k in range(round(seconds / 0.1)) for p in some.due(START + begin + k * 0.1)]


def test_a_retry_storm_repeats_what_was_refused_at_once_and_worth_little() -> None:
    some = crowd()
    chosen = set(some.incident(AppKind.STORM, 3, START, 30))
    first = [p for p in played(some, 10) if p.app in chosen]
    assert first
    for planned in first:
        some.react(planned, 429, 30.0, START + 10)
    again = [p for p in played_from(some, 10.1, 1.0) if p.app in chosen and p.request.attempt > 0]
    assert len(again) > 0.7 * len(first)
    assert max(p.value for p in again) <= 0.15


def test_abusers_give_way_after_many_refusals_and_come_back_slower() -> None:
    some = crowd(apps=2000)
    chosen = some.incident(AppKind.SCRAPER, 1, START, 600)
    one = next(p for p in played(some, 20) if p.app == chosen[0])
    for _ in range(2000):
        some.react(one, 429, 0.0, START + 20)
    assert some._quiet_until[chosen[0]] > START + 20
    assert some._pace[chosen[0]] < 1.0


def test_what_clients_send_has_the_outcomes_that_the_services_give() -> None:
    some = crowd(apps=2000)
    for kind in (AppKind.SCRAPER, AppKind.STUFFER, AppKind.CARD_TESTER):
        some.incident(kind, 5, START, 60)
    statuses: dict[str, Counter] = {}
    for p in played(some, 60):
        kind = AppKind(some.kinds[p.app]).name
        status = services.answer_status(p.request.method, p.request.path, p.query, p.request.token)
        statuses.setdefault(kind, Counter())[status] += 1
    assert statuses["STUFFER"][401] > 0.2 * statuses["STUFFER"].total()
    assert statuses["CARD_TESTER"][402] > 0.1 * statuses["CARD_TESTER"].total()
    assert 0 < statuses["SCRAPER"][404] < statuses["SCRAPER"].total()
    assert statuses["STEADY"][200] > 0.6 * statuses["STEADY"].total()


def test_a_service_with_room_is_fast_and_one_over_capacity_slows_down_and_then_fails() -> None:
    policy = defaults.SERVICES[0]
    calm = services.ServiceModel(policy, START)
    answers = [calm.offer(1.0, START + k / (0.3 * policy.capacity), 0.5) for k in range(2000)]
    assert all(ok for ok, _ in answers)
    assert max(latency for _, latency in answers) < 3 * policy.latency_ms
    busy = services.ServiceModel(policy, START)
    answers = [
        busy.offer(1.0, START + k / (2.0 * policy.capacity), k % 100 / 100) for k in range(8000)
    ]
    assert answers[-1][1] > 20 * policy.latency_ms
    assert 0.3 < sum(not ok for ok, _ in answers[4000:]) / 4000 < 0.7


def test_a_service_recovers_when_the_load_is_gone() -> None:
    policy = defaults.SERVICES[0]
    model = services.ServiceModel(policy, START)
    for k in range(4000):
        model.offer(1.0, START + k / (3.0 * policy.capacity), 0.99)
    ok, latency = model.offer(1.0, START + 120, 0.5)
    assert ok
    assert latency < 2 * policy.latency_ms


def test_a_slowdown_holds_only_in_its_time() -> None:
    slow = services.Slowdown("search", first=10, every=100, lasts=5, factor=0.2)
    assert [slow.holds(t) for t in (0, 9.9, 10, 14.9, 15, 110, 115)] == [
        False,
        False,
        True,
        True,
        False,
        True,
        False,
    ]
