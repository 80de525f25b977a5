"""The policy function: what it says was decisive, over any request."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from decider import policy
from decider.contracts import defaults, features
from decider.contracts.signals import INDEX, N_SIGNALS
from decider.contracts.vocabulary import Action, MlState, Reason, Stage

RULES = policy.rules_of(defaults.config())
SHARE = st.floats(0, 1)
MILD = {Reason.RISK_LOW, Reason.VALUE_HIGH, Reason.ERROR_BUDGET_SPENT, Reason.HARMLESS}


@st.composite
def requests(draw):
    """Signals, features and scores of a request that guard leaves open and the model ranks."""
    s, x = np.zeros(N_SIGNALS), np.zeros(features.N_FEATURES, np.float32)
    tier = draw(st.integers(0, 3))
    burst = float(RULES.tiers[tier, policy.T_BURST])
    values = {
        "tier": tier,
        "ml_state": int(MlState.LIVE),
        "override_action": -1,
        "override_multiplier": 1,
        "quota_left": 100,
        "quota_limit": 1e6,
        "bucket_rate": float(RULES.tiers[tier, policy.T_RATE]),
        "bucket_burst": burst,
        "tokens": draw(st.floats(-burst, burst)),
        "cost": draw(st.sampled_from([1.0, 5.0, 20.0])),
        "batchable": draw(st.integers(0, 1)),
        "service_price": draw(st.sampled_from([0.0, 0.0, 0.3, 0.9, 2.0])),
        "tenant_usage": draw(st.floats(0, 20)),
        "tenant_fair_share": draw(st.sampled_from([np.inf, 0.0, 5.0, 10.0])),
        "prior_risk": draw(SHARE),
        "prior_value": draw(SHARE),
        "error_budget_rate": (rate := draw(st.sampled_from([0.0, 0.0001, 1.0]))),
        "error_budget_left": np.inf if rate == 1.0 else draw(st.floats(0, 3)),
    }
    for name, value in values.items():
        s[INDEX[name]] = value
    x[features.INDEX["cohort_prior"]] = 1.0  # ranked whatever else
    return s, x, draw(SHARE), draw(SHARE)


@given(requests())
def test_a_refusal_is_told_by_what_spoke_against_it_and_an_admit_by_what_spoke_for_it(
    request_,
) -> None:
    s, x, risk, value = request_
    action, stage, reason, _ = policy.decide(s, x, risk, value, RULES)
    assert (Reason(reason) in MILD) == (action == Action.ADMIT)
    if reason == Reason.RISK_HIGH and s[INDEX["tokens"]] < 1:
        assert risk > s[INDEX["prior_risk"]]
    if reason == Reason.VALUE_LOW:
        assert value < s[INDEX["prior_value"]]
    if reason == Reason.TENANT_OVER_SHARE:
        # a share of none is what higher tiers leave, and no tenant's doing
        assert s[INDEX["tenant_usage"]] > s[INDEX["tenant_fair_share"]] > 0
    if reason == Reason.SERVICE_OVERLOADED:
        assert s[INDEX["service_price"]] > 0
    assert stage in (Stage.TRIAGE, Stage.RANK, Stage.RERANK)


def test_the_shipped_plans_give_more_to_each_higher_tier() -> None:
    """A higher tier has more room and more weight, and refusing it costs more."""
    for name in ("rate", "burst", "quota_per_day", "weight", "friction", "rank_from"):
        found = [getattr(tier, name) for tier in defaults.TIERS]
        assert found == sorted(set(found)), name
    for name in ("harm", "error_budget_per_hour"):
        found = [getattr(tier, name) for tier in defaults.TIERS]
        assert found == sorted(set(found), reverse=True), name
