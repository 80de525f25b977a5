"""What a customer is told is there for every decision, is true to its cause, and tells nothing that
must not be told.
"""

from __future__ import annotations

import itertools
import json
import re
import string
import uuid
from dataclasses import fields, replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.pages.decision import page as decision_page
from decider.contracts import features, signals
from decider.contracts.artifact import Calibration
from decider.contracts.requests import Decision as Answered
from decider.contracts.vocabulary import (
    HTTP_STATUS,
    REASONS,
    STAGE_LABELS,
    Action,
    Arm,
    MlState,
    Reason,
    Stage,
    Tier,
)
from decider.http import responses
from decider.refusal.causes import CAUSES, OF_REASON, SIGNS_OF_ABUSE
from decider.refusal.findings import findings, told
from decider.refusal.receipt import Receipt
from decider.refusal.true_cause import ABUSE_CODES, TOLD_AS, told_code
from decisions.models import Decision, utc
from explain.shap import waterfall
from explain.text import customer, customer_catalogue
from explain.text.customer import CustomerCase
from explain.text.customer_catalogue import Cause
from tests.decisions.factory import event

AT = datetime(2025, 11, 18, 14, 21, 36, tzinfo=UTC)
CODES = [
    "",
    "STRANGE_HIGH",
    *(f"{f.code}_{side}" for f in features.FEATURES for side in ("HIGH", "LOW")),
]
OF_EACH_KIND = ("", "STRANGE_HIGH", "PACE_10S_HIGH", "NOT_FOUND_HIGH")
"""No code, one of another version, one that is told, and one that is kept back."""
FORBIDDEN = re.compile(
    r"\b(scor\w*|threshold\w*|risk\w*|models?|shap|machine.learning|ml|peers?|similar|other"
    r" apps|cohort\w*|percentile\w*|median|"
    r"tiers?|free|standard|premium|enterprise|triage|rank\w*|re-?rank\w*|guard|fallback|overrid\w*|rule"
    r" engine|abus\w*|fraud\w*|"
    r"chargeback\w*|bots?|scrap\w*|scan\w*|credential\w*|tokens?|passwords?|block.?list\w*|allow.?list\w*|kill|switch\w*|features?|"
    r"deciders?|config\w*|nodes?|canary|shadow|tenants?|prices?|utility|harm\w*|error.budget|observe\w*|sampl\w*|weight\w*|"
    r"probabilit\w*|suspici\w*|detect\w*|verified|history|verdict|dispute\w*)\b",
    re.IGNORECASE,
)
ABUSE_WORDS = re.compile(
    r"sign-?in|declin|not exist|endpoints?|addresses|resources?|writes?|evenly"
    r" spaced|clockwork|new app",
    re.IGNORECASE,
)


def a_case(**given) -> CustomerCase:
    base = {
        "action": Action.DEFER,
        "stage": Stage.RANK,
        "reason": Reason.RISK_HIGH,
        "wait_s": 4,
        "reference": "dec_" + "0a" * 16,
    }
    return CustomerCase(**(base | {"at": AT} | given))


def texts(case: CustomerCase) -> list[str]:
    said = customer.write_texts(case)
    return [said.reply, said.line, said.api]


def stripped(text: str, case: CustomerCase) -> str:
    """A text without the facts it was filled with, and without the members of the response that the
    customer has already.
    """
    told = [
        *customer.collect_facts(case).values(),
        f'"status": {HTTP_STATUS[customer.find_answer(case)]}',
        f'"retry_after": {case.wait_s}',
    ]
    told += re.findall(r'"type": "urn:[a-z:]+"', text)
    for fact in sorted((t for t in told if t), key=len, reverse=True):
        text = text.replace(fact, " ")
    return text


def is_safe(text: str, case: CustomerCase) -> None:
    left = stripped(text, case)
    assert text
    assert not re.search(r"\d", left), (case, text)
    assert not FORBIDDEN.search(left), (FORBIDDEN.search(left), case, text)
    assert "nan" not in left.lower().split()


CHECKED: set[str] = set()
"""Texts that were looked at; most combinations share theirs."""
EVERY = list(itertools.product(Stage, Reason, Action))
OWN = [(info.stage, reason, action) for reason, info in REASONS.items() for action in Action]
"""Each reason at the stage that gives it, with every action."""


# a code matters at most where stage and reason go together: strange pairs are tried without one
# and with one of each kind
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("known", [True, False], ids=["record", "receipt"])
def test_every_combination_has_texts_that_tell_nothing_forbidden(code: str, known: bool) -> None:
    figures = (
        {
            "rate": 15.0,
            "burst": 300.0,
            "quota": 2e6,
            "pace": 42.0,
            "spent": True,
            "app_name": "Order sync",
        }
        if known
        else {}
    )
    for stage, reason, action in EVERY if code in OF_EACH_KIND else OWN:
        for observed in (False, True):
            case = a_case(
                stage=stage,
                reason=reason,
                action=action,
                code=code,
                observed=observed,
                **figures,
            )
            for text in texts(case):
                if text not in CHECKED:
                    is_safe(text, case)
                    CHECKED.add(text)


def test_the_catalogue_holds_no_figure_and_only_the_allowed_fields() -> None:
    every = [t for words in customer_catalogue.CAUSE_TEXTS.values() for t in words]
    every += [
        *customer_catalogue.WHAT.values(),
        *customer_catalogue.NOW.values(),
        *customer_catalogue.LINE_END.values(),
    ]
    every += [
        customer_catalogue.BATCH_KNOWN,
        customer_catalogue.REFERENCE,
        customer_catalogue.REVIEW,
    ]
    for text in every:
        named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        assert named <= customer_catalogue.FIELDS, text
        assert not re.search(r"\d", text)
        assert not FORBIDDEN.search(re.sub(r"{\w+}", "", text)), text


def test_a_case_can_carry_nothing_that_must_not_be_told() -> None:
    allowed = {
        "action",
        "stage",
        "reason",
        "wait_s",
        "reference",
        "at",
        "observed",
        "app_name",
        "code",
        "spent",
    }
    assert {f.name for f in fields(CustomerCase)} == allowed | {
        "rate",
        "burst",
        "quota",
        "pace",
        "batch",
    }
    assert set(customer.collect_facts(a_case())) == customer_catalogue.FIELDS


def test_every_cause_that_is_no_finding_is_in_the_catalogue_and_no_other() -> None:
    assert set(customer_catalogue.OF_RULE) == {*OF_REASON.values(), ""}
    assert set(customer_catalogue.CAUSE_TEXTS) == set(Cause)
    for by_action in (customer_catalogue.WHAT, customer_catalogue.NOW, customer_catalogue.LINE_END):
        assert set(by_action) == set(Action)


def test_every_finding_of_the_registry_is_told_or_kept_back_on_purpose() -> None:
    assert set(customer_catalogue.FINDINGS) == {
        f"{f.code}_{side}" for f in features.FEATURES for side in ("HIGH", "LOW")
    }
    for feature in features.FEATURES:
        if feature.name in SIGNS_OF_ABUSE or feature.source in ("profile", "clock"):
            for side in ("HIGH", "LOW"):
                assert customer_catalogue.FINDINGS[f"{feature.code}_{side}"] == Cause.UNSAID, (
                    feature.name
                )


def test_nothing_is_told_here_that_the_response_itself_keeps_back() -> None:
    """The response carries causes of its own (`decider.refusal.causes`); the reply never goes
    beyond them.
    """
    for feature in features.FEATURES:
        cause = CAUSES[feature.cause]
        for side, sentence in (("HIGH", cause.high), ("LOW", cause.low)):
            assert (
                sentence or customer_catalogue.FINDINGS[f"{feature.code}_{side}"] == Cause.UNSAID
            ), feature.name


@pytest.mark.parametrize(
    ("codes", "cause"),
    [
        ((), Cause.UNSAID),
        (("PACE_10S_HIGH", "ERRORS_HIGH"), Cause.PACE),
        (("AGE_LOW", "PACE_10S_HIGH"), Cause.UNSAID),
        (("AGE_LOW", "TIER_HIGH", "PACE_10S_HIGH"), Cause.UNSAID),
        (("AGE_LOW", "TIER_HIGH"), Cause.UNSAID),
        (("NOT_FOUND_HIGH", "PACE_10S_HIGH"), Cause.UNSAID),
        (("OF_ANOTHER_VERSION_HIGH", "RETRIES_HIGH"), Cause.RETRIES),
    ],
)
def test_a_receipt_alone_is_enough_for_a_text(codes: tuple[str, ...], cause: Cause) -> None:
    receipt = Receipt(
        decision=event().id,
        at=AT.timestamp(),
        action=Action.DEFER,
        stage=Stage.RANK,
        reason=Reason.RISK_HIGH,
        retry_after=4,
        config_version=1,
        model="",
        app="",
        codes=codes,
    )
    case = customer.build_receipt_case(receipt)
    said = customer.write_texts(case)
    assert said.cause == cause
    assert "Please retry after 4 seconds." in said.reply
    is_safe(said.reply, case)


def test_a_new_feature_without_a_place_in_the_catalogue_fails_at_import(monkeypatch) -> None:
    new = replace(features.FEATURES[0], name="brand_new", code="BRAND_NEW")
    monkeypatch.setattr(customer_catalogue, "FEATURES", (*features.FEATURES, new))
    with pytest.raises(KeyError, match="brand_new"):
        customer_catalogue._findings()


@pytest.mark.parametrize(
    "code", sorted(c for c, cause in customer_catalogue.FINDINGS.items() if cause == Cause.UNSAID)
)
@pytest.mark.parametrize("action", [Action.DEFER, Action.BATCH, Action.BLOCK])
def test_a_refusal_about_abuse_is_honest_and_names_no_sign_of_it(code: str, action: Action) -> None:
    said = customer.write_texts(a_case(code=code, action=action))
    assert (
        "Our automatic protection did not let it through. We cannot say more about why"
        in said.reply
    )
    assert "a person will look at it" in said.reply
    assert not ABUSE_WORDS.search(stripped(said.reply, a_case(code=code, action=action)))
    assert (
        said.reply == customer.write_texts(a_case(code="ABUSE_HISTORY_HIGH", action=action)).reply
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {
                "reason": Reason.QUOTA_EXHAUSTED,
                "stage": Stage.GUARD,
                "quota": 2e6,
                "wait_s": 20_000,
            },
            "No more of the daily quota of your plan, 2,000,000 requests, can be given out today",
        ),
        (
            {"reason": Reason.LEASE_AWAITED, "stage": Stage.GUARD, "quota": 2e6},
            "the next part was not at hand yet",
        ),
        (
            {"reason": Reason.QUOTA_EXHAUSTED, "stage": Stage.GUARD, "wait_s": 20_000},
            "Please retry after about 6 hours.",
        ),
        (
            {"reason": Reason.COMPLIANCE, "stage": Stage.GUARD, "action": Action.BLOCK},
            "A legal rule",
        ),
        (
            {"reason": Reason.BLOCK_LISTED, "stage": Stage.GUARD, "action": Action.BLOCK},
            "Our team has stopped requests",
        ),
        (
            {"reason": Reason.OVERRIDE_REFUSE, "stage": Stage.OVERRIDE, "action": Action.SHED},
            "by hand",
        ),
        (
            {
                "reason": Reason.TOKENS_EMPTY,
                "stage": Stage.FALLBACK,
                "rate": 15.0,
                "burst": 300.0,
                "spent": True,
            },
            "a burst of 300 requests, refilled at 15 a second",
        ),
        (
            {"reason": Reason.TOKENS_EMPTY, "stage": Stage.FALLBACK},
            "More requests had arrived than your plan allows at once",
        ),
        (
            {"reason": Reason.SERVICE_OVERLOADED, "stage": Stage.RERANK, "action": Action.SHED},
            "Our service was busy and could not",
        ),
        (
            {"reason": Reason.TENANT_OVER_SHARE, "stage": Stage.RERANK},
            "the apps of your organisation together",
        ),
        (
            {"code": "PACE_10S_HIGH", "rate": 15.0, "pace": 42.0},
            "about 42 a second, where your allowance is refilled at 15 a",
        ),
        (
            {"code": "PACE_10S_HIGH", "rate": 15.0, "pace": 12.0},
            "how quickly requests from your app were arriving.",
        ),
        ({"code": "RETRIES_HIGH"}, "wait as long as the Retry-After field says"),
        ({"code": "RETRIES_LOW"}, "We cannot say more about why"),
        ({"action": Action.SHED, "code": "RETRIES_HIGH"}, "put other requests first"),
        ({"reason": Reason.VALUE_LOW}, "Our automatic protection put other requests first."),
        ({"reason": Reason.RISK_LOW}, "We cannot say more about why"),
        (
            {"observed": True, "code": "ABUSE_HISTORY_HIGH"},
            "was accepted. No limit was applied to it.",
        ),
        (
            {"action": Action.ADMIT, "stage": Stage.TRIAGE, "reason": Reason.HARMLESS, "wait_s": 0},
            "was accepted",
        ),
        (
            {"action": Action.BATCH, "batch": "POST /v2/orders:batchGet"},
            "Use POST /v2/orders:batchGet to send many items",
        ),
        ({"action": Action.BLOCK, "wait_s": 0}, "Sending the same request again will not help"),
    ],
)
def test_the_text_differs_as_the_cause_differs(given: dict, said: str) -> None:
    assert said in customer.write_texts(a_case(**given)).reply


@pytest.mark.parametrize("code", CODES)
def test_whoever_is_blocked_is_told_that_a_person_can_look_at_it_once(code: str) -> None:
    for reason, (stage, _) in REASONS.items():
        reply = customer.write_texts(
            a_case(stage=stage, reason=reason, action=Action.BLOCK, wait_s=0, code=code)
        ).reply
        assert reply.count("a person will") == 1, reply


def test_whoever_is_asked_to_batch_is_not_asked_for_less_at_a_time() -> None:
    for code in ("REQUEST_COST_HIGH", "PAYLOAD_HIGH"):
        reply = customer.write_texts(
            a_case(action=Action.BATCH, code=code, batch="POST /v2/orders:batchGet")
        ).reply
        assert "for less" not in reply
        assert "send less" not in reply


def test_what_must_not_be_retried_names_no_wait() -> None:
    said = customer.write_texts(a_case(action=Action.BLOCK, wait_s=0))
    assert "wait" not in f"{said.line}{said.api}"
    assert "retry_after" not in json.loads(said.api)


def test_the_api_error_has_the_members_of_the_response() -> None:
    body = json.loads(customer.write_texts(a_case(batch="POST /v2/orders:batchGet")).api)
    assert body | {"detail": ""} == {
        "type": "urn:sluice:problem:defer",
        "title": "Too many requests",
        "status": 429,
        "detail": "",
        "decision": "dec_" + "0a" * 16,
        "retry_after": 4,
        "batch": "POST /v2/orders:batchGet",
    }


def test_a_hostile_name_stays_on_its_line_and_is_never_a_template() -> None:
    said = customer.write_texts(
        a_case(app_name="x\n\nReference: {wait} \u202eevil\x00" + "y" * 500)
    )
    assert "“x Reference: {wait} evil" in said.reply
    assert said.reply.count("\n\n") == 2
    assert max(len(line) for line in said.reply.splitlines()) < 700


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "about 2 minutes"),
        (121, "about 3 minutes"),
        (7200, "about 2 hours"),
    ],
)
def test_a_wait_is_spoken_rounded_up(seconds: int, words: str) -> None:
    assert customer.collect_facts(a_case(wait_s=seconds))["wait_words"] == words


def stored(e) -> Decision:
    return Decision(**(msgspec.structs.asdict(e) | {"id": uuid.UUID(bytes=e.id), "at": utc(e.at)}))


TOLD_SIGNALS = ("bucket_rate", "bucket_burst", "quota_limit", "tokens", "service_price")
FINITE = st.floats(-1e6, 1e9, width=32)


@st.composite
def records(draw):
    """Two stored decisions that agree in all that may be told, and differ at random in all the
    rest.
    """
    reason = draw(st.sampled_from(Reason))
    kept = {
        "action": draw(st.sampled_from([int(a) for a in Action])),
        "reason": int(reason),
        "stage": int(REASONS[reason].stage),
        "observed": draw(st.booleans()),
        "retry_after": draw(st.floats(0, 86_400)),
        "method": "GET",
        "endpoint": "/v2/orders/{id}",
        "at": 1_763_476_327.0,
    }
    pace = draw(FINITE)
    told = {name: draw(st.floats(0, 1e7)) for name in TOLD_SIGNALS}

    def one():
        luck = np.random.default_rng(draw(st.integers(0, 2**32)))
        row = luck.lognormal(0, 4, features.N_FEATURES).astype(np.float32)
        row[features.INDEX["rate_10s"]] = pace
        seen = luck.lognormal(0, 4, signals.N_SIGNALS)
        for name, value in told.items():
            seen[signals.INDEX[name]] = value
        secret = draw(st.floats(0, 1))
        return event(
            **kept,
            features=row.tobytes(),
            signals=seen.tobytes(),
            risk=secret,
            value=secret,
            raw_risk=secret,
            raw_value=secret,
            model=draw(st.sampled_from(["", "8c1f9a52" * 8])),
            arm=draw(st.sampled_from([int(a) for a in Arm])),
            ml_state=draw(st.sampled_from([int(s) for s in MlState])),
            tier=draw(st.sampled_from([int(t) for t in Tier])),
            tenant=draw(st.text(max_size=9)),
            token_digest=draw(st.sampled_from(["", "9f20" * 8])),
            node=draw(st.text(max_size=9)),
            region=draw(st.text(max_size=9)),
            service=draw(st.text(max_size=9)),
            inclusion_probability=draw(st.floats(0.01, 1)),
            request_id=draw(st.text(max_size=9)),
            config_version=draw(st.integers(1, 9)),
        )

    first, second = one(), one()
    return first, msgspec.structs.replace(second, id=first.id), draw(st.sampled_from(CODES))


@given(records())
def test_nothing_that_must_not_be_told_changes_a_text(found) -> None:
    first, second, code = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(customer.documents, "config", lambda version: None)
        told = [customer.build_case(stored(e), "Order sync", code) for e in (first, second)]
    assert texts(told[0]) == texts(told[1])
    for text in texts(told[0]):
        is_safe(text, told[0])


@given(records())
def test_the_wait_that_is_told_is_the_one_that_was_answered(found) -> None:
    made = found[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(customer.documents, "config", lambda version: None)
        case = customer.build_case(stored(made))
    answered = Answered(
        made.id,
        made.action,
        made.stage,
        made.reason,
        made.retry_after,
        limit=1,
        window=1,
        remaining=0,
        reset=1.0,
    )
    assert case.wait_s == responses.retry_after(answered)


def test_a_sign_of_abuse_that_weighs_most_is_never_hidden_behind_another_finding() -> None:
    assert told_code(["ABUSE_HISTORY_HIGH", "PACE_10S_HIGH"]) == ""
    assert told_code(["AGE_LOW", "PACE_10S_HIGH"]) == ""
    assert told_code(["PACE_10S_HIGH", "ABUSE_HISTORY_HIGH"]) == "PACE_10S_HIGH"
    assert told_code([]) == ""


FAMILY = {
    Cause.QUOTA: "QUOTA",
    Cause.QUOTA_PART: "LEASE",
    Cause.ALLOWANCE: "PACE",
    Cause.PACE: "PACE",
    Cause.BURST: "PACE",
    Cause.WORK: "PACE SIZE",
    Cause.BUSY: "SERVICE",
    Cause.CHOSEN: "SERVICE",
    Cause.OUR_ERRORS: "SERVICE",
    Cause.SHARE: "TENANT",
    Cause.ERRORS: "ERRORS",
    Cause.RETRIES: "RETRIES",
    Cause.SIZE: "SIZE",
    Cause.BEHIND: "VALUE",
    Cause.UNKNOWN: "UNKNOWN_APP",
    # told by a person alone
    Cause.LEGAL: "",
    Cause.BARRED: "",
    Cause.HELD: "",
    Cause.UNSAID: "",
}
"""The codes of the response that go with each cause of a reply."""
ODDS = st.lists(
    st.one_of(st.floats(-2, 2), st.just(0.0)),
    min_size=features.N_FEATURES,
    max_size=features.N_FEATURES,
)
ROW = st.lists(
    st.floats(0, 10, width=32), min_size=features.N_FEATURES, max_size=features.N_FEATURES
)


def explained(
    contributions: list[float], row: list[float], usual: list[float]
) -> decision_page.Explained:
    made = np.array(contributions), np.array(row, np.float32)
    return decision_page.Explained(
        "ready", fall=waterfall.build_waterfall(-1.0, *made, usual, Calibration(1.0, 0.0))
    )


@given(
    contributions=ODDS,
    row=ROW,
    usual=ROW,
    action=st.sampled_from([a for a in Action if a != Action.ADMIT]),
    reason=st.sampled_from([Reason.RISK_HIGH, Reason.RISK_HIGH, *OF_REASON]),
    spent=st.booleans(),
)
def test_body_receipt_and_reply_tell_one_cause(
    contributions, row, usual, action, reason, spent
) -> None:
    found = findings(contributions, row, usual)
    body = told(action, reason, found)
    receipt = Receipt(
        decision=event().id,
        at=AT.timestamp(),
        action=action,
        stage=REASONS[reason].stage,
        reason=reason,
        retry_after=4,
        config_version=1,
        model="",
        app="",
        codes=tuple(f.code for f in found),
    )
    code = told_code(explained(contributions, row, usual).codes)
    reply = a_case(
        action=action, reason=reason, stage=REASONS[reason].stage, code=code, spent=spent
    )
    if reason == Reason.RISK_HIGH:
        assert customer.find_cause(customer.build_receipt_case(receipt)) == customer.find_cause(
            reply
        )
    for case in (customer.build_receipt_case(receipt), reply):
        family = FAMILY[customer.find_cause(case)]
        assert (body[0][0] in family.split()) if body else family == ""


@given(order=st.permutations(sorted(customer_catalogue.FINDINGS)))
def test_of_any_codes_the_one_that_is_told_may_be_and_hides_no_sign_of_abuse(
    order: list[str],
) -> None:
    for k in range(1, 5):
        code = told_code(order[:k])
        assert not code or (
            order[0] not in ABUSE_CODES and customer_catalogue.FINDINGS[code] != Cause.UNSAID
        )


def test_the_response_and_the_reply_tell_the_same_findings() -> None:
    assert {
        code for code, cause in customer_catalogue.FINDINGS.items() if cause != Cause.UNSAID
    } == set(TOLD_AS)


def test_a_low_worth_is_told_as_itself_whatever_the_allowance_was() -> None:
    low = {"reason": Reason.VALUE_LOW, "stage": Stage.RANK}
    assert (
        customer.find_cause(a_case(**low, spent=True))
        == Cause.BEHIND
        == customer.find_cause(a_case(**low))
    )


def test_while_the_explanation_is_pending_the_reply_names_no_cause() -> None:
    assert decision_page.Explained("pending").codes == []
    assert (
        customer.find_cause(a_case(code=told_code(decision_page.Explained("pending").codes)))
        == Cause.UNSAID
    )


def test_the_words_for_staff_would_not_pass_as_words_for_customers() -> None:
    """The check can fail: it finds what staff may read."""
    for text in ("ML ranking decided: risk 0.81", "Similar apps send 3.5", *STAGE_LABELS.values()):
        assert FORBIDDEN.search(text), text


def test_the_response_tells_no_sign_of_abuse_that_the_reply_keeps_back() -> None:
    """Where one weighs most, both tell nothing; where one comes later, the response leaves it
    out.
    """
    values, nothing = [1.0] * len(features.FEATURES), [0.0] * len(features.FEATURES)
    for sign in SIGNS_OF_ABUSE:
        most, later = nothing.copy(), nothing.copy()
        most[features.INDEX[sign]], most[features.INDEX["rate_10s"]] = 2.0, 1.0
        later[features.INDEX[sign]], later[features.INDEX["rate_10s"]] = 1.0, 2.0
        assert told(Action.DEFER, Reason.RISK_HIGH, findings(most, values, None)) == ()
        assert [
            code for code, _ in told(Action.DEFER, Reason.RISK_HIGH, findings(later, values, None))
        ] == ["PACE"]
