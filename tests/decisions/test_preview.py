"""The preview of a change decides stored decisions again, before and after it."""

from __future__ import annotations

import pytest
from msgspec import structs

from decider.contracts import defaults
from decider.contracts.config import ListEntry
from decider.contracts.vocabulary import Action, Tier
from decisions import preview
from tests.decisions.factory import event, signal_vector


def decided(config, **fields):
    """An unranked request of a standard app with these tokens left, decided under a config."""
    signals = {"tier": 1, "tokens": 1.0, "quota_left": 1_000, "quota_limit": 1_000, "cost": 1.0}
    return event(
        **(
            {
                "risk": None,
                "value": None,
                "raw_risk": None,
                "raw_value": None,
                "signals": signal_vector(**(signals | fields.pop("seen", {}))),
                "inclusion_probability": 0.25,
            }
            | fields
        )
    )


def compared(before, after, events):
    return preview.compare(
        events,
        len(events),
        lambda e: preview.under_both(e, before=before, after=after, model=None),
    )


def test_a_change_that_changes_nothing_changes_no_decision() -> None:
    config = defaults.config()
    seen = compared(config, config, [decided(config) for _ in range(5)])
    assert (seen.total, seen.changed.count) == (pytest.approx(20), 0)


def test_a_new_rule_about_an_app_shows_whom_it_hits() -> None:
    config = defaults.config()
    blocked = structs.replace(
        config, lists=[ListEntry(verdict="block", kind="app", subject="app_hit")]
    )
    events = [decided(config, app="app_hit") for _ in range(3)]
    events += [decided(config, app="app_other") for _ in range(2)]
    seen = compared(config, blocked, events)
    assert seen.changed.count == pytest.approx(12)
    assert seen.changed.low < 12 < seen.changed.high
    assert {e.app for e in seen.examples} == {"app_hit"}
    assert {e.after for e in seen.examples} == {Action.BLOCK}
    by_tier = {change.tier: change.count.count for change in seen.tiers}
    assert by_tier[Tier.STANDARD] == pytest.approx(12)
    # and taking it out again shows the same from the other side
    back = compared(blocked, config, events)
    assert {e.before for e in back.examples} == {Action.BLOCK}


def test_the_counts_stand_for_all_stored_decisions_with_wider_intervals() -> None:
    config = defaults.config()
    blocked = structs.replace(
        config, lists=[ListEntry(verdict="block", kind="app", subject="app_hit")]
    )
    events = [decided(config, app="app_hit") for _ in range(10)]

    def redecide(e):
        return preview.under_both(e, before=config, after=blocked, model=None)

    whole, sampled = (preview.compare(events, stored, redecide) for stored in (10, 1_000))
    assert (whole.changed.count, sampled.changed.count) == (40, 4_000)
    assert sampled.changed.low < 4_000 * whole.changed.low / whole.changed.count
