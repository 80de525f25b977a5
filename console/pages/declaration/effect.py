"""What a planned change would have done: to the decisions of the last hour, or to an access log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from control.deciders import keys
from control.declared.applying import Planned
from control.directory import apps as directory
from decider.contracts.config import Config
from decider.contracts.vocabulary import Action
from decider.engine.engine import Engine
from decisions import preview
from decisions.preview import Preview
from learning.logs import formats, playback
from learning.logs.playback import OfflineReplay, ReplaySummary

# Apps that an engine can track. Chosen: more than any one log is likely to name.
CAPACITY = 200_000
# Apps that are named. Chosen: enough to see who they are, few enough for a terminal.
NAMED = 8
# What a stored decision cannot tell, by the first word of a part's name: its load, prices and fair
# shares stay as they were recorded.
NOT_COUNTED = {
    "services": "routes, capacities, targets and costs",
    "tenants": "weights of tenants",
    "unknown_apps": "what unknown apps may do",
}


def preview_of(planned: Planned) -> Preview:
    """Return what the change would have done in the last hour."""
    before, after = planned.before, planned.after
    return preview.preview_change(before, after, preview.live_model(before.model))


def on_last_hour(planned: Planned, seen: Preview) -> Iterator[str]:
    """Yield lines that say what the change would have done in the last hour. `seen`: from
    `preview_of`.
    """
    if not seen.stored:
        yield "No decision was stored in the last hour, so nothing can be said about it."
        return
    yield (
        f"In the last hour, {seen.changed.words} of about {seen.total:,.0f} decisions would have"
        f" been others ({seen.looked_at:,} of {seen.stored:,} stored ones decided again):"
    )
    for change in seen.actions:
        if round(change.by):
            yield f"    {change.action.word}: {change.by:+,.0f}"
    for tier in seen.tiers:
        if tier.count.kept:
            yield f"    {tier.tier.word} tier: {tier.count.words}"
    names = directory.names(example.app for example in seen.examples)
    for example in seen.examples:
        yield (
            f"    {example.id} ({names[example.app]}): {example.before.word}, would have been"
            f" {example.after.word}"
        )
    first = dict.fromkeys(change.part[0] for change in planned.plan.changes)
    sources = any(change.part[2:3] == ("source",) for change in planned.plan.changes)
    left = [NOT_COUNTED[name] for name in first if name in NOT_COUNTED]
    left += ["rules about addresses"] * sources
    if left:
        yield (
            f"Not counted, as stored decisions do not hold it: {'; '.join(left)}. Use --log with an"
            " access log to see it."
        )


def on_log(planned: Planned, log: Path, region: str) -> Iterator[str]:
    """Yield lines that say what the change does to an access log: two engines of their own decide
    it, one under each document. Raise LogError, ReplayError.
    """
    key = keys.load_token_key(settings.SLUICE_KEYS)
    span = playback.survey_logs([log], key, formats.AUTO, None)
    end = time.time()
    found = []
    for config in (planned.before, planned.after):
        replay = OfflineReplay(_engine(config, key, region), lambda _: None, directory.profiles)
        found.append(replay.run([log], key, span=span, end=end))
    yield from _compared(*found)


def _engine(config: Config, key: bytes, region: str) -> Engine:
    engine = Engine(node=playback.NODE, region=region, token_key=key, capacity=CAPACITY)
    engine.apply(config, preview.live_model(config.model))
    return engine


def _compared(before: ReplaySummary, after: ReplaySummary) -> Iterator[str]:
    yield (
        f"Of {before.requests:,} requests of the log (clients are taken not to react to what they"
        " are told):"
    )
    for action in Action:
        was, now = before.answers[action.word], after.answers[action.word]
        if was or now:
            yield f"    {action.word}: {was:,}, would be {now:,} ({now - was:+,})"
    moved = {
        app: (
            before.refused[app].count if app in before.refused else 0,
            after.refused[app].count if app in after.refused else 0,
        )
        for app in {*before.refused, *after.refused}
    }
    most = sorted(moved, key=lambda app: (-abs(moved[app][1] - moved[app][0]), app))
    for app in most[:NAMED]:
        was, now = moved[app]
        if was != now:
            yield f"    {app}: {was:,} refused, would be {now:,}"
