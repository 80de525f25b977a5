"""Web clients: what they send, what they are answered, and how they take a refusal."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random

import pytest

from decider.contracts import features
from learning.traffic import web_crowd
from learning.traffic.behaviour import PlannedRequest
from learning.traffic.simulate import Scenario, Simulation
from learning.traffic.web_clients import HABITS, WebKind
from learning.traffic.web_crowd import WebCrowd, WebMix
from learning.traffic.web_sites import WebSite

START = 1_790_000_000.0
MIX = WebMix(hostile=0.3)


def crowd(clients: int = 300, seconds: float = 120.0, seed: int = 3) -> WebCrowd:
    people = web_crowd.draw_population(seed, clients, MIX)
    return WebCrowd(people, seed, START, seconds, MIX)


def played(some: WebCrowd, until: float, begin: float = 0.0) -> list[PlannedRequest]:
    steps = range(round((until - begin) / 0.2))
    return [p for k in steps for p in some.due(START + begin + (k + 1) * 0.2)]


def asks(kind: WebKind, number: int, seed: int = 1) -> list:
    """The first pairs of wait and request of one client's plan."""
    rng = Random(seed)
    return list(itertools.islice(HABITS[kind].plan(WebSite(rng), rng, 1.0), number))


def test_no_web_client_has_a_credential_and_each_is_known_by_its_address() -> None:
    sent = played(crowd(), 60)
    assert len(sent) > 2_000
    assert {p.request.token for p in sent} == {""}
    assert {p.request.attempt for p in sent} == {0}
    # all requests of one app come from one address while nobody is refused
    assert (
        max(Counter(app for app, _ in {(p.request.app, p.request.source) for p in sent}).values())
        == 1
    )
    names = {p.request.app for p in sent}
    assert len({p.request.source for p in sent}) < len(names)


def test_the_same_seed_gives_the_same_web_clients_and_another_seed_others() -> None:
    one, two, other = (played(crowd(seed=seed), 20) for seed in (3, 3, 4))
    assert [(p.at, p.request, p.answer) for p in one] == [(p.at, p.request, p.answer) for p in two]
    assert {p.request.app for p in one}.isdisjoint(p.request.app for p in other)


def test_a_population_is_what_its_crowd_plays() -> None:
    some = crowd()
    people = web_crowd.draw_population(3, 300, MIX)
    assert [a.abusive for a in people.apps] == [c.kind.hostile for c in some.clients]
    assert sum(a.abusive for a in people.apps) == round(0.3 * 300)
    kinds = {c.kind for seed in range(4) for c in crowd(seed=seed).clients}
    assert kinds == set(WebKind)


def test_a_web_population_needs_a_client() -> None:
    with pytest.raises(ValueError, match="at least one client"):
        web_crowd.draw_population(3, 0, MIX)


def test_a_visitor_loads_a_page_and_its_assets_within_seconds() -> None:
    loads = 0
    for seed in range(20):
        run = 0
        for wait, ask in asks(WebKind.VISITOR, 60, seed):
            run = run + 1 if wait < 1.0 and ask.path.startswith("/static/") else 0
            loads += run == 5
    assert loads > 20


def test_sites_answer_a_wrong_password_with_many_statuses_and_with_another_page() -> None:
    statuses, differ = set(), 0
    for seed in range(60):
        rng = Random(seed)
        site = WebSite(rng)
        wrong = [site.sign_in(rng, right=False) for _ in range(20)]
        right = [site.sign_in(rng, right=True) for _ in range(20)]
        statuses |= {ask.status for ask in wrong}
        assert {ask.method for ask in (*wrong, *right)} == {"POST"}
        assert {ask.path for ask in wrong} == {ask.path for ask in right}
        differ += {ask.bytes_out for ask in wrong}.isdisjoint(ask.bytes_out for ask in right)
    assert statuses >= {200, 303, 401, 403}
    # bodies that vary much may coincide by chance
    assert differ > 40


def test_scanners_meet_many_statuses_over_many_paths() -> None:
    shares, methods, paths = [], set(), []
    for seed in range(30):
        found = [ask for _, ask in asks(WebKind.SCANNER, 400, seed)]
        shares.append(sum(ask.status == 404 for ask in found) / len(found))
        methods |= {ask.method for ask in found}
        paths.append(len({ask.path for ask in found}))
    assert min(shares) < 0.1 < 0.5 < max(shares)
    assert methods >= {"GET", "POST", "HEAD", "OPTIONS", "TRACE"}
    assert max(paths) > 200


def test_a_quiet_scraper_meets_no_failure() -> None:
    for seed in range(5):
        assert {ask.status for _, ask in asks(WebKind.QUIET_SCRAPER, 200, seed)} == {200}


def test_an_address_of_a_crew_tries_passwords_seldom_and_one_alone_often() -> None:
    def median_gap(pace: float) -> float:
        gaps = []
        for seed in range(30):
            rng = Random(seed)
            plan = HABITS[WebKind.PASSWORD_GUESSER].plan(WebSite(rng), rng, pace)
            found = list(itertools.islice(plan, 60))
            gaps.append(sum(wait for wait, _ in found) / len(found))
        return sorted(gaps)[15]

    assert median_gap(1.0) < 3.0
    assert median_gap(1.0 / 20.0) > 10.0


def client(some: WebCrowd, hostile: bool, **state: object) -> PlannedRequest:
    """A request of a client that is put into a state."""
    sent = next(
        p for p in played(some, 30) if p.abusive is hostile and p.answer and p.answer[0] != 403
    )
    for name, value in state.items():
        setattr(some.clients[sent.app], name, value)
    return sent


def test_an_attacker_whose_patience_is_spent_goes_on_under_another_name() -> None:
    some = crowd()
    one = client(some, True, temper="moves", patience=6.0, insists=False)
    for _ in range(5):
        some.react(one, 429, 5.0, START + 30)
    assert some.clients[one.app].name == one.request.app
    # the sixth is enough; late ones of the old name do not count against the new one
    for _ in range(20):
        some.react(one, 403, 0.0, START + 30)
    assert some.clients[one.app].names_dropped == 1
    later = {p.request.app for p in played(some, 90, 30) if p.app == one.app and p.at > START + 31}
    assert one.request.app not in later


@pytest.mark.parametrize(("temper", "pace"), [("stubborn", 1.0), ("slower", 0.7)])
def test_attackers_go_on_as_before_or_slow_down(temper: str, pace: float) -> None:
    some = crowd()
    one = client(some, True, temper=temper, patience=6.0, insists=False)
    for _ in range(40):
        some.react(one, 429, 5.0, START + 30)
    assert not some.clients[one.app].gone
    assert some.clients[one.app].pace <= pace
    assert (some.clients[one.app].hold_until > START + 30) == (temper == "slower")


def test_an_attacker_that_gives_up_sends_nothing_more() -> None:
    some = crowd()
    one = client(some, True, temper="gone", patience=6.0, insists=False)
    for _ in range(6):
        some.react(one, 429, 5.0, START + 30)
    assert one.app not in {p.app for p in played(some, 90, 30)}


def test_what_a_site_itself_forbids_is_not_a_refusal() -> None:
    some = crowd()
    one = client(some, True, temper="gone", patience=1.0, insists=False)
    one.answer = (403, 300)
    for _ in range(20):
        some.react(one, 403, 0.0, START + 30)
    assert not some.clients[one.app].gone


def test_some_honest_clients_wait_for_retry_after_and_others_come_at_once() -> None:
    some = crowd()
    waits = client(some, False, obeys=True)
    some.react(waits, 429, 20.0, START + 30)
    assert some.clients[waits.app].hold_until == START + 50
    other = crowd()
    insists = client(other, False, obeys=False, insists=True)
    other.react(insists, 429, 20.0, START + 30)
    again = [p for p in played(other, 32, 30) if p.tried == 1]
    assert [(p.app, p.request.path) for p in again] == [(insists.app, insists.request.path)]


def test_the_engine_meets_web_clients_without_a_profile_and_learns_their_answers() -> None:
    scenario = Scenario(3, START, seconds=20.0, warm_up=2.0, apps=120, rate=300.0, web=MIX)
    run = Simulation(scenario)
    told = []
    learn = run.engine.learn
    run.engine.learn = lambda outcomes, now: (told.extend(outcomes), learn(outcomes, now))[1]  # type: ignore[method-assign]
    traffic = run.run().traffic
    assert traffic.web.all()
    for name in ("app_age", "verified", "tier", "abuse_history"):
        assert not traffic.features[:, features.INDEX[name]].any()
    assert len(set(traffic.features[:, features.INDEX["cohort_prior"]])) == 1
    assert len({outcome.status for outcome in told}) > 5
    assert sum(outcome.bytes_out > 0 for outcome in told) > 0.4 * len(told)
