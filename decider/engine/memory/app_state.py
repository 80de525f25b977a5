"""State of every tracked app as a struct of flat arrays, and the compiled steps that read and write
it.

One slot per app. A slot is found through an open-addressing table keyed by a 64-bit keyed hash of
the app id, so a client cannot aim at another app's slot. Memory is bounded: when all slots are
taken, the least recently seen of `EVICTION_PROBES` slots under a moving hand gives way (clock with
sampling), known and refused apps last; no step walks the whole table.

Rates are sliding windows of two buckets: the current clock window plus the previous one, weighed by
how much of it still lies inside (Cloudflare, "How we built rate limiting capable of scaling to
millions of domains", 2017). Distinct counts are linear counting over 64 bits (Whang, Vander-Zanden
and Taylor, 1990); they and the entropy look at the current and the previous clock minute.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from decider.engine.known_apps.table import KnownApps, look_up
from decider.engine.memory import retries
from decider.engine.memory.prefetch import prefetch
from decider.engine.memory.windows import EPOCH, WINDOWS
from decider.engine.routing import READ, SIGN_IN
from decider.engine.shared.state import SHARED_ROWS

# Slots looked at for the least recently seen one. Chosen: four times in five, the oldest of 16
# is among the oldest tenth of all, and a decision that evicts takes hardly longer
# (docs/figures.md).
EVICTION_PROBES = 16
# Seconds that are added to when an app was last seen: if it is known, and if it was refused in the
# last minutes. Chosen: a flood of made-up ids lasts no longer than the first, and the second is as
# long as the record of what the app did.
KEEP_KNOWN_S, KEEP_REFUSED_S = 3_600.0, 1_200.0

# columns of State.clock (float64): unix seconds, but for tokens, quota (days, requests) and PENDING
# (earlier requests of the batch being decided)
(
    FIRST,
    LAST,
    BUCKET_AT,
    TOKENS,
    QUOTA_DAY,
    QUOTA_USED,
    QUOTA_LEFT,
    RETRY_UNTIL,
    FEEDBACK_AT,
    SEEN,
    PENDING,
    LEASED_OUT,  # the quota of which the store had nothing left today, 0 while that is not known
    QUOTA_OWN,  # what of QUOTA_LEFT and QUOTA_USED was the node's own share and not leased
    PLACES,  # repeats of refused requests for which a place is kept from RETRY_UNTIL on
    ACTIVE_MINUTES,  # minutes in which it sent anything, since it was first seen here
    PROFILE_AT,  # when the console read what its profile says, by the profile's own time
) = range(16)
N_CLOCK = 16  # as many as there are: a row is two cache lines
# What `observe` returns: the request repeats no refused one, repeats one too soon, or in time.
FIRST_TRY, EARLY, IN_TIME = range(3)
# Seconds by which a repeat may come before its time. Chosen: clients' clocks run apart by some 100
# parts in a million, and the longest waits are some minutes.
ON_TIME_S = 0.05
# Places kept for one app at most. Chosen: a page's requests that were on their way together; a
# flood is not owed a place for each of its requests.
MOST_PLACES = 4

# columns of State.counts (float32): each pair is (current window, previous window), so one column
# stands here for two. Those from C_COST to C_PAYMENT are of the last minute.
# Requests by window, in the order of WINDOWS: window w has column 2 w.
C_1S, C_10S, C_60S, C_600S = range(0, 8, 2)
# Of requests.
C_COST, C_WRITES, C_RETRIES, C_EARLY, C_REFUSED, C_BYTES, C_SIGN_INS = range(8, 22, 2)
# Of outcomes.
C_ANSWERS, C_4XX, C_5XX, C_AUTH, C_MISSING, C_PAYMENT = range(22, 34, 2)
# Of the last ten minutes: of requests, then of outcomes. A refused client gets no answers, so what
# is known of it must last longer than its minute, or refusing it would clear its record.
L_WRITES, L_SIGN_INS, L_ANSWERS, L_4XX, L_AUTH, L_MISSING, L_UNUSUAL = range(34, 48, 2)
# Running means and the bin of the last endpoint, one column each, behind all pairs; and how many
# columns there are.
GAP_MEAN, GAP_SQUARE, PACE_HOURS, PACE_DAYS, LAST_ENDPOINT, N_COUNT = range(48, 54)

# columns of State.bits (uint64): pairs as in counts
B_ENDPOINTS, B_PATHS, B_TOKENS, B_SOURCES = range(0, 8, 2)
N_BITS = 8  # four pairs

# columns of State.profile (float32)
P_TIER, P_CREATED_DAY, P_VERIFIED, P_COHORT, P_ABUSE, P_CHARGEBACKS, P_WRONG, P_KNOWN = range(8)
N_PROFILE = 8  # as many as there are
# Values of P_KNOWN besides 0. ASKED: the profile was asked for. KNOWN: it came. LISTED,
# LISTED_ASKED: the app is in the table of known apps, and its profile was not, or was, asked for.
# An app is known from KNOWN on.
ASKED, KNOWN, LISTED, LISTED_ASKED = -1.0, 1.0, 2.0, 3.0

# Bins over which an app's endpoints, and its paths, are spread by hash. Chosen: most apps call
# fewer endpoints, and both windows of it fill one cache line.
ENTROPY_BINS = 16
# Bins over which its steps, from one endpoint to the next, are spread. Chosen: most apps take few
# different ones, and more bins would pass the 800 bytes of an app.
STEP_BINS = 8
# Minutes of traffic over which an app's own pace is averaged, in PACE_HOURS and in PACE_DAYS. They
# count minutes in which it sent something: silence at night is no slower pace.
PACE_MINUTES = np.array([120.0, 2_880.0])
# Seconds: the error budget holds over an hour, so that one bad hour is not paid for by a good day,
# and over a day, as customers count. BUDGET_SPANS: how many windows of WINDOWS[3] each spans; its
# number follows from theirs.
BUDGET_WINDOWS = np.array([3_600.0, 86_400.0])
BUDGET_SPANS = np.array([6, 144])
# Columns of the budget's arrays, pairs as in counts: the hour's, the day's.
N_BUDGET = 4

# State.meta (int64)
M_USED, M_HAND, M_EVICTED, M_STRIDE = range(4)


class State(NamedTuple):
    """Arrays of `capacity` slots; `table` is the hash table over them (slot + 1, 0 for empty)."""

    key: np.ndarray
    """uint64 (capacity,): keyed hash of the app id."""
    table: np.ndarray
    """int32 (power of two of at least twice the capacity,)."""
    clock: np.ndarray
    """float64 (capacity, N_CLOCK)."""
    window: np.ndarray
    """int32 (capacity, 4): number of the current window of each length in WINDOWS."""
    counts: np.ndarray
    """float32 (capacity, N_COUNT)."""
    bits: np.ndarray
    """uint64 (capacity, N_BITS)."""
    refused: np.ndarray
    """uint64 (capacity, retries.REFUSED): refused requests whose repeat counts as a retry."""
    bins: np.ndarray
    """uint16 (capacity, 2 * ENTROPY_BINS): requests per endpoint bin, current and previous minute.
    """
    paths: np.ndarray
    """uint16 (capacity, 2 * ENTROPY_BINS): requests per path bin, current and previous ten minutes.
    """
    steps: np.ndarray
    """uint16 (capacity, 2 * STEP_BINS): steps from endpoint to endpoint, current and previous ten
    minutes."""
    origin: np.ndarray
    """uint64 (capacity,): hash of the address that sent its latest request, 0 for none."""
    profile: np.ndarray
    """float32 (capacity, N_PROFILE)."""
    tenant: np.ndarray
    """int32 (capacity,): row of the tenant in `shared.state.Region`; several may share one."""
    tenant_key: np.ndarray
    """int64 (capacity,): keyed hash of the tenant id, 0 while it is unknown; rules go by it."""
    meta: np.ndarray
    """int64 (4,)."""
    asked: np.ndarray
    """uint32 (capacity, N_BUDGET): requests, while the app's tier has an error budget."""
    ml_refused: np.ndarray
    """uint16 (capacity, N_BUDGET): how many of them ML refused (`error_budget.MOST_REFUSALS`)."""
    spent: np.ndarray
    """float32 (capacity, N_BUDGET): what they spent of the budget, each 1 - its risk."""


def allocate(capacity: int) -> State:
    """Return an empty state for `capacity` apps.

    For large arrays numpy asks for huge pages. They pay here: apps come in random order, and small
    pages would be too many for the TLB.
    """
    meta = np.zeros(4, np.int64)
    # a step that has no divisor in common with the capacity comes to every slot; the golden ratio
    # keeps the first few far apart
    meta[M_STRIDE] = next(
        k for k in range(int(0.618 * capacity) + 1, 2 * capacity + 2) if math.gcd(k, capacity) == 1
    )
    # at most half full, so that a search ends after one or two entries
    size = 1 << max(4, int(2 * capacity - 1).bit_length())
    return State(
        key=np.zeros((capacity,), np.uint64),
        table=np.zeros((size,), np.int32),
        clock=np.zeros((capacity, N_CLOCK), np.float64),
        window=np.zeros((capacity, 4), np.int32),
        counts=np.zeros((capacity, N_COUNT), np.float32),
        bits=np.zeros((capacity, N_BITS), np.uint64),
        refused=np.zeros((capacity, retries.REFUSED), np.uint64),
        bins=np.zeros((capacity, 2 * ENTROPY_BINS), np.uint16),
        paths=np.zeros((capacity, 2 * ENTROPY_BINS), np.uint16),
        steps=np.zeros((capacity, 2 * STEP_BINS), np.uint16),
        origin=np.zeros((capacity,), np.uint64),
        profile=np.zeros((capacity, N_PROFILE), np.float32),
        tenant=np.zeros((capacity,), np.int32),
        tenant_key=np.zeros((capacity,), np.int64),
        meta=meta,
        asked=np.zeros((capacity, N_BUDGET), np.uint32),
        ml_refused=np.zeros((capacity, N_BUDGET), np.uint16),
        spent=np.zeros((capacity, N_BUDGET), np.float32),
    )


def bytes_per_app(state: State) -> float:
    """Return the memory of the whole state over its capacity, bytes."""
    return sum(a.nbytes for a in state) / len(state.key)


@njit(cache=True, inline="always")
def _home(key: np.uint64, mask: int) -> np.int64:
    # both halves of the key, as `mask` keeps the low bits only
    return np.int64((key ^ (key >> np.uint64(32))) & np.uint64(mask))


@njit(cache=True, inline="always")
def find(state: State, key: np.uint64) -> int:
    """Return the slot of an app, -1 when it is not tracked."""
    mask = state.table.shape[0] - 1
    at = _home(key, mask)
    while state.table[at] != 0:
        slot = state.table[at] - 1
        if state.key[slot] == key:
            return slot
        at = (at + 1) & mask
    return -1


@njit(cache=True, inline="always")
def expect(state: State, key: np.uint64) -> None:
    """Ask the processor to fetch the entry of the hash table where an app should stand."""
    prefetch(state.table, _home(key, state.table.shape[0] - 1))


@njit(cache=True, inline="always")
def fetch(state: State, key: np.uint64) -> None:
    """Ask the processor to fetch all that an app's slot holds.

    All lines come at once; read one by one, each would be waited for. It follows only the first
    entry in the table, which is nearly always the right one; a wrong guess costs time alone.
    """
    slot = max(0, state.table[_home(key, state.table.shape[0] - 1)] - 1)
    prefetch(state.key, slot)
    prefetch(state.tenant, slot)
    prefetch(state.tenant_key, slot)
    prefetch(state.window, 4 * slot)
    prefetch(state.profile, N_PROFILE * slot)
    prefetch(state.clock, N_CLOCK * slot)
    prefetch(state.clock, N_CLOCK * slot + 8)
    # a line holds 16 float32; rows do not begin at a line's start, so one more may be touched
    for k in range(0, N_COUNT + 15, 16):
        prefetch(state.counts, N_COUNT * slot + min(k, N_COUNT - 1))
    prefetch(state.bits, N_BITS * slot)
    prefetch(state.bits, N_BITS * slot + N_BITS - 1)
    prefetch(state.refused, retries.REFUSED * slot)
    prefetch(state.refused, retries.REFUSED * slot + retries.REFUSED - 1)
    prefetch(state.bins, 2 * ENTROPY_BINS * slot)
    prefetch(state.paths, 2 * ENTROPY_BINS * slot)
    prefetch(state.steps, 2 * STEP_BINS * slot)
    prefetch(state.asked, N_BUDGET * slot)
    prefetch(state.spent, N_BUDGET * slot)


@njit(cache=True)
def _forget(state: State, slot: int) -> None:
    """Take a slot out of the table and close the gap it leaves.

    Knuth, The Art of Computer Programming, volume 3, 6.4, algorithm R. A mark for "deleted" would
    stay for ever in a full table and make searches long.
    """
    mask = state.table.shape[0] - 1
    at = _home(state.key[slot], mask)
    while state.table[at] != slot + 1:
        at = (at + 1) & mask
    gap = at
    while True:
        at = (at + 1) & mask
        if state.table[at] == 0:
            break
        home = _home(state.key[state.table[at] - 1], mask)
        # an entry may move into the gap only if that is not before its own place
        if ((at - home) & mask) >= ((at - gap) & mask):
            state.table[gap] = state.table[at]
            gap = at
    state.table[gap] = 0


@njit(cache=True, inline="always")
def _kept_until(state: State, slot: int, now: float) -> float:
    """Return when an app was last seen, later for one that is worth keeping; infinity for one seen
    at `now`, which belongs to the batch being decided.

    Made-up ids must not push out known apps, and a refused app must not get a full bucket again by
    being forgotten.
    """
    at = state.clock[slot, SEEN]
    if at >= now:
        return np.inf
    if state.profile[slot, P_KNOWN] >= KNOWN:
        at += KEEP_KNOWN_S
    if state.counts[slot, C_REFUSED] + state.counts[slot, C_REFUSED + 1] > 0.0:
        at += KEEP_REFUSED_S
    return at


@njit(cache=True)
def _free_slot(state: State, now: float) -> int:
    """Return an unused slot, or free the least worth keeping of the next ones under the hand.

    It is never one seen at `now` if there is another: that one belongs to the batch being decided.
    """
    capacity = state.key.shape[0]
    if state.meta[M_USED] < capacity:
        state.meta[M_USED] += 1
        return state.meta[M_USED] - 1
    hand, best, oldest, probes = state.meta[M_HAND], 0, np.inf, 0
    while probes < EVICTION_PROBES or (oldest == np.inf and probes < capacity):
        # far apart: profiles loaded together stand side by side, and all are worth keeping
        slot = (hand + probes * state.meta[M_STRIDE]) % capacity
        until = _kept_until(state, slot, now)
        if until < oldest:
            best, oldest = slot, until
        probes += 1
    state.meta[M_HAND] = (hand + 1) % capacity
    state.meta[M_EVICTED] += 1
    _forget(state, best)
    return best


@njit(cache=True)
def place(state: State, key: np.uint64, now: float, unknown: np.ndarray, known: KnownApps) -> int:
    """Return the slot of an app, made when it is new; another app may be evicted for it.

    `unknown`: profile of an unknown app, float32 (N_PROFILE,). `known`: table of known apps.
    """
    slot = find(state, key)
    if slot < 0:
        slot = _free_slot(state, now)
        state.key[slot] = key
        state.clock[slot, :] = 0.0
        state.clock[slot, FIRST] = now
        # -1 for "never": the bucket then starts full, and the quota's day begins
        state.clock[slot, QUOTA_DAY] = -1.0
        state.clock[slot, BUCKET_AT] = -1.0
        state.counts[slot, :] = 0.0
        state.bits[slot, :] = 0
        state.refused[slot, :] = 0
        state.bins[slot, :] = 0
        state.paths[slot, :] = 0
        state.steps[slot, :] = 0
        state.origin[slot] = 0
        state.profile[slot, :] = unknown
        state.asked[slot, :] = 0
        state.ml_refused[slot, :] = 0
        state.spent[slot, :] = 0.0
        tier, state.tenant_key[slot] = look_up(known, key)
        state.tenant[slot] = SHARED_ROWS + tier if tier >= 0 else 0
        if tier >= 0:
            state.profile[slot, P_TIER], state.profile[slot, P_KNOWN] = tier, LISTED
        for w in range(4):
            state.window[slot, w] = math.floor((now - EPOCH) / WINDOWS[w])
        mask = state.table.shape[0] - 1
        at = _home(key, mask)
        while state.table[at] != 0:
            at = (at + 1) & mask
        state.table[at] = slot + 1
    state.clock[slot, SEEN] = now
    return slot


@njit(cache=True, inline="always")
def _shift(count: np.ndarray, slot: int, column: int, step: int) -> None:
    count[slot, column + 1] = count[slot, column] if step == 1 else 0.0
    count[slot, column] = 0.0


@njit(cache=True, inline="always")
def _shift_bins(bins: np.ndarray, slot: int, count: int, step: int) -> None:
    for k in range(count):
        bins[slot, count + k] = bins[slot, k] if step == 1 else 0
        bins[slot, k] = 0


@njit(cache=True)
def _shift_minute(state: State, slot: int, step: int) -> None:
    for column in range(C_COST, L_WRITES, 2):
        _shift(state.counts, slot, column, step)
    for column in range(0, N_BITS, 2):
        state.bits[slot, column + 1] = state.bits[slot, column] if step == 1 else np.uint64(0)
        state.bits[slot, column] = 0
    _shift_bins(state.bins, slot, ENTROPY_BINS, step)


@njit(cache=True)
def _shift_ten_minutes(state: State, slot: int, step: int) -> None:
    for column in range(L_WRITES, GAP_MEAN, 2):
        _shift(state.counts, slot, column, step)
    _shift_bins(state.paths, slot, ENTROPY_BINS, step)
    _shift_bins(state.steps, slot, STEP_BINS, step)


@njit(cache=True)
def _shift_budget(state: State, slot: int, before: int, number: int) -> None:
    """Move the budget's windows on from window `before` of WINDOWS[3] to window `number`."""
    for k in range(len(BUDGET_WINDOWS)):
        step = number // BUDGET_SPANS[k] - before // BUDGET_SPANS[k]
        if step > 0:
            _shift(state.asked, slot, 2 * k, step)
            _shift(state.ml_refused, slot, 2 * k, step)
            _shift(state.spent, slot, 2 * k, step)


@njit(cache=True)
def _learn_pace(state: State, slot: int) -> None:
    """Add the minute that ended to the app's own mean paces, requests a second while it sends."""
    requests = state.counts[slot, C_60S]
    if requests == 0.0:
        return
    state.clock[slot, ACTIVE_MINUTES] += 1.0
    for k in range(len(PACE_MINUTES)):
        # a plain mean at first, so that the first minutes do not weigh for ever
        weight = 1.0 / min(state.clock[slot, ACTIVE_MINUTES], PACE_MINUTES[k])
        mean = state.counts[slot, PACE_HOURS + k]
        state.counts[slot, PACE_HOURS + k] = mean + weight * (requests / 60.0 - mean)


@njit(cache=True, inline="always")
def roll(state: State, slot: int, now: float) -> None:
    """Move a slot's windows on to `now`. Time that runs backwards changes nothing."""
    for w in range(4):
        number = math.floor((now - EPOCH) / WINDOWS[w])
        step = number - state.window[slot, w]
        if step > 0:
            state.window[slot, w] = number
            if w == 2:
                _learn_pace(state, slot)
            _shift(state.counts, slot, 2 * w, step)
            if w == 2:
                _shift_minute(state, slot, step)
            elif w == 3:
                _shift_ten_minutes(state, slot, step)
                _shift_budget(state, slot, number - step, number)


@njit(cache=True)
def _mark(bits: np.ndarray, slot: int, column: int, hashed: np.uint64) -> None:
    bits[slot, column] |= np.uint64(1) << (hashed & np.uint64(63))


@njit(cache=True, inline="always")
def _bin_of(hashed: np.uint64) -> np.int64:
    # other bits of the hash than `_mark` uses, so that the two do not collide alike
    return np.int64((hashed >> np.uint64(8)) & np.uint64(ENTROPY_BINS - 1))


@njit(cache=True, inline="always")
def _add_to_bin(bins: np.ndarray, slot: int, k: np.int64) -> None:
    # 16 bits would start again at 0
    if bins[slot, k] < 65_535:
        bins[slot, k] += 1


@njit(cache=True, inline="always")
def _add_step(state: State, slot: int, to: np.int64) -> None:
    """Count the step from the last request's endpoint to the bin of this one's."""
    last = np.int64(state.counts[slot, LAST_ENDPOINT])
    # 0 stands for no request yet
    state.counts[slot, LAST_ENDPOINT] = to + 1
    if last > 0:
        # an odd factor moves every pair of bins to another place; its upper bits choose the bin
        mixed = np.uint64((last - 1) * ENTROPY_BINS + to) * np.uint64(0x9E3779B97F4A7C15)
        _add_to_bin(state.steps, slot, np.int64(mixed >> np.uint64(61)))


@njit(cache=True, inline="always")
def observe(
    state: State,
    slot: int,
    now: float,
    token: np.uint64,
    source: np.uint64,
    path: np.uint64,
    endpoint: np.uint64,
    cost: float,
    kilobytes: float,
    kind: int,
    attempt: int,
) -> int:
    """Count one request. Return FIRST_TRY, EARLY or IN_TIME. Hashes of absent parts are 0 and not
    counted.

    `cost`: cost units. `kilobytes`: size of the body. `kind`: READ, WRITE or SIGN_IN. `attempt`:
    above 0 when a gateway that is trusted says that this is a retry.
    """
    roll(state, slot, now)
    count, clock, repeat = state.counts, state.clock, FIRST_TRY
    for w in range(4):
        count[slot, 2 * w] += 1.0
    count[slot, C_COST] += cost
    count[slot, C_BYTES] += kilobytes
    if kind != READ:
        count[slot, C_WRITES] += 1.0
        count[slot, L_WRITES] += 1.0
        if kind == SIGN_IN:
            count[slot, C_SIGN_INS] += 1.0
            count[slot, L_SIGN_INS] += 1.0
    if retries.repeats(state.refused, slot, now, path, token, endpoint, attempt > 0):
        count[slot, C_RETRIES] += 1.0
        repeat = EARLY if now < clock[slot, RETRY_UNTIL] - ON_TIME_S else IN_TIME
        if repeat == EARLY:
            count[slot, C_EARLY] += 1.0
    _mark(state.bits, slot, B_ENDPOINTS, endpoint)
    _mark(state.bits, slot, B_PATHS, path)
    if token != 0:
        _mark(state.bits, slot, B_TOKENS, token)
    state.origin[slot] = source
    if source != 0:
        _mark(state.bits, slot, B_SOURCES, source)
    _add_step(state, slot, _bin_of(endpoint))
    _add_to_bin(state.bins, slot, _bin_of(endpoint))
    _add_to_bin(state.paths, slot, _bin_of(path))
    if clock[slot, LAST] > 0.0:
        gap = max(0.0, now - clock[slot, LAST])
        # chosen: the last twenty gaps or so; the first gap counts whole, as there is no mean yet
        weight = 0.05 if count[slot, GAP_MEAN] > 0.0 else 1.0
        count[slot, GAP_MEAN] += weight * (gap - count[slot, GAP_MEAN])
        count[slot, GAP_SQUARE] += weight * (gap * gap - count[slot, GAP_SQUARE])
    return repeat


@njit(cache=True)
def copy(state: State, slot: int, trial: State) -> None:
    """Copy a slot's rows into the only slot of `trial`, where a further request can be tried."""
    trial.clock[0, :] = state.clock[slot, :]
    trial.counts[0, :] = state.counts[slot, :]
    trial.profile[0, :] = state.profile[slot, :]
    trial.window[0, :] = state.window[slot, :]
    trial.bits[0, :] = state.bits[slot, :]
    trial.refused[0, :] = state.refused[slot, :]
    trial.bins[0, :] = state.bins[slot, :]
    trial.paths[0, :] = state.paths[slot, :]
    trial.steps[0, :] = state.steps[slot, :]
    trial.asked[0, :] = state.asked[slot, :]
    trial.ml_refused[0, :] = state.ml_refused[slot, :]
    trial.spent[0, :] = state.spent[slot, :]


@njit(cache=True, inline="always")
def answers_600s(state: State, slot: int) -> float:
    """Return how many answers an app got in the last ten to twenty minutes, as of its last roll."""
    return state.counts[slot, L_ANSWERS] + state.counts[slot, L_ANSWERS + 1]


@njit(cache=True)
def note_answer(state: State, slot: int, now: float, status: int, unusual: float) -> None:
    """Count one outcome that came back from the service. `status`: HTTP status. `unusual`: how
    unlike its endpoint's usual answers it is, 0 to 1 (`usual.note_answer`).
    """
    roll(state, slot, now)
    state.clock[slot, FEEDBACK_AT] = now
    count = state.counts
    count[slot, C_ANSWERS] += 1.0
    count[slot, L_ANSWERS] += 1.0
    count[slot, L_UNUSUAL] += unusual
    if status >= 500:
        count[slot, C_5XX] += 1.0
    elif status >= 400:
        count[slot, C_4XX] += 1.0
        count[slot, L_4XX] += 1.0
        if status == 401 or status == 403:
            count[slot, C_AUTH] += 1.0
            count[slot, L_AUTH] += 1.0
        elif status == 402:
            count[slot, C_PAYMENT] += 1.0
        elif status == 404:
            count[slot, C_MISSING] += 1.0
            count[slot, L_MISSING] += 1.0


@njit(cache=True, inline="always")
def refill(state: State, slot: int, now: float, rate: float, burst: float) -> float:
    """Refill the token bucket to `now` and return its tokens.

    `rate`: tokens a second. A new bucket is full; one below 0 (in the headroom) refills at `rate`,
    too.
    """
    clock = state.clock
    if clock[slot, BUCKET_AT] < 0.0:
        clock[slot, TOKENS] = burst
    else:
        clock[slot, TOKENS] = min(
            burst, clock[slot, TOKENS] + max(0.0, now - clock[slot, BUCKET_AT]) * rate
        )
    # never back: time that runs backwards and on again must not refill twice
    clock[slot, BUCKET_AT] = max(now, clock[slot, BUCKET_AT])
    return clock[slot, TOKENS]
