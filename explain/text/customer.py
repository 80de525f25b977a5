"""What the customer may be told about a decision: a reply, one line, and an API error, from the
reviewed catalogue.

The texts depend on a `Case` alone, and a case holds nothing that must not be told: no score,
threshold, model, tier, service, peer or signal of abuse. So they cannot leak what they never see.
"""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from control.config import documents
from decider.contracts.features import INDEX, SCHEMA
from decider.contracts.ids import format_decision_id
from decider.contracts.units import MINUTE_S, spoken_span
from decider.contracts.vocabulary import HTTP_STATUS, REASONS, Action, Reason, Stage
from decider.http import problem, responses
from decider.refusal.findings import told_code
from decider.refusal.receipt import Receipt
from decisions import reason_text
from decisions.models import Decision, utc
from explain.text import customer_catalogue as words
from explain.text.customer_catalogue import Ask, Cause
from explain.text.verdict import waits

_NAME_MAX = 80
# Times its allowance from which an app's own pace is named.
_OVER = 1.05


@dataclass(frozen=True, slots=True)
class Case:
    """What a text may depend on. Everything after `at` may be unknown, as it is when all there is
    is a receipt.
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
    """As the customer registered it."""
    code: str = ""
    """Reason code of the finding that is told, for example BURST_HIGH; only its cause may show."""
    busy: bool = False
    """The service was priced: it had little room."""
    spent: bool = False
    """The app's burst allowance was used up."""
    rate: float | None = None
    """Requests a second its allowance is refilled by."""
    burst: float | None = None
    quota: float | None = None
    """Requests a day."""
    pace: float | None = None
    """The app's own requests a second over ten seconds."""
    batch: str = ""
    """How to ask for many at once, as the response said it."""


@dataclass(frozen=True, slots=True)
class Said:
    """The three texts, plain and unescaped."""

    reply: str
    line: str
    api: str
    """A JSON document (RFC 9457 members, as the response had them)."""
    cause: Cause
    version: int = words.VERSION


def say(case: Case) -> Said:
    """The texts of a case. Defined for every case."""
    cause, action = cause_of(case), answered(case)
    told = facts(case)
    texts = words.WORDS[cause]
    why_so = texts.why_known if texts.why_known and _knows(cause, case) else texts.why
    now = words.BATCH_KNOWN if action == Action.BATCH and case.batch else words.NOW[action]
    parts = [
        f"{words.WHAT[action]} {why_so}",
        f"{now} {_advice(cause, action)}".strip(),
        words.REFERENCE,
    ]
    line = f"{texts.line}{words.LINE_END[action]}".format_map(told)
    return Said(
        "\n\n".join(part.format_map(told) for part in parts), line, _api(case, action, line), cause
    )


def _advice(cause: Cause, action: Action) -> str:
    """What to do so that it does not happen again, and whom to ask after a block."""
    if action == Action.BATCH and cause in words.NOT_IN_BATCHES:
        return ""
    review = f" {words.REVIEW}" if action == Action.BLOCK and cause not in words.WITH_REVIEW else ""
    return f"{words.WORDS[cause].advice}{review}"


def answered(case: Case) -> Action:
    """What the customer saw: in observe-only mode everything was admitted."""
    return Action.ADMIT if case.observed else case.action


def cause_of(case: Case) -> Cause:
    """What the customer is told it was."""
    if answered(case) == Action.ADMIT:
        return Cause.ACCEPTED
    found = (
        words.CAUSES.get((case.stage, case.reason))
        or words.CAUSES[REASONS[case.reason].stage, case.reason]
    )
    if isinstance(found, Cause):
        return found
    if found == Ask.FINDINGS and case.action != Action.SHED:
        return words.FINDINGS.get(case.code, Cause.UNSAID)
    if case.busy or case.action == Action.SHED:
        return Cause.CHOSEN
    return words.SURROUNDED.get(case.reason) or (Cause.ALLOWANCE if case.spent else Cause.UNSAID)


def facts(case: Case) -> dict[str, str]:
    """What a text is filled with: the fields of the catalogue and nothing else."""
    name = _plain(case.app_name)
    return {
        "app": f"your app “{name}”" if name else "your app",
        "when": (
            f"{case.at.astimezone(UTC):%H:%M:%S} UTC on {case.at.astimezone(UTC).day}"
            f" {case.at.astimezone(UTC):%B %Y}"
        ),
        "status": str(HTTP_STATUS[answered(case)]),
        "wait": str(case.wait_s),
        "wait_words": _spoken(case.wait_s),
        "rate": _figure(case.rate),
        "burst": _figure(case.burst),
        "quota": _figure(case.quota),
        "pace": _figure(case.pace),
        "batch": _plain(case.batch),
        "reference": case.reference,
    }


def _knows(cause: Cause, case: Case) -> bool:
    """Whether the figures are there that the fuller text of a cause names, and say what it says."""
    quota, rate, burst, pace = (
        _positive(v) for v in (case.quota, case.rate, case.burst, case.pace)
    )
    if cause == Cause.QUOTA:
        return quota > 0
    if cause == Cause.PACE:
        return rate > 0 and pace >= _OVER * rate
    return rate > 0 and burst > 0 and case.spent


def _api(case: Case, action: Action, line: str) -> str:
    """The body of the response, with the one line for its detail."""
    title = responses.WORDS[action].title if action in responses.WORDS else "Accepted"
    members: dict[str, object] = (
        {"type": problem.PREFIX + action.word} if action != Action.ADMIT else {}
    )
    members |= {
        "title": title,
        "status": HTTP_STATUS[action],
        "detail": line,
        "decision": case.reference,
    }
    if action not in (Action.ADMIT, Action.BLOCK):
        members["retry_after"] = case.wait_s
    if case.batch and action in (Action.DEFER, Action.BATCH):
        members["batch"] = _plain(case.batch)
    return json.dumps(members, indent=2, ensure_ascii=False)


def of_decision(d: Decision, app_name: str = "", code: str = "") -> Case:
    """The case of a stored decision. `app_name` as registered, `code` as
    `decider.refusal.findings.told_code` chose it, both when known.
    """
    seen = reason_text.signals(d) or {}
    action = Action(d.action)
    return Case(
        action=action,
        stage=Stage(d.stage),
        reason=Reason(d.reason),
        reference=d.name,
        at=d.at,
        observed=d.observed,
        wait_s=0 if action in (Action.ADMIT, Action.BLOCK) else max(1, waits(d.retry_after)),
        app_name=app_name,
        code=code,
        busy=seen.get("service_price", 0.0) > 0,
        spent=seen.get("tokens", 1.0) < 1,
        rate=seen.get("bucket_rate"),
        burst=seen.get("bucket_burst"),
        quota=seen.get("quota_limit"),
        pace=_pace(d),
        batch=_batch(d),
    )


def of_receipt(r: Receipt) -> Case:
    """The case of a receipt, which carries no app name and no figures."""
    return Case(
        action=r.action,
        stage=r.stage,
        reason=r.reason,
        reference=format_decision_id(r.decision),
        at=utc(r.at),
        wait_s=r.retry_after,
        code=told_code(r.codes),
    )


def _pace(d: Decision) -> float | None:
    row = np.frombuffer(bytes(d.features), "<f4")
    value = (
        float(row[INDEX["rate_10s"]])
        if d.feature_schema == SCHEMA and len(row) == len(INDEX)
        else None
    )
    return value if value is not None and math.isfinite(value) else None


def _batch(d: Decision) -> str:
    """The batch form of the endpoint that was asked, as the config of the decision has it."""
    if (config := documents.config(d.config_version)) is None:
        return ""
    endpoints = (e for s in config.services if s.name == d.service for e in s.endpoints)
    return next(
        (e.batch for e in endpoints if (e.method, e.template) == (d.method, d.endpoint)), ""
    )


def _spoken(seconds: int) -> str:
    """A wait as a person says it: 1 second, 45 seconds, about 5 minutes, about 3 hours."""
    # seconds are exact, minutes and hours are rounded up
    return spoken_span(seconds) if seconds < 2 * MINUTE_S else f"about {spoken_span(seconds)}"


def _positive(value: float | None) -> float:
    """The figure, 0 when it is not known or none."""
    return value if value is not None and math.isfinite(value) and value > 0 else 0.0


def _figure(value: float | None) -> str:
    """300, 2,000,000, 0.5: a figure of the customer's own."""
    known = _positive(value)
    return (
        f"{known:,.0f}"
        if known >= 10
        else np.format_float_positional(known, precision=2, fractional=False, trim="-")
    )


def _plain(text: str) -> str:
    """A name from outside on one line: no control or direction-changing characters, at most 80
    long.
    """
    kept = "".join(
        " " if c.isspace() else c
        for c in text
        if c.isspace() or not unicodedata.category(c).startswith("C")
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= _NAME_MAX else f"{kept[: _NAME_MAX - 1]}…"
