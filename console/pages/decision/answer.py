"""What a decision page shows for those who answer the customer: the texts, what came later, and
disputes.
"""

from __future__ import annotations

from dataclasses import dataclass

from console.pages.decision.page import DecisionPage
from decider.contracts.vocabulary import Action
from decider.refusal.findings import told_code
from decisions.models import Dispute
from decisions.outcomes import disputes, reports
from decisions.outcomes.reports import Later
from explain.text import customer


@dataclass(frozen=True, slots=True)
class Answer:
    """All of it."""

    said: customer.CustomerTexts
    later: tuple[Later, ...]
    disputes: tuple[Dispute, ...]
    """Latest first."""
    disputable: bool
    """A refusal that no standing dispute is about."""

    @property
    def nothing(self) -> bool:
        return not self.later and not self.disputes


def said(shown: DecisionPage) -> customer.CustomerTexts:
    """The texts for the customer. An app nobody registered has no name to call it by."""
    name = shown.known.name if shown.known else ""
    return customer.write_texts(
        customer.build_case(shown.d, name, told_code(shown.explained.codes))
    )


def compose(shown: DecisionPage) -> Answer:
    """Reads what the panels show."""
    d, found = shown.d, disputes.of_decision(shown.d.id)
    refused = d.action != Action.ADMIT and not d.observed
    verdicts = {
        x.outcome_id for x in found
    }  # a verdict stands with its dispute, not once more as an outcome
    later = tuple(one for one in reports.of_decision(d) if one.outcome.pk not in verdicts)
    return Answer(
        said(shown),
        later,
        tuple(found),
        refused and not any(x.state in ("open", "upheld") for x in found),
    )
