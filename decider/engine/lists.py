"""Guard lists and operator overrides: a small hash table that the engine reads for each request."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from decider.contracts.config import Config
from decider.engine.text_hash import TextHash

# Kinds of subjects. Each rule names its kind, as an app and a tenant may have the same id.
APP, TENANT, SOURCE = 0, 1, 2
KINDS = {"app": APP, "tenant": TENANT, "source": SOURCE}
# Values of the signal `list_verdict`; compliance has a signal of its own.
VERDICTS = {"allow": 1.0, "block": 2.0, "compliance": 3.0}
# columns of Subjects.rule (float64)
KIND, UNTIL, VERDICT, ACTION, MULTIPLIER, NEXT = range(6)


class Subjects(NamedTuple):
    """The rules of a config document, found by the hash of their subject."""

    key: np.ndarray
    """int64 (power of two,): hash of a subject."""
    first: np.ndarray
    """int64 (same,): row of its first rule plus one, 0 for empty."""
    rule: np.ndarray
    """float64 (rules or 1, 6): kind, until, list verdict (0 none), override action (-1 none),
    multiplier, next row (-1 none).
    """


def compile_subjects(config: Config, text_hash: TextHash) -> Subjects:
    """Return all list entries and overrides of a document, in a table by hash of the subject."""
    rows = _rows_of(config)
    # less than a quarter full, so that a request with no rule meets an empty entry at once
    size = 1 << max(2, (4 * len(rows)).bit_length())
    key, first = np.zeros(size, np.int64), np.zeros(size, np.int64)
    rule = np.zeros((max(1, len(rows)), 6))
    hashes = text_hash.many([subject for subject, _ in rows]).tolist()
    for number, (hashed, (_, row)) in enumerate(zip(hashes, rows, strict=True)):
        at = hashed & (size - 1)
        while first[at] and key[at] != hashed:
            at = (at + 1) & (size - 1)
        # put before the subject's earlier rules, so that the one listed last is found first
        row[NEXT] = first[at] - 1
        key[at], first[at], rule[number] = hashed, number + 1, row
    return Subjects(key, first, rule)


def _rows_of(config: Config) -> list[tuple[str, list[float]]]:
    """Return subject and columns of `Subjects.rule` of all lists and overrides, in order."""
    rows: list[tuple[str, list[float]]] = []
    for entry in config.lists:
        kind, verdict = KINDS[entry.kind], VERDICTS[entry.verdict]
        until = np.inf if entry.until is None else entry.until
        rows.append((entry.subject, [kind, until, verdict, -1.0, 1.0, -1.0]))
    for o in config.overrides:
        action = -1.0 if o.action is None else float(o.action)
        rows.append((o.subject, [KINDS[o.kind], o.until, 0.0, action, o.multiplier, -1.0]))
    return rows


@njit(cache=True, inline="always")
def consult(subjects: Subjects, kind: int, hashed: int, now: float, found: np.ndarray) -> None:
    """Add the rules in force about a subject to `found`.

    `found`: float64 (4,): list verdict, compliance, override action, multiplier. `now`: wall time.
    A block outweighs an allow; of two overrides the one listed last counts.
    """
    mask = subjects.key.shape[0] - 1
    at = hashed & mask
    while subjects.first[at] != 0 and subjects.key[at] != hashed:
        at = (at + 1) & mask
    row = subjects.first[at] - 1
    # an override found for the app before is not replaced by the tenant's
    chosen = found[2] >= 0.0 or found[3] != 1.0
    while row >= 0:
        rule = subjects.rule[row]
        if int(rule[KIND]) == kind and now < rule[UNTIL]:
            if rule[VERDICT] == 3.0:
                found[1] = 1.0
            elif rule[VERDICT] > 0.0:
                found[0] = max(found[0], rule[VERDICT])
            elif not chosen:
                found[2], found[3], chosen = rule[ACTION], rule[MULTIPLIER], True
        row = int(rule[NEXT])
