"""Reasons are grouped by cause, told to clients in words that are safe to tell, and found within a
budget.
"""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.config import ListEntry
from decider.contracts.features import FEATURES, INDEX, N_FEATURES, format_value
from decider.contracts.requests import Decision
from decider.contracts.vocabulary import Action, Reason, Stage, Tier
from decider.refusal import client, findings
from decider.refusal.causes import CAUSES, OF_REASON, TELLING
from decider.refusal.client import BURST_S, EARLIER_S, RESERVE, SHARE, Basis, Budget, Teller
from decider.refusal.receipt import Key, keys_of, open_sealed
from decider.refusal.true_cause import ABUSE_CODES, TOLD_AS, TrueCause
from tests.decider.model import small_model
from tests.decider.test_engine import NOW, ask, engine, of_tier, with_model

KEY = b"k" * 32
BURST = (
    "rate_1s",
    "rate_10s",
    "rate_60s",
    "burst_ratio",
    "gap_cv",
    "cost_rate_60s",
    "seconds_since_last",
)


def values(**some: float) -> list[float]:
    """SHAP values or feature values in registry order, 0 but for some."""
    found = [0.0] * N_FEATURES
    for name, value in some.items():
        found[INDEX[name]] = value
    return found


# -- the registry
# ---------------------------------------------------------------------


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
def test_every_feature_has_its_texts_and_a_cause(feature) -> None:
    assert feature.label and feature.code.isascii() and feature.code == feature.code.upper()
    assert feature.cause in CAUSES
    figures = {"value": format_value(feature, 0.37), "typical": format_value(feature, 0.11)}
    for text in (feature.high, feature.low):
        assert (len(text) > 20 and text[0].isupper()) or text.startswith("{value}")
        assert text.endswith(".")
        told = text.format(**figures)
        assert "{" not in told
        assert set(re.findall(r"{(\w+)}", text)) <= set(figures)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("endpoint_entropy_60s", 0.0, "1 place"),
        ("endpoint_entropy_60s", 1.0, "2 places"),
        ("app_age", 1.0, "1 day"),
        ("app_age", 1.04, "1 day"),
        ("app_age", 1.1, "1.1 days"),
        ("app_age", 0.0, "0 days"),
        ("app_age", 730.0, "2 years"),
    ],
)
def test_one_of_something_is_written_in_the_singular(name: str, value: float, text: str) -> None:
    assert format_value(FEATURES[INDEX[name]], value) == text


def test_no_two_features_have_a_code_or_a_text_in_common() -> None:
    codes = [feature.code for feature in FEATURES]
    assert len(set(codes)) == len(codes)
    for feature in FEATURES:
        others = {text for f in FEATURES if f is not feature for text in (f.high, f.low)}
        assert not {feature.high, feature.low} & others


def test_every_cause_has_a_feature_or_a_reason_and_a_name_of_its_own() -> None:
    assert {feature.cause for feature in FEATURES} | set(OF_REASON.values()) == set(CAUSES)
    assert len({cause.label for cause in CAUSES.values()}) == len(CAUSES)
    told = [text for cause in CAUSES.values() for text in {cause.high, cause.low} if text]
    assert len(set(told)) == len(told) > 5
    untold = {code for code in OF_REASON.values() if not CAUSES[code].high}
    assert untold == {"LEGAL", "LISTED", "HELD"}  # a person tells these


ADMITS = {
    Reason.NONE,
    Reason.ALLOW_LISTED,
    Reason.OVERRIDE_ADMIT,
    Reason.HARMLESS,
    Reason.RISK_LOW,
    Reason.VALUE_HIGH,
    Reason.ERROR_BUDGET_SPENT,
    Reason.WAITED,
    Reason.TOKENS_LEFT,
}


def test_every_reason_that_refuses_has_a_cause() -> None:
    """Without one the customer reads that we cannot say more. A risk's cause is its features'."""
    assert set(OF_REASON) == set(Reason) - ADMITS - {Reason.RISK_HIGH}


def test_what_a_customer_is_told_holds_no_score_threshold_peer_or_sign_of_abuse() -> None:
    forbidden = re.compile(
        r"\d|risk|score|threshold|model|abus|similar|other app|average|median|suspic|fraud|block"
        r" ?list",
        re.I,
    )
    for cause in CAUSES.values():
        assert not forbidden.search(cause.high + cause.low), cause.code
    assert not any(
        CAUSES[code].high or CAUSES[code].low
        for code in ("IDENTITY", "STANDING", "HISTORY", "CLOCK", "FEEDBACK")
    )


# -- findings
# ---------------------------------------------------------------------


def test_one_burst_is_told_once() -> None:
    contributions = values(**dict.fromkeys(BURST, 0.5), auth_error_share_60s=0.4, app_age=0.2)
    found = findings.findings(contributions, [1.0] * N_FEATURES, None)
    assert [f.feature.cause for f in found] == ["PACE", "ERRORS", "STANDING"]
    assert found[0].weight == pytest.approx(0.5 * findings.MOST_MEMBERS)
    assert len(found[0].members) == findings.MOST_MEMBERS
    assert {FEATURES[k].name for k in found[0].members} <= set(BURST)


def test_a_finding_that_its_own_cause_outweighs_is_none() -> None:
    assert findings.findings(values(rate_1s=0.5, rate_60s=-0.6), [1.0] * N_FEATURES, None) == []


def test_what_is_unknown_is_no_finding() -> None:
    unknown = values()
    unknown[INDEX["tier"]] = np.nan
    assert findings.findings(values(tier=0.5), unknown, None) == []


def test_the_code_says_which_way_the_value_stood_out() -> None:
    usual = [2.0] * N_FEATURES
    for value, code in ((3.0, "PACE_10S_HIGH"), (1.0, "PACE_10S_LOW")):
        assert [
            f.code for f in findings.findings(values(rate_10s=1.0), values(rate_10s=value), usual)
        ] == [code]


NUMBERS = st.lists(
    st.one_of(st.floats(-3, 3), st.just(0.0)), min_size=N_FEATURES, max_size=N_FEATURES
)


@given(
    contributions=NUMBERS,
    row=st.lists(st.floats(allow_infinity=False), min_size=N_FEATURES, max_size=N_FEATURES),
)
def test_findings_are_few_adverse_and_each_of_another_cause(
    contributions: list[float], row: list[float]
) -> None:
    found = findings.findings(contributions, row, None)
    assert len(found) <= findings.MOST
    weights = [f.weight for f in found]
    assert weights == sorted(weights, reverse=True)
    assert all(weight > 0 for weight in weights)
    assert len({f.feature.cause for f in found}) == len(found)
    assert all(contributions[k] > 0 and row[k] == row[k] for f in found for k in f.members)


def test_customers_are_told_the_findings_only_where_these_were_decisive() -> None:
    found = findings.findings(
        values(rate_1s=0.9, abuse_history=0.8, not_found_share_60s=0.5), [1.0] * N_FEATURES, None
    )
    assert told_of(Reason.RISK_HIGH, found) == ["PACE"]  # 404 answers are a sign of abuse
    assert told_of(Reason.SERVICE_OVERLOADED, found) == ["SERVICE"]
    assert told_of(Reason.BLOCK_LISTED, found) == []
    assert told_of(Reason.RISK_HIGH, []) == []


def told_of(
    reason: Reason, found: list[findings.Finding], action: Action = Action.DEFER
) -> list[str]:
    return [code for code, _ in findings.told(action, reason, found)]


def test_the_strongest_finding_is_told_or_nothing() -> None:
    """The next one is not why, so it never stands in for one that may not be told."""
    found = findings.findings(
        values(app_age=0.7, retry_share_60s=0.8, rate_1s=0.9), [1.0] * N_FEATURES, None
    )
    assert told_of(Reason.RISK_HIGH, found) == ["PACE"]
    hidden = findings.findings(
        values(app_age=0.9, retry_share_60s=0.8, rate_1s=0.7), [1.0] * N_FEATURES, None
    )
    assert told_of(Reason.RISK_HIGH, hidden) == []


def test_a_value_like_that_of_similar_apps_is_no_finding() -> None:
    contributions = values(cohort_prior=0.9, app_age=0.2)
    usual = values(cohort_prior=0.07, app_age=400.0)
    found = findings.findings(contributions, values(cohort_prior=0.0703, app_age=3.0), usual)
    assert [f.code for f in found] == ["AGE_LOW"]


def test_what_similar_apps_have_as_well_adds_to_no_cause() -> None:
    """Its tier alone raised an app's risk; the owner that is not verified hardly did."""
    contributions = values(tier=0.9, verified=0.1, app_age=-0.02, rate_10s=0.5)
    usual = values(verified=1.0, app_age=90.0, rate_10s=1.0)
    found = findings.findings(contributions, values(app_age=80.0, rate_10s=7.0), usual)
    assert [f.code for f in found] == ["PACE_10S_HIGH", "VERIFIED_LOW"]
    assert [f.weight for f in found] == pytest.approx([0.5, 0.08])


def test_a_block_is_told_of_no_wait() -> None:
    for code, cause in CAUSES.items():
        told = TrueCause(code).sentence(Action.BLOCK)
        assert "wait" not in told.lower() and "Retry-After" not in told
        assert not cause.wait or cause.wait in TrueCause(code).sentence(Action.DEFER)


def test_that_gaps_are_even_is_not_told() -> None:
    """How a script is noticed; what stands out on the other side of its usual is told of few
    features.
    """
    found = findings.findings(values(gap_cv=0.9), values(gap_cv=0.1), [1.0] * N_FEATURES)
    assert [f.code for f in found] == ["GAPS_LOW"]
    assert told_of(Reason.RISK_HIGH, found) == []


def test_whoever_is_shed_is_told_that_the_service_was_busy() -> None:
    found = findings.findings(values(abuse_history=0.9), [1.0] * N_FEATURES, None)
    assert told_of(Reason.RISK_HIGH, found, Action.SHED) == ["SERVICE"]
    assert told_of(Reason.RISK_HIGH, found) == []


def test_every_finding_that_is_told_has_a_sentence_and_is_no_sign_of_abuse() -> None:
    assert len(TOLD_AS) == len(TELLING)
    for code, cause in TOLD_AS.items():
        assert cause.high if code.endswith("_HIGH") else cause.low
    assert not ABUSE_CODES & set(TOLD_AS)


# -- the budget
# ---------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_explaining_never_takes_more_than_its_share_of_the_time() -> None:
    clock = Clock()
    budget, spent, piece = Budget(clock, clock), 0.0, 0.0002
    for _ in range(20_000):
        clock.now += 0.0001
        if (started := budget.start()) is not None:
            clock.now += piece
            spent += piece
            budget.end(started)
    assert spent <= BURST_S + SHARE * (clock.now - 100.0) + piece
    assert spent >= 0.9 * SHARE * (clock.now - 100.0)


def test_at_once_it_takes_little_more_than_a_millisecond() -> None:
    clock = Clock()
    budget, taken = Budget(clock, clock), 0
    clock.now += 3600.0
    while (started := budget.start()) is not None:
        clock.now += 0.0001
        taken += 1
        budget.end(started)
    assert taken * 0.0001 <= 1.2 * BURST_S


# -- refusals
# ---------------------------------------------------------------------


def refused(teller: Teller | None, count: int = 400, **profile: object) -> list[Decision]:
    """Refusals of a flood by one app, which the model answers for."""
    made = engine(with_model(), ml=True)
    made.teller = teller
    of_tier(made, Tier.FREE, **profile)
    answers = [a for step in range(4) for a in ask(made, NOW + step / 10, count=count)]
    admitted = [a for a in answers if a.action == Action.ADMIT]
    assert admitted and not any(a.receipt or a.told for a in admitted)
    return [a for a in answers if a.action != Action.ADMIT]


class Endless(Budget):
    def end(self, started: float) -> None:
        """Nothing is booked."""


def test_a_refusal_carries_a_receipt_that_tells_its_story() -> None:
    teller = Teller(KEY, Endless())
    found = refused(teller)
    receipts = [open_sealed(a.receipt, keys_of([KEY])) for a in found]
    assert found and teller.explained > 0 and teller.over_budget == 0
    for a, receipt in zip(found, receipts, strict=True):
        assert (receipt.decision, receipt.action, receipt.stage, receipt.reason) == (
            a.id,
            a.action,
            a.stage,
            a.reason,
        )
        assert receipt.app == Key(KEY).pseudonym("app_1")
        assert receipt.model == small_model().digest[:12]
        assert receipt.at == pytest.approx(NOW, abs=1)
        assert len(receipt.codes) <= findings.MOST
    ranked = [r for r in receipts if r.stage in (Stage.RANK, Stage.RERANK)]
    assert ranked and all(r.codes for r in ranked)


def test_a_flood_over_the_budget_is_told_the_apps_last_reasons() -> None:
    clock = Clock()
    teller = Teller(KEY, Budget(clock, clock))
    receipts = [open_sealed(a.receipt, keys_of([KEY])) for a in explained_once(teller, clock)]
    ranked = [r for r in receipts if r.stage in (Stage.RANK, Stage.RERANK)]
    first, later = ranked[0], ranked[1:]
    assert first.codes and not first.earlier
    assert later and {(r.codes, r.earlier) for r in later} == {(first.codes, True)}
    assert (teller.explained, teller.over_budget, teller.as_earlier) == (1, 0, len(later))


def explained_once(teller: Teller, clock: Clock) -> list[Decision]:
    """Refusals of a flood by one app, of which there is time to explain the first."""
    real = teller._explain

    def explain(*what: object) -> list[findings.Finding]:
        clock.now += BURST_S
        return real(*what)  # type: ignore[arg-type]

    teller._explain = explain  # type: ignore[method-assign]
    return refused(teller)


@pytest.mark.parametrize(
    ("app", "reason", "after_s"),
    [
        ("app_2", Reason.RISK_HIGH, 1.0),
        ("app_1", Reason.ERROR_BUDGET_SPENT, 1.0),
        ("app_1", Reason.RISK_HIGH, EARLIER_S + 1.0),
        ("app_1", Reason.RISK_HIGH, -1.0),
    ],
)
def test_reasons_of_another_app_or_cause_or_of_long_ago_are_not_told(
    app: str, reason: Reason, after_s: float
) -> None:
    teller, basis = Teller(KEY), Basis(1, small_model(), np.ones((1, N_FEATURES), np.float32), 0)
    for who, why, at in (("app_1", Reason.RISK_HIGH, NOW), (app, reason, NOW + after_s)):
        decision = Decision(bytes(16), 1, 3, int(why), 1.2, 1, 1, 0, 1.0)
        teller.tell(decision, who, at, basis)
        teller._budget._left = -1.0
    assert (teller.explained, teller.as_earlier, teller.over_budget) == (1, 0, 1)
    assert open_sealed(decision.receipt, keys_of([KEY])).codes == ()


def test_the_last_half_of_the_budget_is_for_apps_without_reasons() -> None:
    clock = Clock()
    budget = Budget(clock, clock)
    budget._left = RESERVE * BURST_S
    assert budget.start(RESERVE) is None and budget.start() is not None


def test_as_many_apps_reasons_are_kept_as_there_is_room_for(monkeypatch) -> None:
    monkeypatch.setattr(client, "MOST_KEPT", 2)
    teller = Teller(KEY)
    for app in ("a", "b", "a", "c"):
        teller._keep(app, client.Earlier(NOW, 0, "", []))
    assert list(teller._kept) == ["a", "c"]


def test_a_flood_over_the_budget_is_told_by_stage_and_machine_reason_alone() -> None:
    clock = Clock()
    teller = Teller(KEY, Budget(clock, clock))
    teller._budget._left = 0.0
    receipts = [open_sealed(a.receipt, keys_of([KEY])) for a in refused(teller)]
    assert teller.explained == 0 and teller.over_budget > 0
    assert {r.codes for r in receipts} == {()}
    assert Reason.NONE not in {r.reason for r in receipts}


def test_without_a_teller_nothing_is_told() -> None:
    assert not any(a.receipt or a.told for a in refused(None))


def test_an_app_on_the_block_list_gets_a_receipt_and_is_not_told_why() -> None:
    made = engine(with_model(lists=[ListEntry(verdict="block", kind="app", subject="app_1")]))
    made.teller = Teller(KEY)
    answer = ask(made, NOW)[0]
    assert answer.told == ()
    assert open_sealed(answer.receipt, keys_of([KEY])).reason == Reason.BLOCK_LISTED


def test_a_model_that_cannot_be_explained_refuses_all_the_same() -> None:
    model = small_model()
    plain = "".join(
        line
        for line in model.artifact.risk_model.splitlines(keepends=True)
        if not line.startswith("leaf_count=")
    )
    mute = type(model)(msgspec.structs.replace(model.artifact, risk_model=plain), model.digest)
    assert mute.explainer is None
    assert "no row counts" in mute.unexplained
    row, decision = (
        np.zeros((1, N_FEATURES), np.float32),
        Decision(bytes(16), 1, 3, int(Reason.RISK_HIGH), 1.2, 1, 1, 0, 1.0),
    )
    Teller(KEY).tell(decision, "app_1", NOW, Basis(1, mute, row, 0))
    assert open_sealed(decision.receipt, keys_of([KEY])).codes == ()
    assert open_sealed(decision.receipt, keys_of([KEY])).retry_after == 2
