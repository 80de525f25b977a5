"""Matches, their figures, and the report made of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from decider.contracts.vocabulary import Tier
from learning.evaluation import arms, claims, report, tournament
from learning.evaluation.arms import Quotas
from learning.evaluation.figures import Interval, RareCount, Scoreboard
from learning.evaluation.match import Match, MatchResult, OracleMatch, TierCounts, play
from learning.evaluation.real_logs import LogResult
from learning.traffic import referee
from learning.traffic.conduct import PlannedIncident
from learning.traffic.services import Slowdown
from learning.traffic.simulate import Scenario
from learning.traffic.world import AppKind

START = 1_790_000_000.0
QUOTAS = Quotas(0.1, 20.0)
NOTHING, FALLBACK, ORACLE = arms.NOTHING.name, arms.FALLBACK.name, arms.ORACLE.name


def scenario(**more: object) -> Scenario:
    tiny = Scenario(4, START, seconds=20.0, warm_up=8.0, apps=300, rate=60.0)
    return replace(tiny, **more)


def total(match: Match) -> TierCounts:
    return MatchResult("", "", 0, match.tiers()).total()


def result(arm: str, seed: int, *counts: int, world: str = "usual") -> MatchResult:
    """One match in which only free apps and, with the same counts, enterprise apps sent."""
    none = TierCounts(0, 0, 0, 0, 0)
    return MatchResult(world, arm, seed, (TierCounts(*counts), none, none, TierCounts(*counts)))


def board() -> Scoreboard:
    return Scoreboard(
        [
            result(NOTHING, 1, 1000, 0, 7, 400, 400),
            result(NOTHING, 2, 1000, 0, 7, 500, 500),
            result(FALLBACK, 1, 1000, 10, 0, 300, 100),
            result(FALLBACK, 2, 500, 15, 0, 300, 250),
        ]
    )


def test_refusing_nothing_admits_all_abuse_by_definition() -> None:
    assert board().abuse_admitted("usual", NOTHING) == Interval(1.0, 0.0)
    played = Match(arms.NOTHING, scenario(), None)
    played.run()
    counts = total(played)
    assert counts.abuse_admitted == counts.abuse > 0
    assert counts.honest > 300
    assert counts.honest_refused == 0


def test_abuse_admitted_is_relative_to_refusing_nothing_on_the_same_seed() -> None:
    assert board().abuse_admitted("usual", FALLBACK).mean == pytest.approx((0.25 + 0.5) / 2)


def test_false_throttles_are_shares_of_honest_first_tries() -> None:
    assert board().false_throttle("usual", FALLBACK).mean == pytest.approx((0.01 + 0.03) / 2)
    assert board().failed("usual", NOTHING).mean == pytest.approx(0.007)


def test_enterprise_false_throttles_are_counted_over_all_worlds_of_a_seed() -> None:
    more = [*board().results, result(FALLBACK, 1, 3000, 30, 0, 1, 1, world="calm")]
    found = Scoreboard(more).enterprise({"usual", "calm"}, FALLBACK)
    assert found.mean == pytest.approx((10_000 * 40 / 4000 + 10_000 * 15 / 500) / 2)


def test_an_interval_is_students() -> None:
    found = Interval.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    assert math.isnan(Interval.of([1.0]).half)
    assert math.isnan(Interval.of([]).mean)


def test_enterprise_refusals_of_all_seeds_and_worlds_are_counted_together() -> None:
    more = [*board().results, result(FALLBACK, 1, 3000, 30, 0, 1, 1, world="calm")]
    found = Scoreboard(more)
    assert found.enterprise_refused({"usual", "calm"}, FALLBACK) == RareCount(4500, 55)
    assert found.enterprise_refused({"usual"}, NOTHING) == RareCount(2000, 0)
    assert found.enterprise_refused({"stuffing"}, FALLBACK) == RareCount(0, 0)


@pytest.mark.parametrize(
    ("found", "tries", "bound"),
    [
        # none of n: (1 - bound)^n is the chance, about three of n
        (0, 276_065, 1 - 0.05 ** (1 / 276_065)),
        (0, 1, 0.95),
        # from the table of Clopper and Pearson: 90% two-sided is 95% on each side
        (1, 10, 0.3942),
        (5, 10, 0.7776),
        (10, 10, 1.0),
        # many: the normal approximation, within a hundredth
        (1_000, 100_000, 0.01 + 1.645 * math.sqrt(0.01 * 0.99 / 100_000)),
    ],
)
def test_a_bound_is_the_share_at_which_so_few_are_rare(
    found: int, tries: int, bound: float
) -> None:
    assert RareCount(tries, found).upper == pytest.approx(bound, rel=1e-2 if found > 99 else 1e-4)


def test_nothing_is_said_of_what_was_not_tried() -> None:
    assert math.isnan(RareCount(0, 0).upper)


def test_only_first_tries_of_honest_apps_count_as_false_throttles() -> None:
    storm = PlannedIncident(AppKind.STORM, 8, 8.0, 12.0)
    played = Match(arms.static_quotas(Quotas(0.01, 1.0)), scenario(incidents=(storm,)), None)
    run = played.run()
    counts = total(played)
    refused = sum(run.by_action[1:])
    assert 0 < counts.honest_refused < counts.honest
    assert counts.honest_refused < refused


def test_the_oracle_refuses_every_abuser_and_no_honest_client_where_there_is_room() -> None:
    played = OracleMatch(arms.ORACLE, scenario(), None)
    played.run()
    counts = total(played)
    assert counts.abuse > counts.abuse_admitted == 0
    assert counts.honest_refused == counts.honest_failed == 0


def test_the_oracle_refuses_what_does_not_fit_so_that_nothing_fails() -> None:
    slow = tuple(Slowdown(s, 0.0, 1e6, 1e3, 0.05) for s in ("orders-read", "search", "auth"))
    crowded = scenario(slowdowns=slow)
    admitting, oracle = Match(arms.NOTHING, crowded, None), OracleMatch(arms.ORACLE, crowded, None)
    admitting.run(), oracle.run()
    assert total(admitting).honest_failed > 0
    assert total(oracle).honest_refused > 0
    assert total(oracle).honest_failed == 0


def test_each_arm_changes_only_its_own_part_of_the_starting_config() -> None:
    fallback, nothing = arms.FALLBACK.config(scenario()), arms.NOTHING.config(scenario())
    assert [s.name for s in nothing.switches] == ["observe_only"]
    assert (nothing.tiers, nothing.services) == (fallback.tiers, fallback.services)
    assert arms.SLUICE.config(scenario()) == fallback
    quotas = arms.static_quotas(Quotas(0.1, 20.0)).config(scenario())
    assert quotas.services == fallback.services
    for mine, usual in zip(quotas.tiers, fallback.tiers, strict=True):
        assert mine.rate == pytest.approx(0.1 * usual.rate)
        assert mine.burst == pytest.approx(2.0 * usual.rate)
        assert (mine.friction, mine.quota_per_day) == (usual.friction, usual.quota_per_day)


def test_tuning_takes_the_least_abuse_within_the_limit_of_false_throttles() -> None:
    grid = arms.quota_grid()
    assert len(set(grid)) == len(grid) == len(arms.RATE_SHARES) * len(arms.BURSTS_S)
    figures = dict.fromkeys(grid, (0.02, 0.1))
    figures[grid[3]], figures[grid[5]] = (0.009, 0.7), (0.01, 0.6)
    assert arms.tuned(grid, figures.__getitem__) == grid[5]


def test_tuning_takes_the_fewest_false_throttles_where_all_are_over_the_limit() -> None:
    grid = arms.quota_grid()
    figures = dict.fromkeys(grid, (0.5, 0.1)) | {grid[7]: (0.05, 0.9)}
    assert arms.tuned(grid, figures.__getitem__) == grid[7]


def test_every_world_is_played_by_every_arm_and_the_oracle_plays_under_overload() -> None:
    wanted = tournament.fixtures(QUOTAS, (1, 2))
    assert len(set(wanted)) == len(wanted)
    for world in referee.WORLDS:
        mine = {f.arm.name for f in wanted if f.world == world.name}
        assert len(mine) == 5 if world.overload else 4
        assert (ORACLE in mine) == world.overload


def test_quotas_are_tuned_on_their_own_seeds_and_each_by_its_own_matches() -> None:
    asked: list[tournament.Fixture] = []
    best = arms.quota_grid()[9]

    def play_all(wanted: list[tournament.Fixture]) -> list[MatchResult]:
        asked.extend(wanted)
        return [
            result(f.arm.name, f.seed, 100, 0, 0, 50, 50 if f.arm.quotas != best else 20)
            for f in wanted
        ]

    assert tournament.tune_quotas(play_all) == best
    assert {f.seed for f in asked} == set(referee.TUNING_SEEDS)


def test_a_match_of_the_referee_is_played_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"APPS": 200, "RATE": 30.0, "SETTLE_S": 3.0, "COUNTED_S": 5.0}.items():
        monkeypatch.setattr(referee, name, value)
    found = play(referee.BY_NAME["brown-out"], arms.FALLBACK, referee.SEEDS[1], None)
    assert (found.world, found.arm, found.seed) == ("brown-out", FALLBACK, referee.SEEDS[1])
    assert found.ranking is None
    assert len(found.tiers) == len(Tier)
    assert found.total().honest > 50


def evaluation() -> report.Evaluation:
    wanted = tournament.fixtures(QUOTAS, (1, 2))
    results = [
        result(f.arm.name, f.seed, 900 + f.seed, 9, 2, 80, 40, world=f.world) for f in wanted
    ]
    logs = [LogResult("a scan", "60/min", True, 1_000, 900, 50, 2, 7, 30, 0)]
    return report.Evaluation("0123456789abcdef", QUOTAS, (1, 2), Scoreboard(results), logs)


def test_the_page_names_every_world_and_arm_and_the_version() -> None:
    page = report.compose_page(evaluation())
    assert f"version {referee.VERSION}:" in page
    assert all(f"| {world.name} | {world.says} |" in page for world in referee.WORLDS)
    for arm in (arms.NOTHING, arms.static_quotas(QUOTAS), arms.SLUICE, arms.ORACLE):
        assert f"| {arm.name} | {arm.says} |" in page
    assert "| usual | 100.0 ± 0.0 |" in page
    row = "| a scan | 60/min | bucket and model | 900 of 1,000 | 2 of 50 | 7 | 0 of 30 |"
    assert row in page
    tries = sum(900 + seed for seed in (1, 2)) * len(referee.WORLDS)
    bound = 10_000 * RareCount(tries, 18 * len(referee.WORLDS)).upper
    assert f"| all | {tries:,} | {18 * len(referee.WORLDS)} | {bound:.2f} |" in page
    without = report.compose_page(replace(evaluation(), logs=[]))
    assert "No real logs were there" in without


def test_the_page_can_be_composed_again_from_the_counts(tmp_path: Path) -> None:
    report.write(tmp_path, evaluation())
    again = report.decode_counts((tmp_path / report.COUNTS).read_bytes())
    assert report.compose_page(again) == (tmp_path / report.PAGE).read_text()


def test_shares_read_as_percent_with_their_interval() -> None:
    assert report.percent(Interval(0.281, 0.0321)) == "28.1 ± 3.2"
    assert report.percent(Interval(0.00718, 0.001)) == "0.72 ± 0.10"
    assert report.plain(Interval(0.915, math.nan), 3) == "0.915"
    assert report.plain(Interval.of([]), 1) == "–"


ROOT = Path(__file__).parents[2]


def measured() -> tournament.Evaluation:
    return report.decode_counts((ROOT / "docs" / report.COUNTS).read_bytes())


def test_the_readme_says_of_decisions_what_was_measured() -> None:
    text = (ROOT / "README.md").read_text()
    assert claims.replace_claims(text, measured()) == text
    page = (ROOT / "docs" / report.PAGE).read_text()
    assert page == report.compose_page(measured())


def test_misses_come_first_and_every_target_is_claimed() -> None:
    found = claims.find_claims(measured())
    assert [claim.met for claim in found] == sorted(claim.met for claim in found)
    said = " ".join(claim.what for claim in found)
    for name in (*claims.ABUSE, *claims.ATTACKS, "all shifts", "enterprise", "claim to retry"):
        assert name in said


def test_a_claim_follows_its_figure(tmp_path: Path) -> None:
    """Where Sluice refuses no honest request and admits no abuse, its world is met, else not."""
    perfect = [
        replace(
            match,
            tiers=tuple(replace(t, honest_refused=0, abuse_admitted=0) for t in match.tiers),
        )
        if match.arm == arms.SLUICE.name
        else match
        for match in measured().board.results
    ]
    found = claims.find_claims(replace(measured(), board=Scoreboard(perfect)))
    met = {claim.what.partition(":")[0] for claim in found if claim.met}
    assert met >= set(claims.ABUSE)
    spoilt = [
        replace(match, tiers=tuple(replace(t, honest_refused=t.honest) for t in match.tiers))
        if (match.arm, match.world) == (arms.SLUICE.name, "calm")
        else match
        for match in perfect
    ]
    found = claims.find_claims(replace(measured(), board=Scoreboard(spoilt)))
    assert "calm" not in {claim.what.partition(":")[0] for claim in found if claim.met}
    (folder := tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{claims.BEGIN}old\n{claims.END}after\n")
    report.write(folder, measured())
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"before\n{claims.BEGIN}| what | measured |")
    assert text.endswith(f"{claims.END}after\n")
    with pytest.raises(ValueError, match="marks"):
        claims.replace_claims("no place", measured())
