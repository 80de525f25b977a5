"""Every number in the stage trace, the limits and the opening of a decision page is that of the
record, rounded so that no two of them contradict each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from console.pages.decision import page
from decider import policy
from decider.contracts.vocabulary import REASONS, Action, MlState, Reason, Stage
from decider.engine.shared.tenant_use import USE_TAU_S
from decider.whatif import replay
from decisions import reason_text
from explain.comparison import limits
from explain.text import stages, verdict
from tests.explain import records
from tests.explain.records import Recorded
from tests.explain.sentences import Truth, as_number, check, read, same_order


@pytest.fixture(scope="module")
def everything() -> Iterator[tuple[Recorded, ...]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reason_text.documents, "config", records.documents().get)
        yield records.every()


def ratio(one: float, other: float) -> float:
    return one / other if other > 0 and math.isfinite(other) else math.nan


def truths(one: Recorded) -> dict[str, Truth]:
    """What each figure about a record must be."""
    seen, e = one.seen, one.event
    tier = one.config.tiers[e.tier]
    signals = np.array([*seen.values()])
    service = next((s for s in one.config.services if s.name == e.service), None)
    return {
        "left": Truth(max(0.0, seen["quota_left"]), "down"),
        "quota": Truth(seen["quota_limit"], "exact"),
        "times": Truth(seen["override_multiplier"], "exact"),
        "tokens": Truth(max(0.0, seen["tokens"]), "down"),
        "into": Truth(max(0.0, -seen["tokens"]), "unlike"),
        "below": Truth(max(0.0, -seen["tokens"]), "unlike"),
        "burst": Truth(seen["bucket_burst"], "exact"),
        "rate": Truth(seen["bucket_rate"], "exact"),
        "headroom": Truth(one.headroom, "exact"),
        "cheap": Truth(float(policy.cheap_score(one.features, signals))),
        "from": Truth(tier.rank_from),
        "risk": Truth(math.nan if e.risk is None else e.risk),
        "worth": Truth(math.nan if e.value is None else 0.5 + e.value),
        "prior": Truth(seen["prior_risk"]),
        "usual": Truth(0.5 + seen["prior_value"]),
        "load": Truth(seen["service_utilisation"] * 100),
        "price": Truth(seen["service_price"], "unlike"),
        "cost": Truth(float(policy.price_for(signals, policy.USE_ALL)) * seen["cost"], "unlike"),
        "share": Truth(ratio(seen["tenant_usage"], seen["tenant_fair_share"])),
        "use": Truth(seen["tenant_usage"]),
        "used": Truth(seen["tenant_usage"] + (seen["cost"] / USE_TAU_S if one.admitted else 0.0)),
        "fair": Truth(seen["tenant_fair_share"]),
        "budget": Truth(seen["error_budget_left"]),
        "hourly": Truth(tier.error_budget_per_hour, "exact"),
        "target": Truth(service.target * 100 if service else math.nan, "exact"),
        "capacity": Truth(service.capacity if service else math.nan, "exact"),
        "wait": Truth(float(one.wait_s), "up"),
    }


BUCKET = (
    "Burst bucket: {tokens} of {burst}[, {into} into the headroom of {headroom}]"
    "[, {into3} beyond the headroom of {headroom3}]"
    "[, {below} below empty without a headroom], refills {rate}/s."
)
ASKED = " Quick score {cheap}; the model is asked from {from}."
RERANKED = (
    "{load}% of capacity[, price {price}][, no price].[ Tenant at {share} × its fair share.]"
    "[ Error budget left: {budget} wrong refusals.]"
    "[ It waited as it was told, so a place was kept for it.]"
)
TRACE = {
    Stage.GUARD: (
        *(f"{info.text[:1].upper()}{info.text[1:]}." for info in REASONS.values() if info.text),
        "The daily quota of {quota} requests is not used up: this decider has {left} request[s] of"
        " it in hand. No list or compliance rule.",
    ),
    Stage.OVERRIDE: (
        "Guard had settled it.",
        "An override in force asks for <word>.",
        "An override stretches its plan {times} times.",
        "None in force covers this app.",
    ),
    Stage.TRIAGE: (
        "Guard had settled it.",
        "It asks the model, which could not be asked.",
        BUCKET + ASKED,
    ),
    Stage.RANK: (
        "No model was asked.",
        "Risk {risk}, where its cohort has {prior}.[ Worth {worth}.]",
    ),
    Stage.RERANK: ("Nothing was ranked.", f"<service> at {RERANKED}"),
    Stage.FALLBACK: (
        "<why>.",
        "<why>. Bucket: {tokens} of {burst}, refills {rate}/s.",
    ),
}


def test_every_number_of_the_stage_trace_is_in_the_record(everything) -> None:
    found: Counter[str] = Counter()
    for one in everything:
        true = truths(one)
        for trace in replay.trace(one.event, one.config):
            (step,) = stages.describe_stages([trace], one.decision)
            found[check(TRACE[trace.stage], step.detail, true)] += 1
            _, shown = read(TRACE[trace.stage], step.detail)
            if "tokens" in shown and trace.ran:
                # whatever is refused for want of a whole token shows none
                assert (as_number(shown["tokens"]) >= 1) == (one.seen["tokens"] >= 1), step.detail
            if "share" in shown:
                assert same_order(shown["share"], "1", true["share"].value, 1.0), step.detail
    assert len(found) >= 14


# -- limits

LIMITS = {
    "quota": ("{left}", "{quota} a day, [more may be leased][all deciders]", "{after}"),
    "lists": ("<found>", "none", "<found>"),
    "unknown": ("[none][at least {next}]", "set in the config", "[–][more in {room:span}]"),
    "override": ("[<found>][plan × {times}]", "none", "[<found>][plan × {times2}]"),
    "bucket": (
        "[{tokens}][−{into}, headroom]",
        "{burst}, refills {rate}/s[, headroom {headroom}]",
        "[{tokens_after}][−{into_after}, headroom]",
    ),
    "cheap": ("{cheap}", "the model is asked from {from}", "–"),
    "risk": (
        "[{risk}][none]",
        "[changes at {cut}][no risk would change it][no model was asked]",
        "–",
    ),
    "value": (
        "[{worth}][none]",
        "[{usual} is usual, serving it costs [{cost} now][nothing now][nothing, as its tenant uses"
        " less than its share]][no model was asked]",
        "–",
    ),
    "service": (
        "[{price}][none] at {load}% load",
        "[holds {target}% of {capacity} units/s when short][not known][; not for this one,"
        " [which had waited as told][as all demand of its tier and those above fits]]",
        "–",
    ),
    "share": (
        "{use} units/s",
        "[{fair} units/s][none, demand fits][nothing, higher tiers took all]",
        "{used} units/s",
    ),
    "budget": (
        "[{budget}][–]",
        "[none][{promise}[; this refusal takes {takes}, its chance of being wrong]"
        "[; this refusal takes none: <why>]]",
        "[{rest}][–]",
    ),
}
ONE_IN = "[1 in {every} of its requests][{hourly} an hour]"


def after(one: Recorded, cut: float | None) -> dict[str, Truth]:
    """What the figures of the limits must be that the trace does not have."""
    seen, e = one.seen, one.event
    tokens = max(-seen["bucket_burst"], seen["tokens"] - 1.0) if one.admitted else seen["tokens"]
    left = seen["quota_left"] - (1.0 if one.admitted else 0.0)
    # as the engine charges it: what ML refused while the plan left it a choice
    by_ml = e.risk is not None and e.stage in (Stage.TRIAGE, Stage.RANK, Stage.RERANK)
    spent = seen["tokens"] < 1.0 and seen["tokens"] <= 1.0 - one.headroom
    charged = by_ml and not one.admitted and not (seen["error_budget_rate"] > 0.0 and spent)
    wrong = 1.0 - e.risk if charged and e.risk is not None else 0.0
    return {
        "after": Truth(max(0.0, left), "down"),
        "room": Truth(seen["unknown_wait"], "up"),
        "next": Truth(1.0),
        "takes": Truth(wrong if charged else math.nan),
        "tokens_after": Truth(max(0.0, tokens), "down"),
        "into_after": Truth(max(0.0, -tokens), "unlike"),
        "cut": Truth(math.nan if cut is None else cut),
        "rest": Truth(max(0.0, seen["error_budget_left"] - wrong)),
        "every": Truth(1.0 / (seen["error_budget_rate"] or math.nan), "close"),
    }


def test_every_number_of_the_limits_is_in_the_record(everything) -> None:
    fired: Counter[str] = Counter()
    for one in everything:
        drawn = page.cut_of(one.decision, replay.threshold(one.event, one.config))
        cut = drawn.at if drawn else None
        true = truths(one) | after(one, cut)
        for row in limits.evaluate_limits(one.event, one.config, cut):
            for pattern, text in zip(
                LIMITS[row.key], (row.before, row.limit, row.after), strict=True
            ):
                check([pattern.replace("{promise}", ONE_IN)], text, true)
            fired[row.key] += row.fired
            holds(one, row, cut)
    # cheap scores only say whom to rank, and admit those that nothing stands out of
    assert set(fired) == set(LIMITS)
    assert min(fired.values()) > 0


def holds(one: Recorded, row: limits.Limit, cut: float | None) -> None:
    """The word beside a limit is what its figures say, as they are shown."""
    seen, e = one.seen, one.event
    told = (row.before, row.limit, row.word)
    match row.key:
        case "quota":
            assert (as_number(row.before) >= 1) == (row.word == "within"), told
        case "bucket":
            whole = not row.before.startswith("−") and as_number(row.before) >= 1
            assert whole == (row.word == "within"), told
        case "risk" if cut is not None:
            (_, shown) = read(["changes at {cut}"], row.limit)
            over = as_number(row.before) >= as_number(shown["cut"])
            assert over == (row.word == "over") == (e.risk >= cut), told
        case "share" if math.isfinite(seen["tenant_fair_share"]):
            use, fair = (row.before.split()[0], row.limit.split()[0].replace("nothing,", "0"))
            assert same_order(use, fair, seen["tenant_usage"], seen["tenant_fair_share"]), told
        case "value" if e.value is not None:
            assert same_order(row.before, row.limit.split()[0], e.value, seen["prior_value"]), told
            assert not (row.word == "below" and "costs nothing" in row.limit), told


# -- the opening

SHORT = (
    "[<service> was at {load}% of its capacity]"
    "[<service> was still recovering from overload ({load2}% load)]"
)
CLAUSES = {
    Reason.QUOTA_EXHAUSTED: (
        "its daily quota of {quota} requests is used up: no decider can lease more of it today"
    ),
    Reason.LEASE_AWAITED: (
        "this decider’s part of its daily quota of {quota} requests is used up, and no more of it"
        " has arrived yet"
    ),
    Reason.BURST_EXHAUSTED: (
        "its burst of {burst} requests is used up[, and it gets no headroom beyond it]"
        "[ and it was {into} into its headroom of {headroom}: the deeper it goes, the less it may"
        " do]",
        "its burst of {burst} requests and its headroom of {headroom} are used up",
    ),
    Reason.TOKENS_EMPTY: ("its bucket of {burst} requests, refilled at {rate} a second, was empty"),
    Reason.TOKENS_LEFT: "its bucket still held {tokens} of {burst} requests",
    Reason.SERVICE_OVERLOADED: (
        "<service> was at {load}% of its capacity",
        "<service> was still recovering from overload ({load}% load) and took only what is worth"
        " most[: this request was worth {worth}, and serving it cost {cost}]",
    ),
    Reason.TENANT_OVER_SHARE: (
        f"{SHORT} and its tenant used {{share}} times its fair share of it",
        f"{SHORT} and had next to nothing left for a tenant of its tier: {{fair2}} cost units a"
        " second, of which its tenant used {use2}",
        "higher tiers left no room on <service>, so its tenant's fair share was none",
    ),
    Reason.VALUE_LOW: (f"{SHORT} and this request was worth less than serving it cost just then",),
}


def test_every_number_of_a_machine_reason_is_in_the_record(everything) -> None:
    found: Counter[Reason] = Counter()
    for one in everything:
        reason = reason_text.find_telling_reason(one.event.action, one.event.reason)
        patterns = CLAUSES.get(reason, ())
        patterns = (patterns,) if isinstance(patterns, str) else patterns
        text, true = reason_text.clause(one.decision), truths(one)
        check([*patterns, REASONS[reason].text], text, true)
        _, shown = read([*patterns, REASONS[reason].text], text)
        if "share" in shown:
            assert same_order(shown["share"], "1", true["share"].value, 1.0), text
        if "tokens" in shown:
            assert as_number(shown["tokens"]) >= 1, text
        if "into" in shown:
            assert as_number(shown["into"]) < as_number(shown["headroom"]), text
        brief = (
            "<words>",
            "<service> at {load}% load, price {price}",
            "Tenant at {share} × its share",
        )
        check(brief, reason_text.brief(one.decision), true)
        found[reason] += bool(shown)
    assert all(found[reason] for reason in CLAUSES)


CHIP = "[Admitted][Deferred][Batch asked][Shed][Blocked][ {wait:span}]"
HTTP = (
    "passed on to the service[, observe-only]",
    "HTTP {status}[, Retry-After {wait}]",
)
ACT = (
    "It was [admitted, in observe-only mode, and would have been ][asked to wait][ {wait} second"
    "[s]][ {wait2:span}][asked to send its requests as one batch][turned away][admitted][blocked]"
    " because"
)
STATUS = (200, 429, 429, 503, 403)
LEAD = (
    "<stage> decided: <words>.",
    "<stage> decided: risk {risk}.",
    "<stage> decided: risk {risk} played no part: at any other it would have been <done> too.",
    "<stage> decided: risk {risk}, below the {cut} from which it would have been <done>.",
    "<stage> decided: [<service> was short of room; ]risk {risk}, at or above the"
    " {cut} from which this request is <done>.",
    "<stage> decided: risk {risk} played no part: at any below {cut} it would have been <done>"
    " too.",
    "<stage> decided: it was worth {worth} and serving it cost {cost} just then[; from a worth of"
    " {enough} on, it would not have been <done>].",
    "<stage> decided: its bucket had no room at risk {risk}; below {cut} it would have been"
    " <done>.",
)


def test_every_number_of_the_opening_is_in_the_record(everything) -> None:
    found: Counter[str] = Counter()
    for one in everything:
        marks = replay.threshold(one.event, one.config)
        told = verdict.write_story(one.decision, "It", marks, [])
        true = truths(one) | {"status": Truth(float(STATUS[one.event.action]))}
        check([CHIP], told.chip, true)
        check(HTTP, told.http, true)
        opening = told.verdict.partition(" because ")[0] + " because"
        check([ACT], opening, true)
        found[check_lead(one, told.lead, true)] += 1
        # the heading of its reasons says the same
        if "played no part" in told.lead:
            assert not verdict.risk_mattered(one.decision, marks)
        elif "at or above" in told.lead:
            assert verdict.risk_mattered(one.decision, marks)
    assert all(found[pattern] for pattern in (LEAD[0], *LEAD[2:]))


def check_lead(one: Recorded, lead: str, true: dict[str, Truth]) -> str:
    changes = records.changes_of(one) if one.event.risk is not None else []
    risk = one.event.risk or 0.0
    below = max((c for c in changes if c <= risk), default=math.nan)
    above = min((c for c in changes if c > risk), default=math.nan)
    _, shown = read(LEAD, lead)
    cut = below if "at or above" in lead or "no room" in lead else above
    enough = least_worth(one) if "just then" in lead else math.nan
    pattern = check(LEAD, lead, true | {"cut": Truth(cut, "unlike"), "enough": Truth(enough)})
    if "cut" in shown:
        assert same_order(shown["risk"], shown["cut"], risk, cut) or risk == cut, lead
    if "any other risk" in lead:
        assert not changes
    return pattern


def least_worth(one: Recorded) -> float:
    """The worth from which on the policy function gives another action, by small steps."""
    rules, value = policy.rules_of(one.config), one.event.value
    signals = np.array([*one.seen.values()])

    def action(more: float) -> int:
        return int(policy.decide(signals, one.features, one.event.risk, value + more, rules)[0])

    step = next(k for k in range(1, 20_000) if action(k / 2_000) != one.event.action)
    low, high = (step - 1) / 2_000, step / 2_000
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if action(middle) == one.event.action else (low, middle)
    return 0.5 + value + high


def test_the_labels_of_the_scale_stand_on_the_right_side_of_the_risk(everything) -> None:
    seen = 0
    for one in everything:
        changes = records.changes_of(one) if one.event.risk is not None else []
        marks = replay.threshold(one.event, one.config)
        drawn = page.bands(marks, one.event.risk)
        starts = np.array([band.start for band in drawn])
        # the scan here is coarser than a band that is a ten thousandth wide
        assert all(np.abs(starts - change).min() < 1e-9 for change in changes)
        risk = page.scale_figures(one.event.risk, [band.start for band in drawn])[0]
        for band in drawn[1:]:
            assert same_order(risk, band.start_text, one.event.risk, band.start)
            assert band.text in ("", f"{band.word.capitalize()} {band.start_text}")
            seen += 1
        # the threshold that the page tells the decision by is always labelled
        marked = page.cut_of(one.decision, marks)
        if marked is not None and marked.at > 0.0:
            named = page.bands(marks, one.event.risk, marked.at)
            assert all(band.text for band in named if band.start == marked.at)
    assert seen > 500


def test_a_number_that_is_not_in_the_record_is_found(everything) -> None:
    """The check itself can fail: another figure, one more, and one rounded the wrong way."""
    one = next(o for o in everything if o.event.ml_state == MlState.LIVE and o.event.risk)
    true = truths(one) | {"tokens": Truth(0.97, "down"), "rate": Truth(12_500.0, "exact")}
    for pattern, text in (
        ("{tokens} left", "1 left"),
        ("{tokens} left", "0 left of 3"),
        ("{rate}/s", "1.25e+04/s"),
        ("{rate}/s", "12,600/s"),
        ("{wait:span}", "59 min"),
    ):
        with pytest.raises(AssertionError):
            check([pattern], text, true | {"wait": Truth(3_600.0, "up")})
    check(["{tokens} left"], "0 left", true)
    check(["{wait:span}"], "2 m 3 s", {"wait": Truth(122.4, "up")})
    assert Action.ADMIT == 0
