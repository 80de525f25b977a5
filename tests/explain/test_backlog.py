"""What is explained first, and what is left out when there is more to explain than time."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from decider.contracts.vocabulary import Action
from decisions.models import Decision
from explain.shap import backlog
from tests.database import as_owner
from tests.explain import world

pytestmark = pytest.mark.django_db


def test_what_is_missed_least_is_explained_last(models, document, store) -> None:
    """Each app's newest refusal for a reason, then the others by tier, then admits."""
    rows = world.rows(400, seed=2)
    store([world.decided(row, document=document) for row in rows])
    found = backlog.in_order(backlog.select_waiting(time.time()))
    kinds = list(found.values_list("action", "tier", "app", "reason", "id"))
    admits = [action == Action.ADMIT for action, *_ in kinds]
    assert True in admits and False in admits and admits == sorted(admits)
    seen, repeats = set(), []
    for action, _, app, reason, _ in kinds:
        repeats.append((app, action, reason) in seen)
        seen.add((app, action, reason))
    refused = repeats[: admits.count(False)]
    assert True in refused and refused == sorted(refused)
    for part in (False, True):
        tiers = [kinds[k][1] for k in range(len(refused)) if refused[k] is part]
        assert tiers == sorted(tiers, reverse=True)


def test_what_waited_too_long_is_dropped_and_counted(models, document, store, monkeypatch) -> None:
    # all admits are chosen, not those whose id happens to end so
    monkeypatch.setattr(backlog, "ADMITS_OF_16", 16)
    store([world.decided(row, document=document) for row in world.rows(60, seed=2)])
    waiting = backlog.select_waiting(time.time()).count()
    with as_owner():
        Decision.objects.update(stored_at=timezone.now() - timedelta(seconds=backlog.KEEP_S + 1))
    assert backlog.explain_newest() == backlog.RunOutcome()
    progress = backlog.measure_progress()
    assert (progress.waiting, progress.oldest_s, progress.dropped) == (0, 0.0, waiting)
    assert 0 < progress.dropped_refusals < waiting
    # the rare run comes to it once nothing else waits
    assert backlog.explain_dropped().explained == waiting
    assert backlog.measure_progress().dropped == 0


def test_the_dropped_wait_until_the_backlog_is_worked_off(models, document, store) -> None:
    store([world.decided(row, document=document) for row in world.rows(60, seed=2)])
    with as_owner():
        Decision.objects.update(stored_at=timezone.now() - timedelta(seconds=backlog.BUSY_S + 1))
    assert backlog.explain_dropped() == backlog.RunOutcome()
    assert backlog.explain_newest().explained > 0


def test_a_run_ends_in_time_and_the_next_goes_on(models, document, store, monkeypatch) -> None:
    monkeypatch.setattr(backlog, "PART", 5)
    monkeypatch.setattr(backlog, "RUN_S", 0.0)
    store([world.decided(row, document=document) for row in world.rows(200, seed=2)])
    assert [backlog.explain_newest().explained for _ in range(2)] == [5, 5]
