"""No text for a customer tells what must not be told: no score, no limit of others and no sign of
abuse.
"""

from __future__ import annotations

import itertools
import re
import string
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts import features
from decider.contracts.vocabulary import (
    REASONS,
    STAGE_LABELS,
    Action,
    Reason,
    Stage,
)
from decider.refusal.causes import CAUSES, SIGNS_OF_ABUSE
from decider.refusal.findings import findings, told
from decider.refusal.true_cause import ABUSE_CODES, told_code
from explain.text import customer, customer_catalogue
from explain.text.customer import CustomerCase
from explain.text.customer_catalogue import Cause
from tests.explain.customer_cases import (
    CODES,
    FORBIDDEN,
    a_case,
    is_safe,
    records,
    stored,
    stripped,
    texts,
)

OF_EACH_KIND = ("", "STRANGE_HIGH", "PACE_10S_HIGH", "NOT_FOUND_HIGH")
"""No code, one of another version, one that is told, and one that is kept back."""
ABUSE_WORDS = re.compile(
    r"sign-?in|declin|not exist|endpoints?|addresses|resources?|writes?|evenly"
    r" spaced|clockwork|new app",
    re.IGNORECASE,
)
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
        "hurried",
        "batch",
        "batch_helps",
        "late",
    }
    assert set(customer.collect_facts(a_case())) == customer_catalogue.FIELDS


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


@given(records())
def test_nothing_that_must_not_be_told_changes_a_text(found) -> None:
    first, second, code = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(customer.documents, "config", lambda version: None)
        told = [customer.build_case(stored(e), "Order sync", code) for e in (first, second)]
    assert texts(told[0]) == texts(told[1])
    for text in texts(told[0]):
        is_safe(text, told[0])


def test_a_sign_of_abuse_that_weighs_most_is_never_hidden_behind_another_finding() -> None:
    assert told_code(["ABUSE_HISTORY_HIGH", "PACE_10S_HIGH"]) == ""
    assert told_code(["AGE_LOW", "PACE_10S_HIGH"]) == ""
    assert told_code(["PACE_10S_HIGH", "ABUSE_HISTORY_HIGH"]) == "PACE_10S_HIGH"
    assert told_code([]) == ""


@given(order=st.permutations(sorted(customer_catalogue.FINDINGS)))
def test_of_any_codes_the_one_that_is_told_may_be_and_hides_no_sign_of_abuse(
    order: list[str],
) -> None:
    for k in range(1, 5):
        code = told_code(order[:k])
        assert not code or (
            order[0] not in ABUSE_CODES and customer_catalogue.FINDINGS[code] != Cause.UNSAID
        )


def test_the_words_for_staff_would_not_pass_as_words_for_customers() -> None:
    """The check can fail: it finds what staff may read."""
    for text in ("ML ranking decided: risk 0.81", "Usual in training: 3.5", *STAGE_LABELS.values()):
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
