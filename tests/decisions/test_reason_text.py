"""Every machine reason has words of its own."""

from __future__ import annotations

from decider.contracts.vocabulary import REASONS, Reason
from decisions.reason_text import BRIEF


def test_every_reason_is_described_and_has_a_few_words_for_a_table() -> None:
    given = set(Reason) - {Reason.NONE}
    assert given <= set(REASONS)
    assert given == set(BRIEF)


def test_the_few_words_fit_a_cell_and_differ() -> None:
    assert len(set(BRIEF.values())) == len(BRIEF)
    assert all(0 < len(text) <= 30 and text[0].isupper() for text in BRIEF.values())
