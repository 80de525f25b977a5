"""Every number that a customer is told, by reply, response or receipt, is that of the record; and
every number of a way back is a change that was verified as it reads.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from msgspec import structs

from decider.contracts.features import FEATURES, INDEX
from decider.contracts.vocabulary import HTTP_STATUS, Action, Reason, Stage
from decider.refusal.receipt import Receipt
from decider.scoring.model import Model
from decider.whatif import replay
from explain.recourse import search
from explain.text import customer
from explain.text import receipt as receipt_text
from explain.text.customer_catalogue import CAUSE_TEXTS, LATE, LINE_END, NOW, REFERENCE, WHAT
from tests.explain import records, world
from tests.explain.records import Recorded
from tests.explain.sentences import Truth, agrees, as_number, as_seconds, check, read

CODES = ("", "PACE_10S_HIGH", "BURST_HIGH", "RETRIES_HIGH", "NOT_FOUND_HIGH")


@pytest.fixture(scope="module")
def everything() -> Iterator[tuple[Recorded, ...]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(customer.documents, "config", records.documents().get)
        yield records.every()


# -- what customers are told

SPOKEN = re.compile(r"\d+ (?:second|minute|hour|day)s?(?: \d+ (?:second|minute|hour)s?)?")
SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
FIGURES = {"status", "wait", "rate", "burst", "quota", "pace"}


def sentence(template: str) -> str:
    """A text of the catalogue as a pattern: its figures by name, its other fields as words."""
    for name in re.findall(r"\{(\w+)\}", template):
        if name not in FIGURES:
            template = template.replace(f"{{{name}}}", f"<{name}>")
    return template


def told(one: Recorded) -> dict[str, Truth]:
    seen = one.seen
    action = Action.ADMIT if one.event.observed else Action(one.event.action)
    return {
        "status": Truth(float(HTTP_STATUS[action])),
        "wait": Truth(float(one.wait_s)),
        "rate": Truth(seen["bucket_rate"], "exact"),
        "burst": Truth(seen["bucket_burst"], "exact"),
        "quota": Truth(seen["quota_limit"], "exact"),
        "pace": Truth(float(one.features[INDEX["rate_10s"]]), "exact"),
    }


def facts(one: Recorded, case: customer.CustomerCase) -> list[str]:
    """The fields that are not figures, as the record has them."""
    at = one.decision.at
    when = f"{at:%H:%M:%S} UTC on {at.day} {at:%B %Y}"
    return [when, case.reference, case.app_name, case.batch]


def check_wait(text: str, wait_s: int) -> int:
    """Every wait in words is the one that was answered, never shorter. Return how many."""
    found = SPOKEN.findall(text)
    # in whole seconds below an hour, whole minutes below a day
    step = 1 if wait_s < 3_600 else 60 if wait_s < 86_400 else 3_600
    for words in found:
        parts = re.findall(r"(\d+) ([a-z]+?)s?\b", words)
        shown = sum(int(count) * SECONDS[unit] for count, unit in parts)
        assert wait_s <= shown < wait_s + step, (text, wait_s)
    return len(found)


def test_every_number_that_a_customer_is_told_is_in_the_record(everything) -> None:
    seen: Counter[str] = Counter()
    for n, one in enumerate(everything):
        case = customer.build_case(one.decision, "Order sync", CODES[n % len(CODES)])
        said, true = customer.write_texts(case), told(one)
        action = customer.find_answer(case)
        cause = CAUSE_TEXTS[said.cause]
        for text in (said.reply, said.line):
            seen["wait"] += check_wait(text, one.wait_s)
        known = [why for why in (cause.why, cause.why_known) if why]
        late = f"[ {LATE}]"
        whole = [f"{WHAT[action]} {why}{late}" for why in known]
        parts = said.reply.split("\n\n")
        left = list(parts)
        for fact in sorted(filter(None, facts(one, case)), key=len, reverse=True):
            left = [part.replace(fact, "…") for part in left]
        left = [SPOKEN.sub("a while", part) for part in left]
        pattern = check([sentence(text) for text in whole], left[0], true)
        assert not re.search(r"\d", " ".join(left[1:])), said.reply
        assert parts[-1] == REFERENCE.format(reference=one.decision.name)
        line = SPOKEN.sub("a while", said.line)
        check([sentence(f"{cause.line}{LINE_END[action]}")], line, true)
        _, shown = read([sentence(text) for text in whole], left[0])
        if "pace" in shown:
            assert as_number(shown["pace"]) > as_number(shown["rate"]), said.reply
        seen.update(shown.keys())
        seen[pattern] += 1
        check_api(one, said)
    assert all(seen[name] for name in FIGURES)
    assert NOW[Action.ADMIT] == ""


def check_api(one: Recorded, said: customer.CustomerTexts) -> None:
    body = json.loads(said.api)
    observed = one.event.observed
    assert body["status"] == (200 if observed else HTTP_STATUS[Action(one.event.action)])
    assert body.get("retry_after", 0) == (0 if observed else one.wait_s)
    assert (body["detail"], body["decision"]) == (said.line, one.decision.name)
    rest = {k: v for k, v in body.items() if k not in ("status", "retry_after", "detail")}
    assert not re.search(r"\d", json.dumps(rest | {"decision": ""}).replace("v2/orders", "")), rest


def test_a_receipt_tells_the_wait_that_was_answered_and_no_other_number(everything) -> None:
    for n, one in enumerate(everything):
        e = one.event
        if e.action == Action.ADMIT or e.observed:
            continue
        receipt = Receipt(
            decision=e.id,
            at=e.at,
            app="a" * 16,
            action=Action(e.action),
            stage=Stage(e.stage),
            reason=Reason(e.reason),
            retry_after=one.wait_s,
            codes=tuple(filter(None, [CODES[n % len(CODES)]])),
            config_version=e.config_version,
            model=e.model[:8],
        )
        case = customer.build_receipt_case(receipt)
        said = customer.write_texts(case)
        left = said.reply
        for fact in facts(one, case)[:2]:
            left = left.replace(fact, "…")
        check_wait(left, one.wait_s)
        left = SPOKEN.sub("a while", left)
        figures = re.findall(r"\d+", left)
        allowed = {str(HTTP_STATUS[Action(e.action)]), str(one.wait_s)}
        assert set(figures) <= allowed, said.reply
        check_api(one, said)
        cause = receipt_text.write_cause(receipt)
        for feature in FEATURES:
            cause = cause.replace(feature.label, "")
        assert not re.search(r"\d", cause)


# -- the way back

WAYS = {
    "wait": "[A][a]fter waiting {level:span}",
    "spread": "[W][w]ith the same requests spread over time, at no more than {level} request[s] a"
    " <per> instead of {before} request[s] a <per> at its fastest",
    "pace": "[A][a]t {level} request[s] a <per>, spread over time, instead of {before} request[s] a"
    " <per> at its fastest",
    "day": "[A][a]t {level} request[s] a <per> over the whole day instead of {before} request[s] a"
    " <per>",
    "batch": "[W][w]ith {level} items in each call[ of POST /v2/orders:batchGet]",
    "retries": "[S][s][ending nothing more once refused, instead of going on until {before}% of"
    " its requests were refused or repeated refused ones][W][w][ith {level}% of its requests"
    " refused or repeating refused ones instead of {before2}%]",
    "errors": "[W][w]ith[out 4xx answers, which were {before}%][ {level}% of its answers 4xx"
    " instead of {before2}%]",
    "resources": "[A][a]sking for {level} different path[s] in two minutes instead of {before}",
    "paths": "[A][a]sking for no more than {level} different path[s] in twenty minutes instead of"
    " at least {before}",
    "credentials": "[W][w]ith {level} credential[s] in two minutes instead of {before}",
    "addresses": "[S][s]ending from {level} IP address[es] in two minutes instead of {before}",
}
TOLD = " The response said {told:span}"
OUTCOMES = (
    ", this request would have been admitted[, if <service> recovers as expected].",
    ", it would still have been <done>[, if <service> recovers as expected].",
    ", it would have been <done> instead[, if <service> recovers as expected].",
)
TAILS = (
    f"[{TOLD}, for the quota alone. Other limits hold longer.]"
    f"[{TOLD.replace('told:', 'told2:')}, which holds if the app sends nothing meanwhile. The"
    " record lacks some of the decider's counters, so from it only {wait:span} is certain.]"
    "[ It is on the edge: with a little more of the same it would have been refused again.]"
)


AT_ONCE = " With all of it at once it would [still ]have been <done>: risk {risk}"
NONE = (
    "<words>.",
    f"<words>.{AT_ONCE}, at or above the {{cut}} from which it is <done>. <words>.",
    f"<words>.{AT_ONCE}, and <done> at any lower risk too. <words>.",
)


def pace_before(one: Recorded) -> float:
    """The fastest pace of a second, ten or a minute that more than this request made."""
    found = {w: float(one.features[INDEX[f"rate_{w}s"]]) for w in (1, 10, 60)}
    return max(
        [0.0 if math.isnan(found[60]) else found[60]]
        + [pace for window, pace in found.items() if pace * window > 1.5]
    )


def before(one: Recorded, lever: str) -> float:
    x = {name: float(np.nan_to_num(one.features[k])) for name, k in INDEX.items()}
    return {
        "spread": lambda: pace_before(one),
        "pace": lambda: pace_before(one),
        "day": lambda: (
            x["quota_used"] * one.seen["quota_limit"] / max(1.0, 86_400.0 - one.seen["quota_reset"])
        ),
        "retries": lambda: max(
            x[name] for name in ("refused_share_60s", "retry_share_60s", "early_retry_share_60s")
        ),
        "errors": lambda: x["client_error_share_60s"],
        "resources": lambda: x["distinct_paths_60s"],
        "paths": lambda: max(
            math.ceil(2.0 ** x["path_entropy_600s"] - 1e-6), round(x["distinct_paths_60s"])
        ),
        "credentials": lambda: x["distinct_tokens_60s"],
        "addresses": lambda: x["distinct_sources_60s"],
        "batch": lambda: 1.0,
        "wait": lambda: 0.0,
    }[lever]()


def clause(lever: str, number: int) -> str:
    """The pattern of one change, its figures numbered."""
    return re.sub(r"\{(\w+?)(\d?)(:span)?\}", rf"{{\1_{number}_\2\3}}", WAYS[lever])


def check_way(one: Recorded, way: search.Way) -> None:
    changes = " and ".join(clause(c.lever, k) for k, c in enumerate(way.changes))
    _, shown = read([f"{changes}{end}{TAILS}" for end in OUTCOMES], way.sentence)
    told_s = 0 if one.event.observed else math.ceil(one.event.retry_after)
    for name, figure in shown.items():
        if name.startswith("told"):
            assert agrees(figure, Truth(float(told_s), "up")), (figure, way.sentence)
            continue
        if name == "wait":
            waited = next(c.after for c in way.changes if c.lever == "wait")
            assert agrees(figure, Truth(waited, "up")), (figure, way.sentence)
            continue
        kind, k, _ = name.split("_")
        change = way.changes[int(k)]
        true = before(one, change.lever) if kind == "before" else change.after
        if change.lever == "wait":
            assert agrees(figure, Truth(true, "up")), (figure, way.sentence)
            continue
        # both paces of a sentence are in the unit of the faster one
        faster = max(true, change.before, change.after)
        scale = scale_of(change.lever, way.sentence, figure, faster)
        assert agrees(figure, Truth(true * scale)), (name, figure, true, way.sentence)
        assert kind == "level" or change.before == pytest.approx(true, rel=1e-6)


def scale_of(lever: str, sentence: str, figure: str, true: float) -> float:
    """What a figure is multiplied by in its unit: percent, or a minute where it is slower than one
    a second.
    """
    if lever in ("retries", "errors"):
        assert f"{figure}%" in sentence
        return 100.0
    if lever in ("spread", "pace", "day"):
        unit = "second" if true >= 0.9995 else "minute"
        assert re.search(rf"\b{re.escape(figure)} requests? a {unit}\b", sentence), sentence
        return 1.0 if unit == "second" else 60.0
    return 1.0


def as_read(one: Recorded, way: search.Way) -> tuple[search.Change, ...]:
    """The changes of a way with the levels that its sentence says."""
    pattern = " and ".join(clause(c.lever, k) for k, c in enumerate(way.changes))
    _, shown = read([f"{pattern}{end}{TAILS}" for end in OUTCOMES], way.sentence)
    found = []
    for k, change in enumerate(way.changes):
        figure = shown.get(f"level_{k}_")
        # a share of none at all is told in words
        level = 0.0
        if figure and change.lever == "wait":
            level = as_seconds(figure)
        elif figure:
            level = as_number(figure) / scale_of(
                change.lever, way.sentence, figure, max(change.before, change.after)
            )
        found.append(search.Change(change.lever, change.label, change.before, level, change.unit))
    return tuple(found)


def refusals(everything: tuple[Recorded, ...], most: int) -> list[Recorded]:
    """Refusals of every reason, the most of each alike."""
    by: Counter[tuple[int, int]] = Counter()
    found = []
    for one in everything:
        key = (one.event.reason, one.event.config_version)
        if one.event.action != Action.ADMIT and len(one.event.signals) == 8 * len(one.seen):
            by[key] += 1
            if by[key] <= most:
                found.append(one)
    return found


def model() -> Model:
    return world.model()


def test_every_number_of_a_way_back_is_in_the_record_and_admits_as_it_reads(everything) -> None:
    levers: Counter[str] = Counter()
    for one in refusals(everything, 12):
        found = search.find_recourse(one.event, one.config, model())
        for way in (*found.ways, *found.missed):
            check_way(one, way)
            levers.update(change.lever for change in way.changes)
        for way in found.ways:
            record = search.apply_changes(one.event, one.config, as_read(one, way))
            again = replay.decide_under(record, one.config, model())
            assert again.action == Action.ADMIT, (way.sentence, way.changes)
            if way.risk is not None and again.risk is not None:
                assert again.risk == pytest.approx(way.risk, abs=0.01), way.sentence
        if found.none:
            true = at_once(one) if "With all of it" in found.none else {}
            check(NONE, found.none, true)
    assert {"wait", "pace", "spread"} <= set(levers)


def at_once(one: Recorded) -> dict[str, Truth]:
    """The risk with every lever at its end, as the search found it, and where its action begins."""
    case = search._Case(one.event, one.config, model())
    levels = {
        lever.name: search.grid.list_levels(
            lever.name, case.x, case.s, bool(case.batch), one.event.reason
        )
        for lever in search.LEVERS
        if lever.name != "batch" and (lever.name != "wait" or Action(one.event.action).waits)
    }
    pulls = [
        (search.BY_NAME[name], levels[name][-1:])
        for name in search.grid.order_levers(name for name in levels if len(levels[name]))
    ]
    _, risks = case.decide(*case.moved(*pulls))
    record = search._record(case, tuple((lever.name, float(at[0])) for lever, at in pulls))
    again = replay.decide_under(record, one.config, model())
    scored = structs.replace(record, risk=again.risk, value=again.value)
    begins = [c for c in records.changes_of(Recorded(scored, one.config)) if c <= risks[0]]
    cut = Truth(max(begins, default=math.nan), "unlike")
    return {"risk": Truth(float(risks[0]), "unlike"), "cut": cut}
