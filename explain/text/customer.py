"""What the customer may be told about a decision: a reply, one line, and an API error, from the
reviewed catalogue.

The texts depend on a `CustomerCase` alone, and a case holds nothing that must not be told: no
score, threshold, model, tier, service, peer or signal of abuse. So the texts cannot leak any of
these.
"""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from control.config import documents
from decider.contracts.features import INDEX, SCHEMA
from decider.contracts.ids import format_decision_id
from decider.contracts.units import plan_figure, spoken_span
from decider.contracts.vocabulary import HTTP_STATUS, Action, MlState, Reason, Stage
from decider.engine.routing import endpoints_at
from decider.http import problem, responses
from decider.refusal.receipt import Receipt
from decider.refusal.true_cause import find_true_cause, told_code
from decisions import reason_text
from decisions.models import Decision, utc
from explain.text import customer_catalogue as words
from explain.text.customer_catalogue import Cause
from explain.text.verdict import round_wait

# Chosen: a registered name must not crowd out the sentence it stands in.
_NAME_MAX = 80
# An app's own pace is named if it is at least this many times its allowance. Chosen: within 5% both
# figures would often round to the same, and the text would contradict itself.
_OVER = 1.05


@dataclass(frozen=True, slots=True)
class CustomerCase:
    """The facts that a text may depend on. Every field after `at` may be unknown: of these, a
    receipt holds only `code`.
    """

    action: Action
    stage: Stage
    reason: Reason
    wait_s: int
    """Whole seconds of the Retry-After that was answered, 0 for none."""
    reference: str
    """The decision id, which the customer has from their response."""
    at: datetime
    observed: bool = False
    """Decided in observe-only mode, so the request was admitted."""
    app_name: str = ""
    """Name of the app, as the customer registered it."""
    code: str = ""
    """Reason code of the strongest finding, for example BURST_HIGH, if it may be told. Texts show
    only its cause.
    """
    spent: bool = False
    """The app's burst allowance was used up."""
    rate: float | None = None
    """Requests a second by which its allowance is refilled."""
    burst: float | None = None
    """Requests that its allowance holds when full."""
    quota: float | None = None
    """Requests a day."""
    pace: float | None = None
    """The app's own requests a second over ten seconds."""
    hurried: bool = False
    """Whether some of the app's latest requests came back before the wait they were told."""
    late: bool = False
    """Whether we had no time for the usual check, so that a simpler limit decided."""
    batch: str = ""
    """Endpoint that takes many items at once, as the response named it; empty for none."""
    batch_helps: bool = True
    """False where a batch of any size would have been refused too, so nobody is advised to send
    one.
    """


@dataclass(frozen=True, slots=True)
class CustomerTexts:
    """The three texts, plain and unescaped."""

    reply: str
    line: str
    api: str
    """A JSON document (RFC 9457 members, as the response had them)."""
    cause: Cause
    version: int = words.VERSION


def write_texts(case: CustomerCase) -> CustomerTexts:
    """Return the texts of a case. They are defined for every case."""
    cause, action = find_cause(case), find_answer(case)
    if action == Action.BATCH and not case.batch_helps:
        case = replace(case, batch="")
        said = _write(case, cause, Action.DEFER)
        return replace(said, api=_api(case, action, said.line))
    return _write(case, cause, action)


def _write(case: CustomerCase, cause: Cause, action: Action) -> CustomerTexts:
    told = collect_facts(case)
    texts = words.CAUSE_TEXTS[cause]
    why_so = texts.why_known if texts.why_known and _knows(cause, case) else texts.why
    now = words.BATCH_KNOWN if action == Action.BATCH and case.batch else words.NOW[action]
    # Templates are filled last and once: a name with braces in it is never a template itself.
    if cause == Cause.ALLOWANCE and case.late:
        why_so = f"{why_so} {words.LATE}"
    parts = [
        f"{words.WHAT[action]} {why_so}",
        f"{now} {_advice(cause, action, case)}".strip(),
        words.REFERENCE,
    ]
    line = f"{texts.line}{words.LINE_END[action]}".format_map(told)
    return CustomerTexts(
        "\n\n".join(part.format_map(told) for part in parts), line, _api(case, action, line), cause
    )


def _advice(cause: Cause, action: Action, case: CustomerCase) -> str:
    """Return how to avoid such an answer next time, and after a block whom to ask."""
    if action == Action.BATCH and cause in words.NOT_IN_BATCHES:
        return ""
    # It was just asked to change: to send batches.
    if action == Action.BATCH and words.CAUSE_TEXTS[cause].advice == words.PATIENCE:
        return words.HURRIED if case.hurried else ""
    # A customer who was told no wait must not read that waiting helps.
    unsaid = cause in words.ABOUT_WAITING and not action.waits
    advice = "" if unsaid else words.CAUSE_TEXTS[cause].advice
    if advice == words.PATIENCE and case.hurried:
        advice = words.HURRIED
    review = words.REVIEW if action == Action.BLOCK and cause not in words.WITH_REVIEW else ""
    return f"{advice} {review}".strip()


def find_answer(case: CustomerCase) -> Action:
    """Return the action the customer saw: observe-only mode admits everything."""
    return Action.ADMIT if case.observed else case.action


def find_cause(case: CustomerCase) -> Cause:
    """Return the cause that the customer is told, UNSAID where it may not be told."""
    if find_answer(case) == Action.ADMIT:
        return Cause.ACCEPTED
    true = find_true_cause(case.action, case.reason, [case.code])
    if true.finding:
        return words.FINDINGS[true.finding]
    # Risk chose whom to turn away, and the text says that others were put first.
    if true.code == "SERVICE" and case.reason == Reason.RISK_HIGH:
        return Cause.CHOSEN
    return words.OF_RULE[true.code]


def collect_facts(case: CustomerCase) -> dict[str, str]:
    """Return the values that fill a text, by field of the catalogue; there are no others."""
    name = _plain(case.app_name)
    return {
        "app": f"your app “{name}”" if name else "your app",
        "when": (
            f"{case.at.astimezone(UTC):%H:%M:%S} UTC on {case.at.astimezone(UTC).day}"
            f" {case.at.astimezone(UTC):%B %Y}"
        ),
        "status": str(HTTP_STATUS[find_answer(case)]),
        "wait": str(case.wait_s),
        "wait_words": spoken_span(case.wait_s),
        "rate": _figure(case.rate),
        "burst": _figure(case.burst),
        "quota": _figure(case.quota),
        "pace": _figure(case.pace),
        "batch": _plain(case.batch),
        "reference": case.reference,
    }


def _knows(cause: Cause, case: CustomerCase) -> bool:
    """Return whether the figures that a cause's fuller text names are known and support what it
    says.
    """
    quota, rate, burst, pace = (
        _positive(v) for v in (case.quota, case.rate, case.burst, case.pace)
    )
    if cause == Cause.QUOTA:
        return quota > 0
    if cause == Cause.PACE:
        return rate > 0 and pace >= _OVER * rate
    return rate > 0 and burst > 0 and case.spent


def _api(case: CustomerCase, action: Action, line: str) -> str:
    """Return the body of the response as JSON text, with the one line as its detail."""
    title = responses.WORDS[action].title if action in responses.WORDS else "Accepted"
    # The members are those of the response, so a customer recognises it.
    members: dict[str, object] = (
        {"type": problem.PREFIX + action.word} if action != Action.ADMIT else {}
    )
    members |= {
        "title": title,
        "status": HTTP_STATUS[action],
        "detail": line,
        "decision": case.reference,
    }
    if action.waits:
        members["retry_after"] = case.wait_s
    if case.batch and action in (Action.DEFER, Action.BATCH):
        members["batch"] = _plain(case.batch)
    return json.dumps(members, indent=2, ensure_ascii=False)


def build_case(
    d: Decision, app_name: str = "", code: str = "", *, batch_helps: bool = True
) -> CustomerCase:
    """Return the case of a stored decision. `app_name` is as registered and `code` as
    `decider.refusal.true_cause.told_code` chose it, both when known. `batch_helps`: as in the case.
    """
    seen = reason_text.signals(d) or {}
    action = Action(d.action)
    return CustomerCase(
        action=action,
        stage=Stage(d.stage),
        reason=Reason(d.reason),
        reference=d.name,
        at=d.at,
        observed=d.observed,
        # An admit and a block carry no Retry-After; any other answer waits at least a second.
        wait_s=max(1, round_wait(d.retry_after)) if action.waits else 0,
        app_name=app_name,
        code=code,
        spent=seen.get("tokens", 1.0) < 1,
        rate=seen.get("bucket_rate"),
        burst=seen.get("bucket_burst"),
        quota=seen.get("quota_limit"),
        pace=_feature(d, "rate_10s"),
        late=d.ml_state in (MlState.LATE, MlState.DECIDER_LATE),
        hurried=(_feature(d, "early_retry_share_60s") or 0.0) > 0.0,
        batch=_batch(d),
        batch_helps=batch_helps,
    )


def build_receipt_case(r: Receipt) -> CustomerCase:
    """Return the case of a receipt, which carries no app name and no figures."""
    return CustomerCase(
        action=r.action,
        stage=r.stage,
        reason=r.reason,
        reference=format_decision_id(r.decision),
        at=utc(r.at),
        wait_s=r.retry_after,
        code=told_code(r.codes),
    )


def _feature(d: Decision, name: str) -> float | None:
    """Return a recorded feature; None when it is unknown or was recorded under another schema."""
    row = np.frombuffer(bytes(d.features), "<f4")
    value = (
        float(row[INDEX[name]]) if d.feature_schema == SCHEMA and len(row) == len(INDEX) else None
    )
    return value if value is not None and math.isfinite(value) else None


def _batch(d: Decision) -> str:
    """Return the batch form of the requested endpoint, from the config of the decision."""
    if (config := documents.config(d.config_version)) is None:
        return ""
    found = endpoints_at(config.services, d.service).get((d.method, d.endpoint))
    return found.batch if found else ""


def _positive(value: float | None) -> float:
    """Return the figure, or 0 when it is unknown, not finite or not positive."""
    return value if value is not None and math.isfinite(value) and value > 0 else 0.0


def _figure(value: float | None) -> str:
    """Return a figure of the customer's own as text: 300, 2,000,000, 0.5, 12.5."""
    # with the digits that staff read: rounded further, a pace of 10.5 would read as its rate of 10
    return plan_figure(_positive(value))


def _plain(text: str) -> str:
    """Return a name from outside on one line, without control or direction-changing characters, at
    most _NAME_MAX long.
    """
    # A name is chosen by the customer and is copied into replies: a line break or a right-to-left
    # mark in it could make the reply say something else.
    kept = "".join(
        " " if c.isspace() else c
        for c in text
        if c.isspace() or not unicodedata.category(c).startswith("C")
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= _NAME_MAX else f"{kept[: _NAME_MAX - 1]}…"
