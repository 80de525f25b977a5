"""The compiled passes of one batch: observe, settle, project, finish.

A batch is decided in order and exactly: what an earlier request of a batch consumes, a later one
finds gone. `observe` counts every request, writes features and signals and lists the rows the model
must score; `settle` re-reads what earlier rows consumed, calls the policy function and consumes;
`project` computes what a waiting client would meet; `finish` records refusals and draws the sample.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from decider import policy as p
from decider.contracts import feature_columns as f
from decider.contracts.signals import INDEX as S
from decider.contracts.vocabulary import MlState
from decider.engine import (
    address_table,
    decision_ids,
    features_of,
    lists,
    quota,
    sampling,
    text_hash,
)
from decider.engine.answers import ratelimit, waits
from decider.engine.buffers import (
    BAD_SCORES,
    K_KEPT,
    NO_SOURCE,
    TREAT_PLAN,
    TREAT_REFUSE,
    TREAT_SHARE,
    W_ALL_AT,
    W_ALL_BURST,
    W_ALL_RATE,
    W_ALL_TOKENS,
    W_LEASE_WAIT,
    W_ML,
    W_OBSERVE,
    W_PRIOR_VALUE,
    W_QUOTA_SHARE,
    W_SKEW,
    W_TREAT,
    WAITS,
    WANTS_LEASE,
    WANTS_PROFILE,
    Batch,
)
from decider.engine.memory import app_state as apps
from decider.engine.memory import error_budget, retries, source_table
from decider.engine.memory import usual as usuals
from decider.engine.shared import service_control, several, tenant_use
from decider.engine.shared import state as shared

S_OBSERVE, S_QUOTA_LIMIT, S_MULTIPLIER, S_UTILISATION = (
    S["observe_only"],
    S["quota_limit"],
    S["override_multiplier"],
    S["service_utilisation"],
)
# Seconds until an unknown app that is refused should ask again. Chosen: its profile may be on its
# way, and a customer who just signed up waits no longer.
UNKNOWN_WAIT_S = 30.0
# `begin` returns this when texts must be hashed one by one. It is below -1 - rows of any batch.
NUL_IN_TEXT = -1_000_000
ML_LIVE, ML_BAD_SCORE = int(MlState.LIVE), int(MlState.BAD_SCORE)


@njit(cache=True, inline="always")
def _tier_row(state: apps.State, slot: int) -> int:
    """Return the row that stands for all apps of an app's tier."""
    return shared.SHARED_ROWS + int(state.profile[slot, apps.P_TIER])


@njit(cache=True, inline="always")
def _standing_signals(
    state: apps.State,
    slot: int,
    region: shared.Region,
    subjects: lists.Subjects,
    rules: p.Rules,
    batch: Batch,
    i: int,
    wall: float,
    found: np.ndarray,
) -> None:
    """Write the signals that earlier rows of the batch cannot change.

    They are tier, rules in force at `wall` (unix seconds), prices and priors. `found`: scratch,
    float64 (4,).
    """
    request, sig, world = batch.request[i], batch.signals[i], batch.world
    tier = int(state.profile[slot, apps.P_TIER])
    # nothing found: not listed, no compliance rule, no override, multiplier 1
    found[0], found[1], found[2], found[3] = 0.0, 0.0, -1.0, 1.0
    lists.consult(subjects, lists.APP, request["app"], wall, found)
    lists.consult(subjects, lists.TENANT, state.tenant_key[slot], wall, found)
    if request["source"] != 0:
        lists.consult(subjects, lists.SOURCE, request["source"], wall, found)
    if request["network"] != 0:
        lists.consult(subjects, lists.SOURCE, request["network"], wall, found)
    sig[p.S_TIER], sig[p.S_ML], sig[S_OBSERVE] = tier, world[W_ML], world[W_OBSERVE]
    sig[p.S_LIST], sig[p.S_COMPLIANCE] = found[0], found[1]
    sig[p.S_OVERRIDE], sig[S_MULTIPLIER] = found[2], found[3]
    sig[S_QUOTA_LIMIT] = rules.tiers[tier, p.T_QUOTA]
    sig[p.S_QUOTA_RESET] = 86_400.0 * (1 + math.floor(wall / 86_400.0)) - wall
    sig[p.S_RATE], sig[p.S_BURST] = (
        rules.tiers[tier, p.T_RATE] * found[3],
        rules.tiers[tier, p.T_BURST] * found[3],
    )
    sig[p.S_COST], sig[p.S_BATCHABLE] = batch.answer[i]["cost"], request["batchable"]
    row = region.service[region.pair[batch.answer[i]["pair"]]["service"]]
    sig[p.S_PRICE], sig[S_UTILISATION] = row[shared.PRICE], row[shared.UTILISATION]
    sig[p.S_FAIR] = tenant_use.fair_share(region, batch.answer[i]["pair"])
    sig[p.S_PRIOR_RISK] = state.profile[slot, apps.P_COHORT]
    sig[p.S_PRIOR_VALUE] = world[W_PRIOR_VALUE]
    # the row may still hold the hint of an earlier batch
    sig[p.S_RETRY_HINT] = 0.0


@njit(cache=True, inline="always")
def _spent_signals(
    state: apps.State,
    slot: int,
    region: shared.Region,
    sources: source_table.Sources,
    rules: p.Rules,
    batch: Batch,
    i: int,
    now: float,
) -> None:
    """Write the signals of what each admitted request consumes.

    They are tokens, quota, error budget, the tenant's use, and the wait of unknown apps.
    """
    sig, tier = batch.signals[i], int(batch.signals[i][p.S_TIER])
    sig[p.S_TOKENS] = apps.refill(state, slot, now, sig[p.S_RATE], sig[p.S_BURST])
    own = rules.tiers[tier, p.T_QUOTA] * batch.world[W_QUOTA_SHARE]
    sig[p.S_QUOTA_LEFT] = quota.left(state, slot, now + batch.world[W_SKEW], own)
    sig[p.S_LEASE] = (
        batch.world[W_LEASE_WAIT] if quota.may_lease(state, slot, sig[S_QUOTA_LIMIT]) else 0.0
    )
    sig[p.S_USAGE] = region.pair[batch.answer[i]["pair"]]["use"]
    sig[p.S_BUDGET_RATE] = p.error_budget_rate(sig, rules)
    sig[p.S_BUDGET] = error_budget.left(state, slot, now, sig[p.S_BUDGET_RATE])
    known = state.profile[slot, apps.P_KNOWN] >= apps.KNOWN
    unlimited = known or batch.world[W_TREAT] == TREAT_PLAN
    sig[p.S_UNKNOWN_WAIT] = 0.0 if unlimited else _unknown_wait(sources, batch, i, now)


@njit(cache=True)
def _unknown_wait(sources: source_table.Sources, batch: Batch, i: int, now: float) -> float:
    """Return the seconds after which an unknown app gets more, 0 when there is room."""
    world, sig = batch.world, batch.signals[i]
    if world[W_TREAT] == TREAT_REFUSE:
        return UNKNOWN_WAIT_S
    source = np.uint64(batch.request[i]["source"])
    own = source_table.refill(sources, source, sig[p.S_RATE], sig[p.S_BURST], now)
    passed = max(0.0, now - world[W_ALL_AT])
    world[W_ALL_TOKENS] = min(world[W_ALL_BURST], world[W_ALL_TOKENS] + passed * world[W_ALL_RATE])
    world[W_ALL_AT] = max(now, world[W_ALL_AT])
    return max(0.0, (1.0 - own) / sig[p.S_RATE], (1.0 - world[W_ALL_TOKENS]) / world[W_ALL_RATE])


@njit(cache=True)
def _place_all(table: np.ndarray, count: int, now: float) -> None:
    """Find or make the slots of the apps of `count` requests."""
    state, batch, sources = (
        address_table.state_in(table),
        address_table.batch_in(table),
        address_table.sources_in(table),
    )
    unknown, known = address_table.unknown_in(table), address_table.known_in(table)
    # three loops, so that the memory of all apps is on its way while the first ones are placed
    for i in range(count):
        apps.expect(state, np.uint64(batch.request[i]["app"]))
    for i in range(count):
        apps.fetch(state, np.uint64(batch.request[i]["app"]))
        source_table.fetch(sources, np.uint64(batch.request[i]["source"]))
    for i in range(count):
        batch.answer[i]["slot"] = apps.place(
            state, np.uint64(batch.request[i]["app"]), now, unknown, known
        )


@njit(cache=True)
def observe(table: np.ndarray, count: int, now: float) -> int:
    """Count `count` requests and write their features and signals.

    Return how many rows, listed in `batch.rows`, want a score.
    """
    state, region, batch = (
        address_table.state_in(table),
        address_table.region_in(table),
        address_table.batch_in(table),
    )
    subjects, rules, sources = (
        address_table.subjects_in(table),
        address_table.rules_in(table),
        address_table.sources_in(table),
    )
    _place_all(table, count, now)
    usual, paces = address_table.usual_in(table), np.zeros(2)
    loads = address_table.several_in(table)
    view, address, found, ranked = np.zeros(3), np.zeros(3), np.zeros(4), 0
    wall = now + batch.world[W_SKEW]
    for i in range(count):
        request, answer, slot = batch.request[i], batch.answer[i], batch.answer[i]["slot"]
        tenant, kind = state.tenant[slot], request["kind"]
        token, source = np.uint64(request["token"]), np.uint64(request["source"])
        path, endpoint = np.uint64(request["path"]), np.uint64(request["endpoint"])
        cost, size, attempt = request["cost"], request["kilobytes"], request["attempt"]
        new = state.clock[slot, apps.LAST] == 0.0 and state.profile[slot, apps.P_KNOWN] < apps.KNOWN
        repeat = apps.observe(
            state, slot, now, token, source, path, endpoint, cost, size, kind, attempt
        )
        source_table.note_request(sources, source, np.uint64(request["app"]), new, now)
        batch.serial[NO_SOURCE] += source == 0
        pair = several.note_demand(region, loads, batch, i, state.tenant_key[slot], tenant, now)
        _standing_signals(state, slot, region, subjects, rules, batch, i, wall, found)
        _spent_signals(state, slot, region, sources, rules, batch, i, now)
        service_control.look(region, region.pair[pair]["service"], view)
        used = state.clock[slot, apps.QUOTA_USED] / batch.signals[i][S_QUOTA_LIMIT]
        share, out = tenant_use.share_of_capacity(region, pair), batch.features[i]
        source_table.look(sources, source, now, address)
        tier_row = _tier_row(state, slot)
        usuals.look(usual, tier_row, tenant, paces)
        features_of.features_of(
            state, slot, now, wall, cost, size, used, view, share, address, paces, out
        )
        usuals.note_paces(usual, tier_row, tenant, out[f.RATE_60S])
        sig = batch.signals[i]
        sig[p.S_WITHHELD] = p.withheld(sig[p.S_BURST], int(sig[p.S_TIER]), out, rules)
        answer["repeat"], sig[p.S_WAITED] = repeat, waits.take_place(state, slot, repeat)
        state.clock[slot, apps.LAST] = now
        batch.scores[i, :] = np.nan
        # count all earlier rows of this app as admitted, so that each row that may want a score has
        # one
        batch.signals[i][p.S_TOKENS] -= state.clock[slot, apps.PENDING]
        state.clock[slot, apps.PENDING] += 1.0
        answer["ranked"] = wanted = p.wants_rank(sig, out, rules)
        batch.rows[ranked] = i
        ranked += wanted
    for i in range(count):
        state.clock[batch.answer[i]["slot"], apps.PENDING] = 0.0
    return ranked


@njit(cache=True, inline="always")
def _consume(
    state: apps.State,
    region: shared.Region,
    loads: np.ndarray,
    sources: source_table.Sources,
    batch: Batch,
    i: int,
    slot: int,
    admitted: bool,
    now: float,
) -> None:
    """Take what an admitted request costs, or remember that it was refused."""
    sig, request, clock = batch.signals[i], batch.request[i], state.clock
    if admitted:
        # one burst of debt at most: no headroom is larger
        clock[slot, apps.TOKENS] = max(-sig[p.S_BURST], clock[slot, apps.TOKENS] - 1.0)
        clock[slot, apps.QUOTA_LEFT] -= 1.0
        clock[slot, apps.QUOTA_USED] += 1.0
        unknown = state.profile[slot, apps.P_KNOWN] < apps.KNOWN
        if unknown and batch.world[W_TREAT] == TREAT_SHARE:
            source_table.spend(sources, np.uint64(request["source"]), now)
            batch.world[W_ALL_TOKENS] -= 1.0
        owner, number = state.tenant_key[slot], state.tenant[slot]
        several.note_admitted(region, loads, batch, i, owner, number)
        return
    state.counts[slot, apps.C_REFUSED] += 1.0
    stage = batch.answer[i]["stage"]
    by_ml = stage == p.TRIAGE or stage == p.RANK or stage == p.RERANK
    # at the bottom of the headroom ML had no choice: the plan refuses there
    if by_ml and sig[p.S_BUDGET_RATE] < 1.0 and not p.headroom_spent(sig):
        error_budget.note_ml_refused(state, slot, batch.scores[i, 2])


@njit(cache=True, inline="always")
def _wants_profile(state: apps.State, slot: int) -> int:
    """Return WANTS_PROFILE once, then 0: no app's profile is asked for with every request."""
    mark = state.profile[slot, apps.P_KNOWN]
    if mark in (0.0, apps.LISTED):
        state.profile[slot, apps.P_KNOWN] = apps.ASKED if mark == 0.0 else apps.LISTED_ASKED
        return WANTS_PROFILE
    return 0


@njit(cache=True)
def settle(table: np.ndarray, count: int, now: float) -> int:
    """Decide and consume, row by row.

    Return how many rows, listed in `batch.rows`, need a forecast of their wait.
    """
    state, region, batch, rules, sources = (
        address_table.state_in(table),
        address_table.region_in(table),
        address_table.batch_in(table),
        address_table.rules_in(table),
        address_table.sources_in(table),
    )
    loads, waiting = address_table.several_in(table), 0
    for i in range(count):
        answer, sig = batch.answer[i], batch.signals[i]
        slot = answer["slot"]
        # here and not in `observe`: later requests of the batch must not add to this row's budget
        if rules.tiers[int(sig[p.S_TIER]), p.T_ERROR_BUDGET] < 1.0:
            error_budget.note_asked(state, slot)
        _spent_signals(state, slot, region, sources, rules, batch, i, now)
        if not p.wants_rank(sig, batch.features[i], rules):
            batch.scores[i, :] = np.nan
            answer["ranked"] = 0
        elif not (0.0 <= batch.scores[i, 2] <= 1.0 and 0.0 <= batch.scores[i, 3] <= 1.0):
            sig[p.S_ML] = ML_BAD_SCORE
            batch.serial[BAD_SCORES] += 1
            batch.scores[i, :] = np.nan
            answer["ranked"] = 0
        action, stage, reason, wait = p.decide(
            sig, batch.features[i], batch.scores[i, 2], batch.scores[i, 3], rules
        )
        answer["action"], answer["stage"], answer["reason"], answer["retry_after"] = (
            action,
            stage,
            reason,
            wait,
        )
        passed = action == p.ADMIT or sig[S_OBSERVE] != 0.0
        _consume(state, region, loads, sources, batch, i, slot, passed, now)
        wants = 0
        if batch.world[W_QUOTA_SHARE] < 1.0:
            answer["lease"] = quota.lease_size(
                state, slot, sig[p.S_RATE], sig[p.S_BURST], sig[S_QUOTA_LIMIT]
            )
            wants = (
                WANTS_LEASE
                if quota.wants_lease(state, slot, answer["lease"], sig[S_QUOTA_LIMIT])
                else 0
            )
        answer["wants"] = wants | _wants_profile(state, slot)
        if wait > 0.0 and answer["ranked"] != 0 and stage != p.OVERRIDE:
            # a client that comes back early gets the deadline it was told, not a new one
            promised = state.clock[slot, apps.RETRY_UNTIL] - now
            if promised >= 1.0 and not waits.gets_place(state, slot, sig, answer["repeat"]):
                sig[p.S_RETRY_HINT] = promised
            else:
                batch.rows[waiting] = i
                waiting += 1
    return waiting


@njit(cache=True)
def project(table: np.ndarray, low: np.ndarray, high: np.ndarray, count: int, now: float) -> None:
    """Write into `ahead` how the refused rows `batch.rows[:count]` would look if sent again.

    Each is sent again after WAITS[(low + high) // 2]. It is counted in a copy of its app's slot, as
    `observe` will count it.
    """
    state, region, batch, ahead = (
        address_table.state_in(table),
        address_table.region_in(table),
        address_table.batch_in(table),
        address_table.ahead_in(table),
    )
    trial, rules, sources = (
        address_table.trial_in(table),
        address_table.rules_in(table),
        address_table.sources_in(table),
    )
    usual, paces = address_table.usual_in(table), np.zeros(2)
    view, address = np.zeros(3), np.zeros(3)
    for k in range(count):
        i = batch.rows[k]
        request, slot, sig = batch.request[i], batch.answer[i]["slot"], ahead.signals[k]
        wait = WAITS[(low[k] + high[k]) // 2]
        apps.copy(state, slot, trial)
        token, source = np.uint64(request["token"]), np.uint64(request["source"])
        path, endpoint = np.uint64(request["path"]), np.uint64(request["endpoint"])
        cost, size = request["cost"], request["kilobytes"]
        kind, attempt = request["kind"], request["attempt"]
        # as `finish` will note it, once the wait is known
        retries.note(trial.refused, 0, now, path, token, endpoint, wait)
        apps.observe(trial, 0, now + wait, token, source, path, endpoint, cost, size, kind, attempt)
        service_control.look(region, region.pair[batch.answer[i]["pair"]]["service"], view)
        source_table.look(sources, source, now + wait, address)
        usuals.look(usual, _tier_row(state, slot), state.tenant[slot], paces)
        features_of.features_of(
            trial,
            0,
            now + wait,
            now + wait + batch.world[W_SKEW],
            request["cost"],
            request["kilobytes"],
            batch.features[i][f.QUOTA_USED],
            view,
            batch.features[i][f.TENANT_SHARE],
            address,
            paces,
            ahead.features[k],
        )
        sig[:] = batch.signals[i]
        sig[p.S_WITHHELD] = p.withheld(sig[p.S_BURST], int(sig[p.S_TIER]), ahead.features[k], rules)
        sig[p.S_TOKENS] = min(sig[p.S_BURST], state.clock[slot, apps.TOKENS] + wait * sig[p.S_RATE])
        # whatever others send until then, the load will not count against it. Its place is not
        # counted here, because the wait must be long enough without one
        sig[p.S_PRICE], sig[p.S_WAITED] = 0.0, 0.0
        sig[p.S_BUDGET_RATE] = p.error_budget_rate(sig, rules)
        if sig[p.S_BUDGET_RATE] < 1.0:
            error_budget.note_asked(trial, 0)
        sig[p.S_BUDGET] = error_budget.left(trial, 0, now + wait, sig[p.S_BUDGET_RATE])


@njit(cache=True)
def narrow(table: np.ndarray, low: np.ndarray, high: np.ndarray, count: int) -> None:
    """Do one step of the search for the shortest wait that admits.

    Move `high` down where `ahead` is admitted, `low` up where it is not.
    """
    ahead, rules = address_table.ahead_in(table), address_table.rules_in(table)
    for k in range(count):
        middle = (low[k] + high[k]) // 2
        action = p.decide(
            ahead.signals[k], ahead.features[k], ahead.scores[k, 2], ahead.scores[k, 3], rules
        )[0]
        if action == p.ADMIT:
            high[k] = middle
        else:
            low[k] = min(middle + 1, high[k])


@njit(cache=True)
def promise(table: np.ndarray, high: np.ndarray, count: int, now: float) -> None:
    """Write the waits found into the signals, and keep places where a service is short of room."""
    batch, state = address_table.batch_in(table), address_table.state_in(table)
    region = address_table.region_in(table)
    for k in range(count):
        i = batch.rows[k]
        told = max(WAITS[high[k]], waits.least(region, batch, i, now))
        # what an app was told before for another request holds for this one, too
        promised = state.clock[batch.answer[i]["slot"], apps.RETRY_UNTIL] - now
        batch.signals[i][p.S_RETRY_HINT] = max(told, promised) if promised >= 1.0 else told


@njit(cache=True)
def finish(table: np.ndarray, count: int, now: float) -> int:
    """Write waits, deadlines, figures, counts and the sample.

    Return how many rows, listed in `batch.rows`, Python must look at.
    """
    state, batch, sample, rules = (
        address_table.state_in(table),
        address_table.batch_in(table),
        address_table.sample_in(table),
        address_table.rules_in(table),
    )
    decision_ids.identify(batch, count, now + batch.world[W_SKEW])
    notable = 0
    for i in range(count):
        answer, sig = batch.answer[i], batch.signals[i]
        action, slot = answer["action"], answer["slot"]
        if answer["retry_after"] > 0.0:
            told = p.retry_after(action, answer["reason"], sig)
            # a client that came back early is told the old deadline, which has its jitter already
            if told != state.clock[slot, apps.RETRY_UNTIL] - now:
                told = waits.with_jitter(told, waits.draw(batch.request[i]["app"], now))
            answer["retry_after"] = sig[p.S_RETRY_HINT] = told
        ratelimit.tell(answer, sig, rules, state, slot, now)
        if answer["answered"] != p.ADMIT:
            waits.note_refused(state, slot, batch, i, now)
        sample.counts[action] += 1
        probability = sampling.inclusion(sample, action, int(sig[p.S_TIER]), now)
        kept = np.random.random() < probability
        answer["probability"], answer["kept"] = probability, kept
        if kept:
            sample.state[K_KEPT] += 1.0
        if kept or answer["wants"] != 0 or answer["answered"] != p.ADMIT:
            batch.rows[notable] = i
            notable += 1
    return notable


@njit(cache=True)
def hash_texts(table: np.ndarray, count: int, length: int) -> bool:
    """Hash the texts of the first `count` requests: the first `length` bytes of `texts`.

    There are four for each request, in the order of `buffers.HASHED`. Return whether they end at
    `length`; they do not when one of them holds a NUL itself.
    """
    texts, batch = address_table.texts_in(table), address_table.batch_in(table)
    at = 0
    for i in range(count):
        request = batch.request[i]
        request["app"], at = text_hash.hash_next(texts.buffer, at, texts.key)
        request["token"], at = text_hash.hash_next(texts.buffer, at, texts.key)
        request["source"], at = text_hash.hash_next(texts.buffer, at, texts.key)
        request["path"], at = text_hash.hash_next(texts.buffer, at, texts.key)
    return at == length


@njit(cache=True)
def begin(
    table: np.ndarray,
    count: int,
    length: int,
    now: float,
    ml: int,
    observe_only: bool,
    quota_share: float,
    lease_wait: float,
) -> int:
    """Observe `count` requests and, when no row wants a score, decide them at once.

    Hash their `length` bytes of texts first; 0 when they are hashed already. Return -1 - rows to
    rank, listed in `batch.rows`; or, when all is decided, what `finish` returns; or NUL_IN_TEXT,
    when nothing was done.
    """
    # one call for all of it: a lone request pays more for a call than for what is done in it
    if length > 0 and not hash_texts(table, count, length):
        return NUL_IN_TEXT
    world = address_table.batch_in(table).world
    world[W_ML], world[W_OBSERVE], world[W_QUOTA_SHARE], world[W_LEASE_WAIT] = (
        ml,
        observe_only,
        quota_share,
        lease_wait,
    )
    ranked = observe(table, count, now)
    if ranked > 0:
        return -1 - ranked
    settle(table, count, now)
    return finish(table, count, now)


@njit(cache=True)
def conclude(table: np.ndarray, count: int, now: float) -> int:
    """Decide rows that are observed and scored.

    Return -1 - rows to forecast, listed in `batch.rows`, after which `finish` is due; or what
    `finish` returns.
    """
    waiting = settle(table, count, now)
    return -1 - waiting if waiting > 0 else finish(table, count, now)


@njit(cache=True)
def track(table: np.ndarray, keys: np.ndarray, slots: np.ndarray, count: int, now: float) -> None:
    """Write into `slots` the slots of `count` apps, made where missing. `keys`: hashes of their
    ids.
    """
    state, unknown = address_table.state_in(table), address_table.unknown_in(table)
    known = address_table.known_in(table)
    for k in range(count):
        slots[k] = apps.place(state, np.uint64(keys[k]), now, unknown, known)


@njit(cache=True)
def learn(table: np.ndarray, outcomes: np.ndarray, count: int, now: float) -> None:
    """Count the first `count` outcomes (dtype OUTCOME)."""
    state, region, sources = (
        address_table.state_in(table),
        address_table.region_in(table),
        address_table.sources_in(table),
    )
    usual = address_table.usual_in(table)
    for i in range(count):
        service_control.note_answer(
            region,
            int(outcomes[i]["service"]),
            int(outcomes[i]["status"]),
            outcomes[i]["latency_ms"],
            now,
        )
        slot = apps.find(state, np.uint64(outcomes[i]["app"]))
        if slot >= 0:
            status, size = int(outcomes[i]["status"]), outcomes[i]["bytes"]
            answers = apps.answers_600s(state, slot)
            unusual = usuals.note_answer(
                usual, np.uint64(outcomes[i]["endpoint"]), status, size, answers
            )
            apps.note_answer(state, slot, now, status, unusual)
            source_table.note_answer(sources, state.origin[slot], 400 <= status < 500, now)
