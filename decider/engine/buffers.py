"""Layout of the buffers that the compiled passes of a batch share with Python."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from decider.contracts.features import N_FEATURES
from decider.contracts.signals import N_SIGNALS

# All fields are 8 bytes: rows stay aligned, and `struct` and numpy agree without padding.
ROUTE_FIELDS = [
    ("endpoint", "i8"),
    ("cost", "f8"),
    ("service", "i8"),
    ("kind", "i8"),
    ("batchable", "i8"),
    # row in the table of endpoints that load several services (`shared.several`), 0 for others
    ("several", "i8"),
]
ROUTE_FORMAT = "<qdqqqq"
REQUEST = np.dtype(
    [
        ("app", "i8"),
        ("token", "i8"),
        ("source", "i8"),
        ("path", "i8"),
        ("kilobytes", "f8"),
        ("attempt", "i8"),
        # hash of the narrowest listed network around the source, 0 without one
        ("network", "i8"),
        *ROUTE_FIELDS,
    ]
)
# Fields of REQUEST that hold hashes of texts, in the order in which the texts are laid out.
HASHED = ("app", "token", "source", "path")
# What Python packs; compiled code later writes the hashes into the bytes that are skipped. The
# fields of a route, which many requests share, are packed once.
REQUEST_FORMAT = f"<{8 * len(HASHED)}xdqq{struct.calcsize(ROUTE_FORMAT)}s"

# What is answered (the fields of `requests.Decision`, in order), then what was decided and how.
ANSWER = np.dtype(
    [
        ("id_high", "u8"),
        ("id_low", "u8"),
        ("answered", "i8"),
        ("stage", "i8"),
        ("reason", "i8"),
        ("wait", "f8"),
        ("limit", "i8"),
        ("window", "i8"),
        ("remaining", "i8"),
        ("reset", "f8"),
        ("action", "i8"),
        ("retry_after", "f8"),
        ("slot", "i8"),
        ("wants", "i8"),
        ("ranked", "i8"),
        ("kept", "i8"),
        ("probability", "f8"),
        ("lease", "f8"),
        ("repeat", "i8"),
        # the pair of the tenant and the service that decides, and the cost there
        ("pair", "i8"),
        ("cost", "f8"),
    ]
)
ANSWER_FORMAT = "<16sqqqdqqqd88x"

# Bits of ANSWER["wants"]: what the engine must fetch for the app
WANTS_LEASE, WANTS_PROFILE = 1, 2

# places in Batch.serial
NEXT_ID, TAILS_LEFT, NO_SOURCE, BAD_SCORES, N_SERIAL = range(5)
# columns of Batch.world (float64): what holds for the whole batch
W_ML, W_OBSERVE, W_QUOTA_SHARE, W_PRIOR_VALUE, W_LEASE_WAIT, W_SKEW = range(6)
# and how unknown apps are treated (a TREAT_ value), and the bucket that all of them share
W_TREAT, W_ALL_RATE, W_ALL_BURST, W_ALL_TOKENS, W_ALL_AT, N_WORLD = range(6, 12)
# values of W_TREAT, in the order of `config.UnknownApps.treatment`
TREAT_PLAN, TREAT_SHARE, TREAT_REFUSE = range(3)
# columns of Sample.state (float64)
K_SECOND, K_KEPT, K_DEMAND, K_LAST_DEMAND = range(4)
# columns of Sample.rate (float64)
K_BUDGET, K_ADMIT, K_REFUSE, K_BLOCK, K_ENTERPRISE = range(5)

# Waits that the forecast tries, seconds. Chosen: close together where most clients wait; then a
# minute, and up to the two windows of ten minutes after which an app's record is forgotten
# (`policy.LONGEST_WAIT_S`). Eight waits need three halvings.
WAITS = np.array([1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 300.0, 1_200.0])


# Value, 0 to 1, that is assumed where no model speaks. Chosen: the middle, with which a request is
# worth exactly one ordinary request.
PRIOR_VALUE = 0.5


class Batch(NamedTuple):
    """Flat buffers of one batch of at most `MAX_BATCH` requests."""

    request: np.ndarray
    answer: np.ndarray
    features: np.ndarray
    """float32 (MAX_BATCH, N_FEATURES)."""
    signals: np.ndarray
    """float64 (MAX_BATCH, N_SIGNALS)."""
    scores: np.ndarray
    """float64 (MAX_BATCH, 4): raw risk, raw value, risk, value; NaN where not ranked."""
    rows: np.ndarray
    """int64 (MAX_BATCH,): rows to rank, then rows to forecast."""
    world: np.ndarray
    """float64 (N_WORLD,): columns W_."""
    tails: np.ndarray
    """uint64: random last halves of ids to come."""
    serial: np.ndarray
    """int64 (N_SERIAL,): the next id's millisecond and counter (12 bits); how many tails are left;
    requests without a source since the start.
    """


def allocate(size: int) -> Batch:
    """Return buffers for batches of at most `size` requests."""
    return Batch(
        request=np.zeros(size, REQUEST),
        answer=np.zeros(size, ANSWER),
        features=np.zeros((size, N_FEATURES), np.float32),
        signals=np.zeros((size, N_SIGNALS)),
        scores=np.full((size, 4), np.nan),
        rows=np.zeros(size, np.int64),
        world=_world(),
        tails=np.zeros(2 * size, np.uint64),
        serial=np.zeros(N_SERIAL, np.int64),
    )


def _world() -> np.ndarray:
    """Return what holds for a batch before a config is there."""
    world = np.zeros(N_WORLD)
    world[W_PRIOR_VALUE] = PRIOR_VALUE
    return world


class Sample(NamedTuple):
    """The state of the sampling, which decides which decisions are kept."""

    state: np.ndarray
    """float64 (4,): columns K_SECOND to K_LAST_DEMAND."""
    rate: np.ndarray
    """float64 (5,): columns K_BUDGET (kept decisions a second) to K_ENTERPRISE (probabilities)."""
    counts: np.ndarray
    """int64 (5,): decisions by action since the start, all of them."""


OUTCOME = np.dtype(
    [
        ("app", "i8"),
        ("endpoint", "i8"),
        ("service", "i8"),
        ("status", "i8"),
        ("latency_ms", "f8"),
        ("bytes", "f8"),
    ]
)
# As REQUEST_FORMAT: the app's hash is written later.
OUTCOME_FORMAT = "<8xqqqdd"
