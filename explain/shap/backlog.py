"""The choice of stored decisions that get an explanation, and the computation of these
explanations.

Of the stored decisions that a model was asked about, all refusals are explained and a fixed
sixteenth of the admits. The id of an admit decides, so the choice is the same wherever and whenever
it is made.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL
from numpy.typing import NDArray

from decider.contracts.artifact import ArtifactError
from decider.contracts.features import N_FEATURES, SCHEMA
from decider.contracts.vocabulary import Action
from decisions.models import Decision
from decisions.search import lookup
from explain.models import Explanation
from explain.shap import values as shap_values

log = logging.getLogger("sluice.explain")

# Explained admits: those whose id's last hex digit is below this, of 16.
ADMITS_OF_16 = 1
# How far back the frequent run looks, seconds.
HORIZON_S = 180.0
# How far back the rare run looks for decisions that an outage left unexplained, seconds. Older ones
# are explained when someone opens them.
SWEEP_S = 7_200.0
# Most decisions of one run: as many as five seconds bring at a sampling budget of 400 a second, if
# all are refusals.
MOST_PER_RUN = 2_000
# Explaining is late when the oldest waiting decision is older than this, seconds.
LATE_S = 30.0
# Window of the rate that is shown, seconds. Chosen: it holds many runs, which come every two
# seconds.
RATE_S = 60.0
# Rows of each run and model that LightGBM explains too. Few, because LightGBM takes over ten times
# as long for a row.
LIGHTGBM_ROWS = 2


class PendingDecision(NamedTuple):
    """A stored decision that waits for its explanation; fields in the order of the query."""

    id: uuid.UUID
    at: datetime
    model: str
    """Digest of the artifact that scored it."""
    features: bytes | memoryview
    raw_risk: float
    """The raw score that the decider recorded, log-odds."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Counts of one run."""

    explained: int = 0
    mismatched: int = 0
    failed: int = 0
    """Decisions whose model could not be used."""


def select_waiting(since: float, now: float) -> QuerySet[Decision]:
    """Return stored decisions since a unix time that should have an explanation and have none,
    newest first.
    """
    # A minute ahead, for deciders whose clocks run ahead of this one.
    ranked = lookup.within(
        Decision.objects.filter(raw_risk__isnull=False, feature_schema=SCHEMA), since, now + 60
    )
    # The last digit of an id is random, so it samples without a column and every reader agrees.
    last_digit = RawSQL("get_byte(uuid_send(id), 15) & 15", [])
    chosen = ranked.alias(digit=last_digit).filter(
        ~Q(action=int(Action.ADMIT)) | Q(digit__lt=ADMITS_OF_16)
    )
    explained = Explanation.objects.filter(decision=OuterRef("id"), at=OuterRef("at"))
    return chosen.filter(~Exists(explained)).order_by("-id")


def explain_waiting(since: float, now: float | None = None, most: int = MOST_PER_RUN) -> RunOutcome:
    """Explain up to `most` waiting decisions since a unix time, newest first, and return the
    counts. Two runs at once are safe.
    """
    now = time.time() if now is None else now
    usable = select_waiting(since, now).exclude(model__in=_shelved())
    return explain_rows(
        [PendingDecision(*row) for row in usable.values_list(*PendingDecision._fields)[:most]]
    )


# Digest of a model that could not be used -> monotonic time before which it is not tried again. Its
# rows must not crowd out those of other models.
_shelf: dict[str, float] = {}
# Chosen: a model file that arrives late is picked up within a minute, well inside HORIZON_S.
SHELVED_S = 60.0


def _shelved() -> list[str]:
    now, found = time.monotonic(), _shelf.copy()
    for digest in [d for d, until in found.items() if until < now]:
        _shelf.pop(digest, None)  # another thread may have taken it off already
        del found[digest]
    return list(found)


def explain_decision(decision: uuid.UUID) -> RunOutcome:
    """Explain one decision that someone is looking at, if a model was asked about it and it has no
    explanation yet. Return the counts.
    """
    row = lookup.find(decision)
    if row is None or row.raw_risk is None or row.feature_schema != SCHEMA:
        return RunOutcome()
    if Explanation.objects.filter(decision=row.id, at=row.at).exists():
        return RunOutcome()
    return explain_rows([PendingDecision(row.id, row.at, row.model, row.features, row.raw_risk)])


def explain_rows(rows: list[PendingDecision]) -> RunOutcome:
    """Compute and store explanations, model by model, and return the counts. If a model cannot be
    used, only its own rows stay unexplained.
    """
    by_model: dict[str, list[PendingDecision]] = defaultdict(list)
    for row in rows:
        by_model[row.model].append(row)
    explained = mismatched = failed = 0
    for digest, some in by_model.items():
        try:
            made = _compute(digest, some)
        except ArtifactError as error:
            log.error("%d decisions cannot be explained: %s", len(some), error)
            failed += len(some)
            _shelf[digest] = time.monotonic() + SHELVED_S
            continue
        # Another run may have stored some of them in the meantime; both computed the same values.
        Explanation.objects.bulk_create(made, ignore_conflicts=True)
        explained += len(made)
        mismatched += _log_mismatches(digest, made)
    return RunOutcome(explained, mismatched, failed)


def _compute(digest: str, rows: list[PendingDecision]) -> list[Explanation]:
    matrix = np.frombuffer(b"".join(bytes(row.features) for row in rows), "<f4").reshape(
        -1, N_FEATURES
    )
    found = shap_values.compute_values(digest, matrix)
    errors = found.errors(np.array([row.raw_risk for row in rows]))
    wrong = _check_with_lightgbm(digest, matrix, found)
    return [
        Explanation(
            decision=row.id,
            at=row.at,
            model=digest,
            base=base,
            contributions=values.astype("<f8").tobytes(),
            raw=row.raw_risk,
            sum_error=error,
            # "not <=" and not ">", so that NaN counts as a mismatch.
            mismatch=differs or not abs(error) <= shap_values.TOLERANCE,
        )
        for row, base, values, error, differs in zip(
            rows,
            found.base.tolist(),
            found.contributions,
            errors.tolist(),
            wrong.tolist(),
            strict=True,
        )
    ]


def _check_with_lightgbm(
    digest: str, matrix: NDArray[np.float32], found: shap_values.ShapValues
) -> NDArray[np.bool_]:
    """Return bool (n,): whether LightGBM's values of a row differ. Only the first LIGHTGBM_ROWS
    rows are compared; the others are False.
    """
    some = min(LIGHTGBM_ROWS, len(matrix))
    wrong = np.zeros(len(matrix), bool)
    wrong[:some] = shap_values.find_differing(digest, matrix[:some], found.part(some))
    return wrong


def _log_mismatches(digest: str, made: list[Explanation]) -> int:
    wrong = [e for e in made if e.mismatch]
    if wrong:
        worst = max(abs(e.sum_error) for e in wrong)
        log.error(
            "SHAP values of %d decisions do not add up to their score (off by up to %.3g) or differ"
            " from LightGBM's: model %s",
            len(wrong),
            worst,
            digest[:12],
        )
    return len(wrong)


@dataclass(frozen=True, slots=True)
class BacklogProgress:
    """Backlog, age and rate of explaining."""

    waiting: int
    """Decisions of the last HORIZON_S that wait for their explanation."""
    oldest_s: float
    """For how long the oldest of them has been stored, seconds; 0 when none waits."""
    per_s: float
    """Explanations a second over the last minute."""

    @property
    def late(self) -> bool:
        return self.oldest_s > LATE_S


def measure_progress(now: float | None = None) -> BacklogProgress:
    """Return backlog, age and rate at `now` (unix seconds, the present by default)."""
    now = time.time() if now is None else now
    found = (
        select_waiting(now - HORIZON_S, now)
        .order_by()
        .aggregate(count=Count("*"), oldest=Min("stored_at"))
    )
    since = datetime.fromtimestamp(now - RATE_S, UTC)
    # The bound on `at` spares old partitions. Older decisions, which a sweep explains, do not
    # count.
    made = Explanation.objects.filter(
        at__gte=since - timedelta(seconds=HORIZON_S), computed_at__gte=since
    ).count()
    age = now - found["oldest"].timestamp() if found["oldest"] else 0.0
    return BacklogProgress(found["count"], max(0.0, age), made / RATE_S)
