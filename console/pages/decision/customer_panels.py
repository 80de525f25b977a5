"""What a decision page shows to those who answer the customer: the texts for the customer, what was
reported later, and disputes.
"""

from __future__ import annotations

from dataclasses import dataclass

from console.pages.decision import page, replay_panels
from console.pages.decision.page import DecisionPage, Explained
from control.directory.apps import KnownApp
from decider.contracts.vocabulary import Action
from decider.refusal.true_cause import told_code
from decisions.models import Decision, Dispute
from decisions.outcomes import disputes, reports
from decisions.outcomes.reports import Later
from explain.text import customer


@dataclass(frozen=True, slots=True)
class Answer:
    """The panels for those who answer the customer."""

    said: customer.CustomerTexts
    later: tuple[Later, ...]
    disputes: tuple[Dispute, ...]
    """Latest first."""
    disputable: bool
    """Whether it is a refusal that has no open or upheld dispute."""
    useless_batch: bool = False
    """Whether the response asked for a batch that would have been refused as well."""

    @property
    def nothing(self) -> bool:
        """Tell whether nothing was reported later and nobody disputed the decision."""
        return not self.later and not self.disputes


def customer_texts(
    d: Decision, known: KnownApp | None, explained: Explained | None = None
) -> customer.CustomerTexts:
    """Return the texts for the customer.

    `known` is the registered app; without it, the texts do not name the app. If `explained` is
    given, it is not read again.
    """
    found = explained or page.explained(d)
    return _texts(d, known, found, helps=not useless_batch(d, found))


def useless_batch(d: Decision, explained: Explained) -> bool:
    """Return whether the response asked for a batch that would have been refused as well."""
    return d.action == Action.BATCH and not replay_panels.batch_helps(d, explained)


def _texts(
    d: Decision, known: KnownApp | None, explained: Explained, *, helps: bool
) -> customer.CustomerTexts:
    name = known.name if known else ""
    case = customer.build_case(d, name, told_code(explained.codes), batch_helps=helps)
    return customer.write_texts(case)


def customer_answer(shown: DecisionPage) -> Answer:
    """Read the panels for those who answer the customer."""
    d, found = shown.d, disputes.of_decision(shown.d.id)
    # An observed refusal was served and a replayed one had no client: there is nothing to dispute.
    refused = d.action != Action.ADMIT and not d.observed and not d.replayed
    # A verdict is shown with its dispute, so it is not listed again as an outcome.
    verdicts = {x.outcome_id for x in found}
    later = tuple(one for one in reports.of_decision(d) if one.outcome.pk not in verdicts)
    useless = useless_batch(d, shown.explained)
    return Answer(
        _texts(d, shown.known, shown.explained, helps=not useless),
        later,
        tuple(found),
        refused and not any(x.state in ("open", "upheld") for x in found),
        useless,
    )
