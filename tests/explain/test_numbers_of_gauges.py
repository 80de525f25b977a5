"""Every number beside an app's buckets is what its deciders reported, and none says that a request
would be admitted that would be refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from django.template.loader import render_to_string
from hypothesis import given, settings
from hypothesis import strategies as st

from console.pages.app import gauges
from control.deciders.buckets import Node, Peek
from decider.node.commands import Answer, Spending, View
from decider.whatif.plan import Plan
from tests.explain.sentences import Truth, as_number, check, read, same_order

NOW = 1_763_476_896.0
PLANS = st.sampled_from([(5.0, 50.0), (0.75, 7.5), (12.5, 40.0), (1_234.5, 5e3), (12_000.0, 1e5)])
SHARE = st.floats(0, 1)
EDGES = st.sampled_from([1.0, 0.999, 0.5, 0.0, -0.0, -0.4, -1.0, 1.6])

BURST = (
    "[{into} into the headroom. ]Refills {rate} a second.[ One is back in {back:span}.]"
    "[ Full in {full:span}.][ Clients were told to wait {told:span} more.]"
)
QUOTA = (
    "{used}% used, {gone}% of the day gone (tick). Resets {zero}:{zero2} UTC.[ Counted since"
    " {hour}:{minute}.]"
)
PACE = "Over the last minute, {refused} not admitted. Plan sustains {rate} (tick)."
UNLESS = "[ It does not hold while its service is far short of room.]"
BUDGET = (
    "ML may refuse it at a risk of {risk} or more." + UNLESS,
    "ML refuses it no more until some is left." + UNLESS,
    "Its tier has no error budget.",
    "Its decider is of an older version.",
)
WHY = (
    "",
    "It has sent too few in the present <window> for a refusal by ML to fit 1 in {promise} of its"
    " requests.",
    "ML refused it about {times} time[s] in the last <window>, at risks around {around}. That is"
    " [more than ][all that ]1 in {promise} of its requests[ allows].",
    "ML refused it about {times} time[s] in the last <window>, at risks around {around}. Its"
    " requests of the present <window> alone do not allow more yet.",
)


@st.composite
def views(draw: st.DrawFn) -> View:
    rate, burst = draw(PLANS)
    budget = draw(st.sampled_from([0.0001, 0.003, 0.4, 0.97, 1.0]))
    spending = tuple(draw(spendings(budget, window)) for window in (3_600.0, 86_400.0))
    quota = draw(st.sampled_from([1_234.0, 2_000_000.0]))
    return View(
        config_version=1,
        tier=1,
        tokens=min(burst, draw(EDGES | SHARE.map(lambda s: (2 * s - 1) * burst))),
        burst=burst,
        rate=rate,
        quota_used=draw(st.sampled_from([0.0, 1.0, round(quota * 0.996), quota - 1, quota])),
        quota_left=draw(st.sampled_from([0.0, 0.6, 0.97, 5.7])),
        quota_per_day=quota,
        errors_left=0.0,
        errors_per_hour=0.0,
        pace=draw(SHARE.map(lambda s: round(s * 120) / 60 * rate) | st.just(rate * 1.004)),
        refused=float(draw(st.integers(0, 5_000))),
        wait_until=NOW + draw(st.sampled_from([-5.0, 0.0, 3.2, 130.0])),
        tracked_since=NOW - draw(st.sampled_from([60.0, 90_000.0])),
        last_seen=NOW - 1.0,
        error_budget=budget,
        spending=spending if budget < 1.0 else (),
    )


@st.composite
def spendings(draw: st.DrawFn, budget: float, window: float) -> Spending:
    requests = float(draw(st.integers(1, 100_000)))
    refusals = float(draw(st.integers(0, 40)))
    spent = refusals * draw(SHARE)
    left = max(0.0, budget * requests - spent) * draw(st.sampled_from([0.0, 0.4, 1.0]))
    return Spending(window, requests, refusals, spent, left)


def truths(view: View) -> dict[str, Truth]:
    gone = NOW % 86_400.0
    return {
        "tokens": Truth(max(0.0, view.tokens), "down"),
        "into": Truth(max(0.0, -view.tokens)),
        "rate": Truth(view.rate, "exact"),
        "burst": Truth(view.burst, "exact"),
        "back": Truth((1.0 - view.tokens) / view.rate),
        "full": Truth((view.burst - view.tokens) / view.rate),
        "told": Truth(view.wait_until - NOW),
        "used": Truth(100.0 * view.quota_used / view.quota_per_day, "unlike"),
        "gone": Truth(100.0 * gone / 86_400.0),
        "zero": Truth(0.0),
        "hour": Truth(view.tracked_since % 86_400.0 // 3_600.0),
        "minute": Truth(view.tracked_since % 3_600.0 // 60.0),
        "count": Truth(view.quota_used),
        "quota": Truth(view.quota_per_day, "exact"),
        "pace": Truth(view.pace),
        "refused": Truth(view.refused),
    }


def seen_by(*views: View | None) -> Peek:
    """What deciders d0, d1, ... answer."""
    answers = [Answer(f"d{k}", "local", "", NOW, view) for k, view in enumerate(views)]
    return Peek(NOW, tuple(Node(one.node, one) for one in answers))


@given(views())
def test_every_number_of_the_gauges_is_the_deciders(view: View) -> None:
    true = truths(view)
    quota, burst, budget, pace = gauges.tiles(seen_by(view), NOW)
    check(["{tokens} of {burst} tokens"], burst.label, true)
    check([BURST], burst.note, true)
    # a request takes a whole token, so without one none is shown
    assert (as_number(burst.value) >= 1) == (view.tokens >= 1.0)
    check(["{count} of {quota}"], quota.label, true)
    check([QUOTA], quota.note, true)
    full = quota.note.startswith("100% used")
    assert full == (view.quota_used >= view.quota_per_day)
    check(["{pace} requests a second"], pace.label, true)
    check([PACE], pace.note, true)
    _, shown = read([PACE], pace.note)
    assert same_order(pace.value, shown["rate"], view.pace, view.rate)
    check_budget(view, budget)


def check_budget(view: View, tile: gauges.Gauge) -> None:
    found = seen_by(view)
    if not view.spending:
        check(BUDGET, tile.note, {})
        assert tile.value in ("–", "?")
        return
    tightest = min(view.spending, key=lambda one: one.left)
    allowed = view.error_budget * tightest.requests
    true = {
        "left": Truth(tightest.left),
        "allowed": Truth(allowed),
        "risk": Truth(max(0.0, 1.0 - tightest.left)),
    }
    window = "{left} of {allowed} that its requests of the last <window> allow"
    check([window], tile.label, true)
    check(BUDGET, tile.note, true)
    for row, one in zip(gauges.spending(found), view.spending, strict=True):
        assert row.allowed == pytest.approx(view.error_budget * one.requests)
        around = min(1.0, max(0.0, 1.0 - one.spent / max(one.refusals, one.spent, 1e-9)))
        told = {
            "times": Truth(max(1.0, one.refusals)),
            "around": Truth(around),
            "promise": Truth(1.0 / view.error_budget, "close"),
        }
        check(WHY, row.why, told)
        _, shown = read(WHY, row.why)
        # "1 in 1" would be all of them
        assert "promise" not in shown or as_number(shown["promise"]) > 1 or view.error_budget == 1


def panel(views: tuple[View | None, ...], plan: Plan | None = None) -> str:
    """The panel's HTML."""
    found = seen_by(*views)
    tiles = gauges.tiles(found, NOW)
    shown = gauges.Gauges("app_1", NOW, found, "", tiles, (), plan, True, "")
    return re.sub(r"\s+", " ", render_to_string("decisions/app_gauges.html", {"g": shown}))


ROW = (
    "[{tokens}][−{into}, headroom]",
    "{count}",
    "{left}",
    "{errors}",
    "{day} Nov {hour}:{minute}",
)


# Fewer than elsewhere: each renders a template.
@settings(max_examples=40)
@given(views(), views())
def test_every_number_of_the_deciders_table_is_theirs(one: View, other: View) -> None:
    page = panel((one, other))
    for name, view in (("d0", one), ("d1", other)):
        (row,) = re.findall(rf'<th scope="row">{name}</th>(.*?)</tr>', page)
        cells = re.findall(r"<td>(.*?)</td>", row)
        seen = view.last_seen
        true = truths(view) | {
            "left": Truth(view.quota_left, "down"),
            "errors": Truth(view.errors_left),
            "hour": Truth(seen % 86_400.0 // 3_600.0),
            "minute": Truth(seen % 3_600.0 // 60.0),
            "day": Truth(float(datetime.fromtimestamp(seen, UTC).day)),
        }
        for pattern, cell in zip(ROW, cells, strict=True):
            check([pattern], cell, true)
        assert (view.tokens >= 1.0) == ("−" not in cells[0] and as_number(cells[0]) >= 1)


def test_an_untracked_app_finds_the_plans_own_figures() -> None:
    plan = Plan(rate=0.75, burst=7.5, quota_per_day=1_000.0, error_budget=1.0, override=None)
    assert "finds a full bucket of 7.5 and 0.75 requests a second." in panel((None,), plan)
