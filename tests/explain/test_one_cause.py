"""Staff, response, receipt and reply tell one cause of a refusal, its strongest, with numbers that
its record holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from msgspec import structs

from decider.contracts.config import Config
from decider.contracts.features import FEATURES, INDEX, Feature
from decider.contracts.requests import Decision as Answered
from decider.contracts.signals import INDEX as S
from decider.contracts.vocabulary import Action, Reason, Tier
from decider.http import responses
from decider.refusal.causes import OF_REASON
from decider.refusal.findings import typical
from decider.refusal.receipt import keys_of, open_sealed
from decider.refusal.true_cause import TOLD_AS, find_true_cause, told_code
from decider.whatif import replay
from decider.whatif.moves import COUNTED
from decisions import reason_text
from explain.recourse import search as recourse_search
from explain.shap import waterfall
from explain.text import customer, reason_codes, verdict
from explain.text.customer_catalogue import Cause
from explain.text.reason_codes import ReasonCode
from learning.traffic.services import Slowdown
from learning.traffic.simulate import Scenario
from learning.training import train
from tests.explain import refusals, world
from tests.explain.customer_cases import FAMILY
from tests.explain.refusals import Refusal

SLOW = tuple(Slowdown(name, 10.0, 100.0, 20.0, 0.1) for name in ("orders", "search"))
CROWD = Scenario(
    seed=11,
    start=train.MONDAY + 8 * 3600.0,
    seconds=30.0,
    warm_up=1.0,
    apps=400,
    rate=80.0,
    abusive_apps=0.3,
    slowdowns=SLOW,
)
BEHAVIOUR = {"request", "counters", "feedback"}
ANSWERS_600S = {
    f"{kind}_share_600s" for kind in ("client_error", "auth_error", "not_found", "unusual_answer")
}
A_WAIT = re.compile(r"\bwait|Retry-After|retry_after", re.IGNORECASE)


class Told(NamedTuple):
    """A refusal and all that is said of it."""

    refusal: Refusal
    config: Config
    contributions: np.ndarray
    fall: waterfall.Waterfall
    usual: list[float]
    reasons: list[ReasonCode]
    headline: str
    said: customer.CustomerTexts
    case: customer.CustomerCase
    usual_raises: list[tuple[str, float]]
    """Features that raised the risk at a usual value, with their risk points."""

    @property
    def value(self) -> np.ndarray:
        return np.frombuffer(self.refusal.event.features, "<f4")

    @property
    def signal(self) -> dict[str, float]:
        seen = np.frombuffer(self.refusal.event.signals, "<f8")
        return {name: float(seen[k]) for name, k in S.items()}

    @property
    def by_risk(self) -> bool:
        e = self.refusal.event
        return e.reason == Reason.RISK_HIGH and e.action != Action.SHED


def tell(one: Refusal, config: Config) -> Told:
    model, d = world.model(), one.decision
    row = np.frombuffer(one.event.features, "<f4")
    usual = typical(model.artifact, d.tier)
    contributions = model.explainer.values(row[None, :])[0]
    fall = waterfall.build_waterfall(
        model.explainer.base, contributions, row, usual, model.artifact.risk_calibration
    )
    reasons = reason_codes.rank_reasons(fall) if d.raw_risk is not None else []
    code = told_code([reason.code for reason in reasons])
    case = customer.build_case(d, "Order sync", code)
    raises = reason_codes.list_usual(fall) if reasons else []
    headline = verdict.write_story(d, "It", None, reasons, raises).verdict
    said = customer.write_texts(case)
    return Told(one, config, contributions, fall, usual, reasons, headline, said, case, raises)


@pytest.fixture(scope="module")
def everything() -> Iterator[list[Told]]:
    """A few hundred refusals by the engine: some of a usual policy, some of one that blocks."""
    found, documents = [], {}
    for version, harm in ((1, 1.0), (2, 12.0)):
        some, config = refusals.play(world.model(), CROWD, version, harm)
        documents[version] = config
        found += [(one, config) for one in some]
    with pytest.MonkeyPatch.context() as patch:
        for module in (reason_text, customer):
            patch.setattr(module.documents, "config", documents.get)
        yield [tell(one, config) for one, config in found]


def strongest(told: Told) -> tuple[str, Feature] | None:
    """The cause whose strongest three features together weigh most, and the strongest of these, of
    those that read otherwise than usual in training; None where nothing does that raised the risk.
    """
    best, found = 0.0, None
    for cause in {f.cause for f in FEATURES}:
        members = [k for k, f in enumerate(FEATURES) if f.cause == cause]
        # what is usual is no reason of this one
        raising = sorted(
            (k for k in members if told.contributions[k] > 0 and not is_usual(told, k)),
            key=lambda k: -told.contributions[k],
        )
        lowering = sum(told.contributions[k] for k in members if told.contributions[k] < 0)
        named = []
        for k in raising:
            says = says_pace(told, k)
            if told.contributions[k] < told.contributions[raising[0]] / 3.0 or any(
                says * says_pace(told, other) < 0 for other in named
            ):
                continue
            named.append(k)
        named = named[:3]
        whole = lowering + sum(told.contributions[k] for k in raising)
        weight = min(whole, sum(told.contributions[k] for k in named))
        if weight > best:
            best, found = weight, (cause, FEATURES[named[0]])
    return found


def says_pace(told: Told, k: int) -> int:
    """1 where a value says that the app was faster than usual, -1 for slower, 0 for neither."""
    name, above = FEATURES[k].name, not told.value[k] < told.usual[k]
    if name == "seconds_since_last":
        return -1 if above else 1
    paces = ("rate_", "pace_over_", "cost_rate_")
    return (1 if above else -1) if name.startswith(paces) else 0


def is_usual(told: Told, k: int) -> bool:
    value = float(told.value[k])
    return math.isnan(value) or reads_alike(FEATURES[k], value, told.usual[k])


# -- numbers, read back without the code that wrote them

SPANS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def is_shown(feature: Feature, text: str, value: float) -> bool:
    """Whether `text` is `value`, to the precision that it shows."""
    if feature.unit == "hour":
        day, hour = text.split()
        return DAYS.index(day) * 24 + int(hour[:2]) == int(value)
    if feature.unit == "level":
        return text == Tier(int(value)).word
    if feature.unit == "flag":
        return (text == "yes") == (value >= 0.5)
    number, unit = re.fullmatch(r"([\d.,e+-]+) ?(\D*)", text).groups()
    shown, digits = float(number.replace(",", "")), number.partition(".")[2]
    scale = {"%": 0.01, "years": 365.0}.get(unit, 1.0)
    scale = SPANS[unit] if feature.unit == "seconds" else scale
    within = 0.5 * 10.0 ** -len(digits)
    if feature.unit not in ("share", "count") and number.lstrip("0.").replace(".", ""):
        # two significant digits below a hundred
        within = max(within, 0.05 * 10.0 ** math.floor(math.log10(shown) if shown else 0))
        within = within if shown < 100 else 0.5
    true = 2.0**value if feature.unit == "bits" else value / scale
    return abs(shown - true) <= within * 1.001


def reads_alike(feature: Feature, value: float, usual: float) -> bool:
    """Whether a value is what was usual: by a fifth of it, or as it is written."""
    number = feature.unit not in ("hour", "level", "flag")
    return (number and abs(value - usual) <= 0.2 * abs(usual)) or any(
        is_shown(feature, text, value) and is_shown(feature, text, usual)
        for text in [reason_codes.format_value(feature, usual)]
    )


def check_sentence(told: Told, reason: ReasonCode, text: str) -> None:
    """Every figure in a sentence about a feature is that of the record; no other stands there."""
    k = INDEX[reason.feature.name]
    wanted = reason.feature.high if reason.code.endswith("_HIGH") else reason.feature.low
    wanted = re.escape(wanted).replace(r"\{value\}", "(?P<value>.+?)")
    if round(float(told.value[k])) == 1:
        # about one: `test_one_of_a_kind_is_written_in_the_singular` reads these sentences
        wanted = re.sub(r"(?<=[a-z])(es|s)\b", r"(?:\1)?", wanted)
        for several, one in (
            ("were", "was"),
            ("do", "does"),
            ("repeat", "repeats"),
            ("they", "it"),
        ):
            wanted = re.sub(rf"\b{several}\b", rf"(?:{several}|{one})", wanted)
    text = text.removesuffix(" The model counts that against it here.")
    found = re.fullmatch(wanted + r"( Usual in training: (?P<typical>.+)\.)?", text)
    assert found, (wanted, text)
    value, few = re.fullmatch(r"(.+?)(?: \(of about (\d+)\))?", found["value"]).groups()
    assert is_shown(reason.feature, value, float(told.value[k])), text
    check_few(told, reason.feature, few)
    assert (found["typical"] is not None) == (told.usual[k] == told.usual[k]), text
    typical = {"verified": "yes", "not verified": "no"}.get(found["typical"], found["typical"])
    assert not typical or is_shown(reason.feature, typical, told.usual[k]), text


def check_few(told: Told, feature: Feature, few: str | None) -> None:
    """A share of less than ten is told with their number too, and no other one is."""
    count = count_behind(told, feature.name)
    if not 0.0 < count < 10.0:
        assert few is None
        return
    assert int(few) == pytest.approx(count, abs=0.501) or int(few) == 1 > count


def count_behind(told: Told, name: str) -> float:
    """How many requests or answers a share is of, 0 where the record cannot tell."""

    def value(of: str) -> float:
        return float(told.value[INDEX[of]])

    if name in ("write_share_600s", "sign_in_share_600s"):
        return max(0.0, value("rate_600s") * 600.0)
    if name == "write_share_60s":
        return max(0.0, value("rate_60s") * 60.0)
    if name in COUNTED:
        pairs = [(name, COUNTED[name])]
    elif name in ("error_share_60s", "server_error_share_60s"):
        kinds = ("client", "auth")
        pairs = [(f"{kind}_error_share_60s", f"{kind}_errors_60s") for kind in kinds]
        pairs += [("not_found_share_60s", "not_found_60s")]
        pairs += [("payment_error_share_60s", "payment_errors_60s")]
    elif name in ANSWERS_600S:
        pairs = [("client_error_share_600s", "client_errors_600s")]
        pairs += [("unusual_answer_share_600s", "unusual_answers_600s")]
    else:
        return 0.0
    known = ((value(share), value(of)) for share, of in pairs)
    return next((some / part for part, some in known if part > 0.0 and some > 0.0), 0.0)


def check_clause(told: Told, reason: ReasonCode, clause: str) -> None:
    """The clause tells the reason's feature, then each of its others."""
    measures = {
        re.sub(r"_\d+s$", "", r.feature.name) for r in (reason, *reason.others) if reason.others
    }
    if len(measures) == 1:  # one fact over several spans
        clause, same, _ = clause.partition("; the same over ")
        assert same
        check_one(told, reason, clause)
        return
    if clause.endswith(same := "; these count as writes, too"):
        told_of = {one.feature.name: one for one in (reason, *reason.others)}
        assert set(told_of) - {"write_share_60s", "write_share_600s"} == {"sign_in_share_600s"}
        assert len({one.shown_value for one in told_of.values()}) == 1
        check_one(told, told_of["sign_in_share_600s"], clause.removesuffix(same))
        return
    for one in reason.others[::-1]:
        clause, joined, last = clause.rpartition(f" {one.first[0].lower()}{one.first[1:]}")
        assert joined, (clause, one.first)
        check_one(told, one, joined.strip() + last)
        clause = re.sub(r"(, and|; and|;)$", "", clause)
    check_one(told, reason, clause)


def check_one(told: Told, reason: ReasonCode, clause: str) -> None:
    k = INDEX[reason.feature.name]
    first = reason.text.split(". ")[0].rstrip(".")
    assert clause.lower().startswith(first.lower()), (clause, first)
    rest = clause[len(first) :]
    odd = ", which the model counts against it here"
    assert rest.endswith(odd) == reason.unexpected
    rest = rest.removesuffix(odd)
    if times := re.fullmatch(r", ([\d.,]+) times what was usual in training", rest):
        shown = float(times[1].replace(",", ""))
        near = 0.51 if shown >= 10 else 0.051
        assert shown == pytest.approx(float(told.value[k]) / told.usual[k], abs=near)
    elif usual := re.fullmatch(r", usual in training (.+)", rest):
        assert is_shown(reason.feature, usual[1], told.usual[k]), clause
    else:
        assert not rest, clause


# -- the headline


def is_behaviour(feature: Feature) -> bool:
    return feature.source in BEHAVIOUR and feature.cause != "STANDING"


def test_the_headline_names_the_strongest_reason(everything) -> None:
    ranked = [told for told in everything if told.by_risk]
    assert len(ranked) > 300
    alone = both = heavier = 0
    for told in ranked:
        if (found := strongest(told)) is None:
            assert told.headline.endswith("because its risk is too high for what it is worth.")
            continue
        (cause, feature), lead = found, told.reasons[0]
        assert (lead.feature.cause, lead.feature.name) == (cause, feature.name)
        mostly, weightier = split_weightier(told.headline.removesuffix("."))
        usual = max((each for label, each in told.usual_raises if label != "Tier"), default=0.0)
        assert weightier == (
            "" if usual < lead.effect else "as" if usual == lead.effect else "more"
        )
        heavier += bool(weightier)
        mostly, _, added = mostly.partition("; its behaviour added: ")
        assert not added or not is_behaviour(feature)
        mostly, much, also = re.split(r"(?:; (as|nearly as) much because )|$", mostly, maxsplit=1)
        assert ("most of all because " in mostly) == bool(added and not weightier and not also)
        check_clause(told, lead, mostly.partition("because ")[2])
        if added:
            behaviour = [
                r for r in told.reasons[1:] if is_behaviour(r.feature) and not r.unexpected
            ]
            further = behaviour[0]
            check_one(told, further, added)
        if also:
            assert told.reasons[1].effect >= 0.9 * lead.effect
            assert (much == "as") == (told.reasons[1].effect == lead.effect)
            check_clause(told, told.reasons[1], also)
        alone += not added
        both += bool(also)
    assert alone / len(ranked) >= 0.8
    assert both > 0 and heavier > 0


def split_weightier(headline: str) -> tuple[str, str]:
    """A headline without what it says of usual values, and how much they weighed beside it."""
    rest, much, _ = re.split(
        r"; “[^”]+”, at a usual value, raised its risk (as much|more)"
        r" (?:as|than) that$|$",
        headline,
        maxsplit=1,
    )
    return rest, (much or "").partition(" ")[0]


def test_a_shed_names_the_service_to_all_and_staff_why_it_was_this_request(everything) -> None:
    """Risk chose whom to turn away, but with room nobody would have been."""
    short = {"service_price": 0.6, "service_utilisation": 1.2, "tenant_usage": 9.9}
    seen = {f"seen_{name}": value for name, value in short.items()}
    made = [
        world.decided(row, tier=tier, seen_tenant_fair_share=10.0, seen_tokens=100.0, **seen)
        for row in world.rows(400, seed=5, missing=False)
        for tier in Tier
    ]
    shed = [e for e in made if (e.action, e.reason) == (Action.SHED, Reason.RISK_HIGH)]
    assert len(shed) > 5
    for e in shed:
        told = tell(Refusal(e, Answered(e.id, 3, 3, 31, 1.0, 1, 1, 0, 1.0)), everything[0].config)
        assert "was at 120% of its capacity, and its risk put it behind others: " in told.headline
        check_clause(told, told.reasons[0], told.headline.partition("others: ")[2].rstrip("."))
        assert told.said.cause == Cause.CHOSEN
        codes = [reason.code for reason in told.reasons]
        assert find_true_cause(Action.SHED, Reason.RISK_HIGH, codes).code == "SERVICE"


def test_a_share_of_none_is_told_as_the_services_shortage_and_older_records_still_replay() -> None:
    """Higher tiers took all there was: no tenant used much of anything."""
    short = {"service_price": 1.5, "service_utilisation": 1.2, "tenant_usage": 0.4}
    seen = {f"seen_{name}": value for name, value in short.items()}
    made = [
        world.decided(row, tier=tier, seen_tenant_fair_share=0.0, seen_tokens=100.0, **seen)
        for row in world.rows(60, seed=5, missing=False)
        for tier in Tier
    ]
    assert Reason.TENANT_OVER_SHARE not in {e.reason for e in made}
    told = [e for e in made if e.reason == Reason.SERVICE_OVERLOADED]
    assert len(told) > 20
    for e in told:
        older = structs.replace(e, reason=int(Reason.TENANT_OVER_SHARE))
        assert replay.decide_again(older, world.config(), None).identical
        other = structs.replace(e, reason=int(Reason.VALUE_LOW))
        assert not replay.decide_again(other, world.config(), None).identical


# -- one cause


def test_staff_response_receipt_and_reply_agree_on_the_cause(everything) -> None:
    told_some, untold = 0, 0
    for told in everything:
        e, answered = told.refusal
        action, reason = Action(e.action), Reason(e.reason)
        if told.by_risk:
            if (found := strongest(told)) is None:
                assert not answered.told and told.said.cause == Cause.UNSAID
                continue
            true, feature = found
            side = (
                "LOW"
                if told.value[INDEX[feature.name]] < told.usual[INDEX[feature.name]]
                else "HIGH"
            )
            may = f"{feature.code}_{side}" in TOLD_AS
        else:
            true = "SERVICE" if reason == Reason.RISK_HIGH else OF_REASON[reason]
            may = true not in ("LEGAL", "LISTED", "HELD")
        receipt = open_sealed(answered.receipt, keys_of([refusals.KEY]))
        codes = [r.code for r in told.reasons]
        assert find_true_cause(receipt.action, receipt.reason, receipt.codes).code == true
        assert find_true_cause(action, reason, codes).code == true
        assert [code for code, _ in answered.told] == ([true] if may else [])
        by_receipt = customer.find_cause(customer.build_receipt_case(receipt))
        for cause in (told.said.cause, by_receipt):
            assert (true in FAMILY[cause].split()) if may else cause == Cause.UNSAID
        told_some, untold = told_some + may, untold + (not may)
    assert told_some > 100 and untold > 5


# -- a wait


def test_a_block_promises_a_wait_nowhere(everything) -> None:
    blocks = [told for told in everything if told.refusal.event.action == Action.BLOCK]
    assert len(blocks) > 50
    written = responses.Answers(0.0)
    for told in blocks:
        e, answered = told.refusal
        assert e.retry_after == answered.retry_after == 0.0
        texts = [told.headline, told.said.reply, told.said.line, told.said.api]
        texts += [reason.text for reason in told.reasons if "wait" not in reason.feature.high]
        texts.append(written.check(answered, 0).partition("\r\n\r\n")[2])
        for text in texts:
            assert not A_WAIT.search(text.replace("the wait they were told", "")), text
    for told in blocks[:40]:
        way = recourse_search.find_recourse(told.refusal.event, told.config, world.model())
        assert not any(c.lever == "wait" for w in (*way.ways, *way.missed) for c in w.changes)
        assert "wait" not in " ".join(w.sentence for w in way.ways)


# -- numbers


def test_no_reason_has_the_usual_value(everything) -> None:
    rows = [reason for told in everything for reason in told.reasons]
    assert len(rows) > 600
    assert not [r.text for r in rows if r.shown_value == r.shown_typical]
    assert not [
        r.text for r in rows if r.typical and reads_alike(r.feature, float(r.value), r.typical)
    ]


def test_every_number_of_a_reason_is_in_the_record(everything) -> None:
    for told in everything:
        for reason in told.reasons:
            text = reason.text
            for one in reason.others[::-1]:
                check_sentence(told, one, one.text)
                text = text.removesuffix(one.text).rstrip()
            check_sentence(told, reason, text)
            check_less(told, reason)


def check_less(told: Told, reason: ReasonCode) -> None:
    """What the table shows of the features told, less what others of their cause took off, is what
    the reason weighs.
    """
    named = (reason.feature, *(one.feature for one in reason.others))
    table = sum(told.fall.effect(told.contributions[INDEX[f.name]]) for f in named)
    said = re.fullmatch(
        re.escape(reason.text) + r"(?: Others of its kind took (.+) off\.)?", reason.whole_text
    )
    off = float(said[1]) if said[1] else 0.0
    # each feature of the table is rounded by itself
    assert table - off == pytest.approx(reason.effect, abs=0.005 * (len(named) + 2) + 1e-9)


def test_every_number_of_a_rule_is_in_the_record(everything) -> None:
    seen = 0
    for told in everything:
        if told.by_risk:
            continue
        signal, text = told.signal, told.headline.partition("because ")[2]
        for pattern, true in (
            (r"at (\d+)% of its capacity", signal["service_utilisation"] * 100),
            (r"its price was ([\d.]+)", signal["service_price"]),
            (
                r"used ([\d.]+) times its fair share",
                signal["tenant_usage"] / (signal["tenant_fair_share"] or math.nan),
            ),
            (r"its burst of ([\d,]+) requests", signal["bucket_burst"]),
        ):
            if found := re.search(pattern, text):
                digits = len(found[1].partition(".")[2])
                shown = float(found[1].replace(",", ""))
                assert shown == pytest.approx(true, abs=0.51 * 10.0**-digits), text
                seen += 1
    assert seen > 5


def test_every_number_of_a_reply_is_in_the_record(everything) -> None:
    for told in everything:
        e, signal = told.refusal.event, told.signal
        wait = math.ceil(e.retry_after)
        body = json.loads(told.said.api)
        assert body.get("retry_after", 0) == wait == told.case.wait_s
        reply = told.said.reply.partition("Reference:")[0]
        reply = re.sub(r"At \d\d:\d\d:\d\d UTC on \d+ \w+ \d+", "", reply)
        reply = re.sub(r"(GET|POST|PUT|DELETE) /\S+", "", reply)
        # in words it is the whole wait: 20 minutes 40 seconds
        spoken = rf"{wait // 60} minutes" + (rf" {wait % 60} seconds?" if wait % 60 else "")
        reply = re.sub(spoken, "", reply) if 120 <= wait < 3_600 else reply
        allowed = [
            *(float(body["status"]), float(wait)),
            *(signal["bucket_rate"], signal["bucket_burst"], signal["quota_limit"]),
            float(told.value[INDEX["rate_10s"]]),
        ]
        for text in re.findall(r"\d[\d,]*(?:\.\d+)?", reply):
            shown = float(text.replace(",", ""))
            assert any(shown == pytest.approx(true, rel=0.05) for true in allowed), (text, reply)


def test_a_way_back_names_the_share_that_it_lowers(everything) -> None:
    """Not the share of early retries: the lever lowers all that is sent while refused."""
    shares = ("refused_share_60s", "retry_share_60s", "early_retry_share_60s")
    seen = 0
    for told in [t for t in everything if max(t.value[INDEX[n]] for n in shares) > 0.05][:60]:
        way = recourse_search.find_recourse(told.refusal.event, told.config, world.model())
        for one in (*way.ways, *way.missed):
            for change in one.changes:
                if change.lever == "retries":
                    true = max(float(told.value[INDEX[name]]) for name in shares)
                    assert change.before == pytest.approx(true)
                    assert "refused or repeat" in one.sentence
                    seen += 1
    assert seen or len(everything) > 300
