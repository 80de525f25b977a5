"""The story of a receipt: what was decided and why, as far as the receipt says. The decision need
not be stored.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from control.config import documents
from control.directory import apps as directory
from decider.contracts import features
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import HTTP_STATUS, REASONS, Action, Stage, Tier
from decider.refusal.receipt import Receipt
from decider.refusal.true_cause import find_true_cause
from decisions.models import utc
from decisions.reason_text import find_telling_reason
from decisions.search import lookup
from explain.text import customer

_DONE = {
    Action.ADMIT: "admitted",
    Action.DEFER: "deferred",
    Action.BATCH: "asked to batch",
    Action.SHED: "shed",
    Action.BLOCK: "blocked",
}


@dataclass(frozen=True, slots=True)
class ReceiptStory:
    """Everything on a receipt's page."""

    id: str
    at: datetime
    action: Action
    stage: Stage
    verdict: str
    http: str
    clause: str
    reasons: tuple[tuple[str, str], ...]
    """Code and what it says in words, strongest first."""
    earlier: bool
    """The reasons are those of a refusal of the same app some seconds before."""
    config_version: int
    model: str
    """Name and version when this installation knows it, else the first digits of its digest; empty
    without one.
    """
    app: str
    """Id of the app; empty when no app known here has the receipt's pseudonym."""
    name: str
    tier: str
    pseudonym: str
    stored: bool
    said: customer.CustomerTexts


def write_receipt_story(receipt: Receipt, app: str) -> ReceiptStory:
    """Return the story of a receipt. `app` is the id its pseudonym stands for, "" when unknown."""
    known = directory.app(app) if app else None
    who = known.name if known else _stranger(app)
    clause = write_cause(receipt)
    wait = f", Retry-After {receipt.retry_after}" if receipt.retry_after else ""
    return ReceiptStory(
        id=format_decision_id(receipt.decision),
        at=utc(receipt.at),
        action=receipt.action,
        stage=receipt.stage,
        verdict=f"A request of {who} was {_DONE[receipt.action]} because {clause}",
        http=f"HTTP {HTTP_STATUS[receipt.action]}{wait}",
        clause=clause,
        reasons=tuple((code, _in_words(code)) for code in receipt.codes),
        earlier=receipt.earlier,
        config_version=receipt.config_version,
        model=_model(receipt),
        app=app,
        name=known.name if known else app,
        tier=Tier(known.tier).word.capitalize() if known else "",
        pseudonym=receipt.app,
        stored=lookup.find(uuid.UUID(bytes=receipt.decision)) is not None,
        said=customer.write_texts(customer.build_receipt_case(receipt)),
    )


def write_cause(receipt: Receipt) -> str:
    """Return the cause of a receipt's refusal as a clause. It has no figures, because receipts hold
    none.
    """
    cause = find_true_cause(receipt.action, receipt.reason, receipt.codes)
    if cause.finding:
        label, _, side = _in_words(cause.finding).rpartition(": ")
        return f"its risk was high, mostly because “{label}” was {side}"
    return REASONS[find_telling_reason(receipt.action, receipt.reason)].text


def _stranger(app: str) -> str:
    return f"{app}, which is not registered," if app else "an app that is not known here"


# Built from the registry, so that a new feature has its words at once.
_WORDS = {
    f"{f.code}_{end}": f"{f.label}: {'high' if end == 'HIGH' else 'low'}"
    for f in features.FEATURES
    for end in ("HIGH", "LOW")
}


def _in_words(code: str) -> str:
    """Return a reason code in words for staff, without figures, because receipts hold none."""
    text = _WORDS.get(code, "a reason this console does not know")
    return text[:1].upper() + text[1:]


def _model(receipt: Receipt) -> str:
    # A receipt holds only the first digits of the digest, so the receipt's config has to confirm
    # them.
    document = documents.config(receipt.config_version)
    if (
        receipt.model
        and document
        and document.model
        and document.model.digest.startswith(receipt.model)
    ):
        return f"{document.model.name} v{document.model.version}"
    return receipt.model
