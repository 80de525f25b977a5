"""The way back to admit: the smallest change in what an app's owner controls that would have been
admitted.

`decider.whatif.levers` says what can be changed, and what moves with it. Each lever is tried at
every round figure from the smallest change on, then pairs of levers, then as many as it takes. A
way back is returned only if the policy function and the model of the record decide the changed
request again (`replay.decide_under`) and admit it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from decider import policy
from decider.contracts.config import Config
from decider.contracts.event import Event
from decider.contracts.signals import INDEX as S
from decider.contracts.units import cut_figures
from decider.contracts.vocabulary import Action, MlState, Reason, Stage
from decider.engine.routing import WRITES, endpoints_at
from decider.scoring.model import Model
from decider.whatif import replay
from decider.whatif.levers import BY_NAME, LEVERS, Lever
from decider.whatif.moves import Ground
from explain.recourse import choice, grid, text
from explain.recourse.ways import Change, Recourse, Way

# A level is steady when it and the next levels, this many in all, are admitted: advice on the edge
# helps nobody.
STEADY_LEVELS = 3
# A way that is admitted with less risk than this to spare is called narrow. Chosen: with two digits
# both figures would read alike.
NARROW = 0.01
# Levels of each lever that are tried in pairs: 81 combinations a pair of levers keep a search with
# all pairs at tens of milliseconds.
PAIR_LEVELS = 9

_NOT_THE_OWNERS = {
    Reason.BLOCK_LISTED: "It is on the block list. Only people here can take it off.",
    Reason.COMPLIANCE: "A compliance rule forbids it, whatever the app does.",
    Reason.UNKNOWN_APP: (
        "Its app id has no profile here, and such apps share what room there is. An app id that is"
        " known would not."
    ),
    Reason.OVERRIDE_REFUSE: (
        "An operator override refuses it until it expires, whatever the app does."
    ),
}
NOTHING_FOUND = "Nothing that was tried would have admitted it, alone or together."
UNTRIED = (
    "Not tried: other endpoints or methods, and what no owner changes (tier, age, cohort, history)."
)
NO_WAIT = "After a block no wait is promised: a person has to look at it."
MODEL_AWAY = "The model that decided is not here, so no change can be verified."


# Not frozen: the arrays are scratch of one search and never leave it.
class _Case:
    """One refusal, ready to be decided again many times."""

    def __init__(self, event: Event, config: Config, model: Model | None) -> None:
        self.event, self.config, self.model, self.rules = (
            event,
            config,
            model,
            policy.rules_of(config),
        )
        signals, features = replay.vectors(event)
        # float64 while levers move, so that several moves do not add up rounding errors.
        self.x, self.s = features.astype(np.float64), signals
        self.s[S["retry_hint"]] = 0.0
        self.batch = _batch_form(event, config)
        self.ground = _ground(event, config, self.s, self.batch)

    def decide(
        self, x: NDArray[np.float64], s: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return (actions, risks) of n changed records; risk is NaN where no model is asked."""
        # The model is asked only where the policy would ask it, as the engine does: a change that
        # avoids ranking is judged without a risk.
        rows, count = x.astype(np.float32), len(x)
        wanted = np.array(
            [policy.wants_rank(s[k], rows[k], self.rules) for k in range(count)], bool
        )
        risk, value = np.full(count, np.nan), np.full(count, np.nan)
        if self.model is not None and wanted.any():
            scores = self.model.score(np.ascontiguousarray(rows[wanted]))
            risk[wanted], value[wanted] = scores.risk, scores.value
        actions = [
            policy.decide(s[k], rows[k], risk[k], value[k], self.rules)[0] for k in range(count)
        ]
        return np.array(actions, np.int64), risk

    def moved(
        self, *pulls: tuple[Lever, NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return features and signals with the levers pulled, row by row."""
        count = len(pulls[0][1])
        x, s = np.tile(self.x, (count, 1)), np.tile(self.s, (count, 1))
        for lever, level in pulls:
            lever.move(x, s, level, self.ground)
        return x, s


def _batch_form(event: Event, config: Config) -> str:
    found = endpoints_at(config.services, event.service).get((event.method, event.endpoint))
    return found.batch if found else ""


def _ground(event: Event, config: Config, s: NDArray[np.float64], batch: str) -> Ground:
    # The batch form has a cost of its own. Without an entry it costs what the request did.
    method, _, template = batch.partition(" ")
    form = endpoints_at(config.services, event.service).get((method, template))
    return Ground(
        quota=float(s[S["quota_limit"]]) / max(1, config.nodes),
        budget_per_hour=0.0
        if s[S["error_budget_rate"]] > 0.0
        else config.tiers[event.tier].error_budget_per_hour,
        batch_cost=form.cost if form else float(s[S["cost"]]),
        batch_writes=method in WRITES,
        at=event.at,
        told=0.0 if event.observed else event.retry_after,
    )


def find_recourse(event: Event, config: Config, model: Model | None, named: str = "") -> Recourse:
    """Return the recourse of a refusal; an admit has none. `config` and `model` are those it was
    decided with. `named`: feature of its strongest reason, "" where that did not decide. A search
    takes milliseconds, so a page can wait for it.

    Raises ReplayError when the record cannot be decided again here.
    """
    if event.action == Action.ADMIT:
        return Recourse(none="It was admitted.")
    if (why := _NOT_THE_OWNERS.get(Reason(event.reason))) or event.stage == Stage.OVERRIDE:
        return Recourse(none=why or _NOT_THE_OWNERS[Reason.OVERRIDE_REFUSE])
    if model is None and event.ml_state == MlState.LIVE:
        return Recourse(none=MODEL_AWAY)
    return _search_ways(_Case(event, config, model), named)


def _search_ways(case: _Case, named: str) -> Recourse:
    """Return the recourse of a refusal that its owner can do something about."""
    event = case.event
    levels = {
        lever.name: grid.list_levels(
            lever.name, case.x, case.s, bool(case.batch), event.reason, case.ground.told
        )
        for lever in LEVERS
        if lever.name != "wait" or Action(event.action).waits
    }
    levels = {name: found for name, found in levels.items() if len(found)}
    ways, missed = _search_single(case, levels)
    # Two changes are harder advice than one, so pairs are searched only when no single lever works,
    # and more changes only when no pair does.
    if not ways and (way := _search_pairs(case, levels) or _search_more(case, levels)):
        ways = [way]
    ways = choice.order_ways(ways, event, named)
    missed = choice.choose_misses(missed, ways, event, named)
    return Recourse(
        tuple(_with_edge(case, way) for way in ways),
        tuple(_with_edge(case, way) for way in missed),
        "" if ways else _explain_none(case, levels),
        choice.describe_named(ways, missed, named),
    )


def _search_single(
    case: _Case, levels: dict[str, NDArray[np.float64]]
) -> tuple[list[Way], list[Way]]:
    """Return the smallest admitted level of each lever, and for levers without one the outcome of
    their largest change.

    Unsteady ways, whose next levels are refused, are dropped when any lever has a steady one.
    """
    ways, missed = [], []
    stacked = [case.moved((BY_NAME[name], found)) for name, found in levels.items()]
    if not stacked:
        return [], []
    # All levels of all levers in one batch: the model is called once instead of once a lever.
    actions, risks = case.decide(
        np.concatenate([x for x, _ in stacked]), np.concatenate([s for _, s in stacked])
    )
    start = 0
    for name, found in levels.items():
        mine = slice(start, start + len(found))
        start += len(found)
        first = _first_admitted(actions[mine] == Action.ADMIT)
        if first is not None and (way := _verify(case, (name, found[first[0]]), steady=first[1])):
            ways.append(way)
        elif first is None:
            last = int(actions[mine][-1]), float(risks[mine][-1])
            missed.append(_describe_miss(case, name, float(found[-1]), *last))
    missed.sort(key=lambda way: 1.0 if way.risk is None else way.risk)
    return _drop_lesser(ways), missed


def _describe_miss(case: _Case, name: str, level: float, action: int, risk: float) -> Way:
    """Return what a lever's largest change leads to; `risk` is NaN where no model was asked."""
    return _describe(case, ((name, level),), action, None if math.isnan(risk) else risk)


def _drop_lesser(ways: list[Way]) -> list[Way]:
    """Return the steady ways, or all when none is steady, without ways that a better one makes
    needless.
    """
    ways = [way for way in ways if way.steady] or ways
    # Pace asks for fewer requests. Where spreading them is enough, that is needless.
    if any(way.changes[0].lever == "spread" for way in ways):
        return [way for way in ways if way.changes[0].lever != "pace"]
    return ways


def _first_admitted(admitted: NDArray[np.bool_]) -> tuple[int, bool] | None:
    """Return the index of the first steady level and True; without one, that of the first admitted
    level and False. Return None when all levels are refused.
    """
    hits = np.flatnonzero(admitted)
    steady = next((int(k) for k in hits if admitted[k : k + STEADY_LEVELS].all()), None)
    if steady is not None:
        return steady, True
    return (int(hits[0]), False) if len(hits) else None


def _search_pairs(case: _Case, levels: dict[str, NDArray[np.float64]]) -> Way | None:
    """Return the smallest admitted change of two levers together, at coarse levels."""
    pulls: list[tuple[str, NDArray[np.float64], str, NDArray[np.float64]]] = []
    for one, two in combinations(grid.order_levers(levels), 2):
        if frozenset((one, two)) not in grid.OVERLAPPING:
            a, b = np.meshgrid(
                grid.thin_out(levels[one], PAIR_LEVELS),
                grid.thin_out(levels[two], PAIR_LEVELS),
                indexing="ij",
            )
            pulls.append((one, a.ravel(), two, b.ravel()))
    if not pulls:
        return None
    moved = [case.moved((BY_NAME[one], a), (BY_NAME[two], b)) for one, a, two, b in pulls]
    actions, _ = case.decide(
        np.concatenate([x for x, _ in moved]), np.concatenate([s for _, s in moved])
    )
    tried = [
        ((one, float(p)), (two, float(q)))
        for one, a, two, b in pulls
        for p, q in zip(a, b, strict=True)
    ]
    admitted = [pair for pair, action in zip(tried, actions, strict=True) if action == Action.ADMIT]
    # The scores of the batch only propose pairs. The smallest that a replay confirms is returned.
    admitted.sort(key=lambda pair: _effort(case, pair))
    return next((way for pair in admitted if (way := _verify(case, *pair))), None)


def _search_more(case: _Case, levels: dict[str, NDArray[np.float64]]) -> Way | None:
    """Return an admitted change of as many levers as it takes; None when all together do not help.

    From all levers at their ends, one after the other is dropped if the rest is enough. Then each
    is set to its smallest level that is admitted beside the others. Another order might drop more.
    """
    at = {name: float(levels[name][-1]) for name in _largest_changes(levels)}
    if len(at) <= 2 or not _admitted(case, at).all():
        return None
    # The largest change is dropped first.
    for name in sorted(at, key=lambda n: -_effort(case, ((n, at[n]),))):
        less = {n: level for n, level in at.items() if n != name}
        if less and _admitted(case, less).all():
            at = less
    steady = True
    for name in at:
        first = _first_admitted(_admitted(case, at, name, levels[name]))
        if first is not None:
            at[name], steady = float(levels[name][first[0]]), steady and first[1]
    return _verify(case, *at.items(), steady=steady)


def _largest_changes(levels: dict[str, NDArray[np.float64]]) -> list[str]:
    """Return the levers to pull all together, without those that a larger one contains."""
    # Batching is left out, because it replaces the request by another one, at another cost. Levers
    # that overlap with pace or paths are left out, because these two are the same change and more.
    names = [n for n in grid.order_levers(levels) if n != "batch"]
    for more in ("pace", "paths"):
        if more in names:
            names = [n for n in names if frozenset((n, more)) not in grid.OVERLAPPING]
    return names


def _admitted(
    case: _Case,
    at: dict[str, float],
    varied: str = "",
    levels: NDArray[np.float64] | None = None,
) -> NDArray[np.bool_]:
    """Return whether the record is admitted with each lever at its level in `at`, as bool (1,).

    With `varied`, that lever takes each of `levels` instead, and the result is bool (n,).
    """
    steps = np.zeros(1) if levels is None else levels
    pulls = ((n, steps if n == varied else np.full(len(steps), at[n])) for n in at)
    actions, _ = case.decide(*case.moved(*((BY_NAME[n], found) for n, found in pulls)))
    admits: NDArray[np.bool_] = actions == Action.ADMIT
    return admits


def _explain_none(case: _Case, levels: dict[str, NDArray[np.float64]]) -> str:
    """Return why there is no recourse: what was tried, and what all of it together leads to."""
    waits = Action(case.event.action).waits
    parts = [NOTHING_FOUND] if levels else ["Its owner had nothing to change that can be tried."]
    if levels:
        parts += [_say_together(case, levels), text.list_tried(levels)]
    return " ".join(part for part in (*parts, UNTRIED, "" if waits else NO_WAIT) if part)


def _say_together(case: _Case, levels: dict[str, NDArray[np.float64]]) -> str:
    """Return what every lever at its end leads to; "" where no risk can be told."""
    # Batching is left out, because it replaces the request by another one, at another cost.
    record = _record(
        case,
        tuple((n, float(levels[n][-1])) for n in grid.order_levers(levels) if n != "batch"),
    )
    again = replay.decide_under(record, case.config, case.model)
    if again.action == Action.ADMIT or again.risk is None:
        return ""
    # The record's own threshold does not hold, because tokens, load and value change as well.
    edge = _edge(case, record, again, up=True)
    then = text.DID[Action(again.action)]
    still = "still " if again.action == case.event.action else ""
    if edge is None:
        figures = f"risk {again.risk:.2f}, and {then} at any lower risk too"
    else:
        risk, cut = cut_figures(again.risk, edge)
        figures = f"risk {risk}, at or above the {cut} from which it is {then}"
    return f"With all of it at once it would {still}have been {then}: {figures}."


def _effort(case: _Case, pulls: tuple[tuple[str, float], ...]) -> float:
    return sum(
        grid.measure_effort(name, grid.find_level(name, case.x, case.s), level)
        for name, level in pulls
    )


def apply_changes(event: Event, config: Config, changes: tuple[Change, ...]) -> Event:
    """Return the record as it would have been with these changes, ready to be decided again. Raises
    ReplayError when the record cannot be read here.
    """
    case = _Case(event, config, None)
    return _record(case, tuple((change.lever, change.after) for change in changes))


def _record(case: _Case, pulls: tuple[tuple[str, float], ...]) -> Event:
    x, s = case.moved(*((BY_NAME[name], np.array([level])) for name, level in pulls))
    return msgspec.structs.replace(
        case.event,
        features=x[0].astype("<f4").tobytes(),
        signals=s[0].astype("<f8").tobytes(),
        action=int(Action.ADMIT),
    )


def _with_edge(case: _Case, way: Way) -> Way:
    """Return the way with the risk at which its action would change."""
    if way.risk is None:
        return way
    record = _record(case, tuple((change.lever, change.after) for change in way.changes))
    again = replay.decide_under(record, case.config, case.model)
    edge = _edge(case, record, again, up=not way.admits)
    if way.admits and edge is not None and edge - way.risk < NARROW:
        way = replace(way, was=f"{way.was}. Only just" if way.was else "Only just")
    return replace(way, edge=edge)


def _edge(case: _Case, record: Event, again: replay.Again, *, up: bool) -> float | None:
    """Return the risk at which the action of a changed record begins (with `up`) or ends. Return
    None where the action begins at 0, or ends at 1, or no model was asked.
    """
    scored = msgspec.structs.replace(record, risk=again.risk, value=again.value)
    found = replay.threshold(scored, case.config)
    return None if found is None else found.up if up else found.down


def _verify(case: _Case, *pulls: tuple[str, float], steady: bool = True) -> Way | None:
    """Return the way if a replay of the changed record admits it, else None."""
    again = replay.decide_under(_record(case, pulls), case.config, case.model)
    return (
        _describe(case, pulls, again.action, again.risk, steady=steady)
        if again.action == Action.ADMIT
        else None
    )


def _describe(
    case: _Case,
    pulls: tuple[tuple[str, float], ...],
    action: int,
    risk: float | None,
    *,
    steady: bool = True,
) -> Way:
    changes = tuple(_change(case, name, level) for name, level in pulls)
    price = float(policy.price_for(case.s, policy.USE_ALL))
    said = text.describe_way(
        changes, case.event, case.batch, action, price=price, steady=steady, risk=risk
    )
    return Way(
        changes,
        action,
        risk,
        said.sentence,
        said.short,
        said.was,
        _effort(case, pulls),
        steady,
        unchanged=action == case.event.action,
    )


def _change(case: _Case, name: str, level: float) -> Change:
    lever, before = BY_NAME[name], grid.find_level(name, case.x, case.s)
    return Change(name, lever.label, before, float(level), lever.unit)
