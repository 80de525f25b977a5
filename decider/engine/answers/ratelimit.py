"""The figures of the RateLimit fields, which tell a client its limits; compiled.

They promise what the bucket admits at this instant, whatever requests come. They cannot know what
risk or load will say of the next request. Only an app that has headroom sees headroom. Where the
requests to come could cost the app its proof of honesty, it sees only as much as the proof
outlasts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from decider import policy as p
from decider.contracts.signals import INDEX as S
from decider.engine.features_of import kinds_600s
from decider.engine.memory import app_state as apps

S_OBSERVE = S["observe_only"]


@njit(cache=True, inline="always")
def tell(
    answer: np.void, sig: np.ndarray, rules: p.Rules, state: apps.State, slot: int, now: float
) -> None:
    """Write what the client of one decided row is told: action (admit if observe-only), wait, and
    what its bucket holds once the whole batch is decided.
    """
    observed, tokens = sig[S_OBSERVE] != 0.0, state.clock[slot, apps.TOKENS]
    answer["answered"] = p.ADMIT if observed else answer["action"]
    answer["wait"] = 0.0 if observed else answer["retry_after"]
    burst, rate = sig[p.S_BURST], sig[p.S_RATE]
    # the fallback limiter knows no headroom
    headroom = burst - sig[p.S_WITHHELD] if sig[p.S_ML] == p.ML_LIVE else 0.0
    lasts = np.inf
    if headroom > 0.0 and rules.tiers[int(sig[p.S_TIER]), p.T_HEADROOM_TO_ALL] == 0.0:
        requests, writes, sign_ins = kinds_600s(state, slot, now)
        lasts = p.proof_lasts(requests, writes, sign_ins)
    answer["limit"] = p.room_left(burst, headroom, np.inf)
    answer["window"] = np.int64(np.ceil((burst + headroom) / rate))
    answer["remaining"] = p.room_left(tokens, headroom, lasts)
    if answer["answered"] != p.ADMIT and answer["reason"] == p.BURST_EXHAUSTED:
        # the cost of going further into the headroom may refuse before its end
        answer["remaining"] = 0
    answer["reset"] = (burst - tokens) / rate
