"""Cases of what customers are told, and what none of their texts may hold."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

import msgspec
import numpy as np
from hypothesis import strategies as st

from decider.contracts import features, signals
from decider.contracts.vocabulary import (
    HTTP_STATUS,
    REASONS,
    Action,
    Arm,
    MlState,
    Reason,
    Stage,
    Tier,
)
from decisions.models import Decision, utc
from explain.text import customer
from explain.text.customer import CustomerCase
from explain.text.customer_catalogue import Cause
from tests.decisions.factory import event

AT = datetime(2025, 11, 18, 14, 21, 36, tzinfo=UTC)
CODES = [
    "",
    "STRANGE_HIGH",
    *(f"{f.code}_{side}" for f in features.FEATURES for side in ("HIGH", "LOW")),
]
FORBIDDEN = re.compile(
    r"\b(scor\w*|threshold\w*|risk\w*|models?|shap|machine.learning|ml|peers?|similar|training|other"
    r" apps|cohort\w*|percentile\w*|median|"
    r"tiers?|free|standard|premium|enterprise|triage|rank\w*|re-?rank\w*|guard|fallback|overrid\w*|rule"
    r" engine|abus\w*|fraud\w*|"
    r"chargeback\w*|bots?|scrap\w*|scan\w*|credential\w*|tokens?|passwords?|block.?list\w*|allow.?list\w*|kill|switch\w*|features?|"
    r"deciders?|config\w*|nodes?|canary|shadow|tenants?|prices?|utility|harm\w*|error.budget|observe\w*|sampl\w*|weight\w*|"
    r"probabilit\w*|suspici\w*|detect\w*|verified|history|verdict|dispute\w*)\b",
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
