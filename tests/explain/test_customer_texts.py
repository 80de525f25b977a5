"""What a customer is told is there for every decision and true to its cause, alike in response,
receipt and reply.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.pages.decision import page as decision_page
from decider.contracts import features
from decider.contracts.artifact import Calibration
from decider.contracts.requests import Decision as Answered
from decider.contracts.vocabulary import (
    REASONS,
    Action,
    Reason,
    Stage,
)
from decider.http import responses
from decider.refusal.causes import OF_REASON
from decider.refusal.findings import findings, told
from decider.refusal.receipt import Receipt
from decider.refusal.true_cause import TOLD_AS, told_code
from explain.shap import waterfall
from explain.text import customer, customer_catalogue
from explain.text.customer_catalogue import Cause
from tests.decisions.factory import event
from tests.explain.customer_cases import AT, CODES, FAMILY, a_case, is_safe, records, stored


def test_every_cause_that_is_no_finding_is_in_the_catalogue_and_no_other() -> None:
    assert set(customer_catalogue.OF_RULE) == {*OF_REASON.values(), ""}
    assert set(customer_catalogue.CAUSE_TEXTS) == set(Cause)
    for by_action in (customer_catalogue.WHAT, customer_catalogue.NOW, customer_catalogue.LINE_END):
        assert set(by_action) == set(Action)


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
            "Please retry after 5 hours 34 minutes.",
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
        ({"reason": Reason.VALUE_LOW}, "Our service was busy and served other requests first."),
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
        "title": "Not served now",
        "status": 429,
        "detail": "",
        "decision": "dec_" + "0a" * 16,
        "retry_after": 4,
        "batch": "POST /v2/orders:batchGet",
    }


def test_an_app_that_comes_back_early_is_not_told_that_nothing_need_change() -> None:
    busy = {"reason": Reason.SERVICE_OVERLOADED, "stage": Stage.RERANK}
    patient, hurried = (
        customer.write_texts(a_case(hurried=h, **busy)).reply for h in (False, True)
    )
    assert "does not need to change" in patient
    assert "does not need to change" not in hurried
    assert "were sent again before Retry-After had passed" in hurried
    # a block tells no wait, so nothing is said of one
    blocked = a_case(hurried=True, action=Action.BLOCK, wait_s=0, **busy)
    assert "wait" not in customer.write_texts(blocked).reply


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
        (120, "2 minutes"),
        (135, "2 minutes 15 seconds"),
        (7200, "2 hours"),
    ],
)
def test_a_wait_is_spoken_rounded_up(seconds: int, words: str) -> None:
    assert customer.collect_facts(a_case(wait_s=seconds))["wait_words"] == words


def test_nobody_is_advised_to_send_a_batch_that_is_refused_too() -> None:
    case = a_case(action=Action.BATCH, batch="POST /v2/orders:batchGet", wait_s=194)
    helps = customer.write_texts(case)
    useless = customer.write_texts(replace(case, batch_helps=False))
    assert "POST /v2/orders:batchGet" in helps.reply and "in one request" in helps.line
    for text in (useless.reply, useless.line):
        assert "retry after 3 minutes 14 seconds" in text or "wait 3 minutes 14 seconds" in text
        assert "batch" not in text and "in one request" not in text
    # the response was what it was
    assert json.loads(useless.api)["type"] == json.loads(helps.api)["type"]


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
