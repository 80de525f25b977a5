"""The choice of stored decisions that get an explanation, and the computation of these
explanations.

Of the stored decisions that a model was asked about, all refusals are explained and a fixed
sixteenth of the admits. The id of an admit decides, so the choice is the same wherever and whenever
it is made.

Where there is more to explain than time, what is missed least is dropped. The order: the newest
refusal of each app and machine reason comes first, then the other refusals, higher tiers first,
then the admits; in each the newest first. What has waited for KEEP_S is dropped, so nothing waits
longer. A dropped decision is explained when someone opens it, or by the rare run once the others
have nothing to do.
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
from django.db.models import Case, Count, Exists, F, Min, OuterRef, Q, QuerySet, When, Window
from django.db.models.expressions import RawSQL
from django.db.models.functions import RowNumber
from django.db.models.lookups import GreaterThan
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
# Most decisions of one run: as many as KEEP_S brings at a sampling budget of 400 a second, if all
# are refusals.
MOST = 10_000
# Seconds after which a decision that still waits is dropped. Chosen: with the two seconds between
# runs and the one that a run may take, no decision waits for 30 s.
KEEP_S = 25.0
# Longest run, seconds. What is left is ordered anew in the next one, among what came meanwhile.
RUN_S = 1.0
# Longest run over what was dropped, seconds. Chosen: with it, no new decision waits for KEEP_S.
SWEEP_RUN_S = 5.0
# The backlog counts as worked off while nothing in it has waited longer, seconds. Chosen: three
# times what lies between two runs.
BUSY_S = 6.0
# Decisions explained between two looks at the clock. Chosen: some 50 ms of work.
PART = 250
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

    def plus(self, other: RunOutcome) -> RunOutcome:
        return RunOutcome(
            self.explained + other.explained,
            self.mismatched + other.mismatched,
            self.failed + other.failed,
        )


def select_unexplained(since: float, now: float) -> QuerySet[Decision]:
    """Return stored decisions since a unix time that should have an explanation and have none."""
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
    return chosen.filter(~Exists(explained))


def select_waiting(now: float) -> QuerySet[Decision]:
    """Return the backlog: what is unexplained and has waited for less than KEEP_S."""
    return select_unexplained(now - HORIZON_S, now).filter(stored_at__gte=_time(now - KEEP_S))


def in_order(found: QuerySet[Decision]) -> QuerySet[Decision]:
    """Return decisions in the order in which they are explained (see the module's docstring)."""
    of_its_kind = Window(
        RowNumber(), partition_by=[F("app"), F("action"), F("reason")], order_by="-id"
    )
    return found.alias(
        admitted=Case(When(action=int(Action.ADMIT), then=1), default=0),
        repeated=Case(When(GreaterThan(of_its_kind, 1), then=1), default=0),
    ).order_by("admitted", "repeated", "-tier", "-id")


def explain_newest() -> RunOutcome:
    """Explain the backlog in order for RUN_S at most, and return the counts. Two runs at once are
    safe.
    """
    return _explain(select_waiting(time.time()), RUN_S)


def explain_dropped() -> RunOutcome:
    """Explain what was dropped in the last SWEEP_S, in the same order, for SWEEP_RUN_S at most.
    Return the counts. Do nothing while the backlog is not worked off.
    """
    now = time.time()
    if measure_progress(now).oldest_s > BUSY_S:
        return RunOutcome()
    return explain_since(now - SWEEP_S)


def explain_since(since: float) -> RunOutcome:
    """Explain whatever is unexplained since a unix time, in order, for SWEEP_RUN_S at most. Return
    the counts.
    """
    return _explain(select_unexplained(since, time.time()), SWEEP_RUN_S)


def _explain(found: QuerySet[Decision], seconds: float) -> RunOutcome:
    """Explain decisions in order until they are done or the time is over."""
    stop = time.monotonic() + seconds
    usable = in_order(found.exclude(model__in=_shelved()))
    rows = [PendingDecision(*row) for row in usable.values_list(*PendingDecision._fields)[:MOST]]
    done = RunOutcome()
    for start in range(0, len(rows), PART):
        done = done.plus(explain_rows(rows[start : start + PART]))
        if time.monotonic() >= stop:
            break
    return done


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
    """Backlog, age and rate of explaining, and what was dropped."""

    waiting: int
    """Decisions that wait for their explanation."""
    oldest_s: float
    """For how long the oldest of them has been stored, seconds; 0 when none waits."""
    per_s: float
    """Explanations a second over the last minute."""
    dropped: int = 0
    """Decisions that were dropped in the last minute and are still unexplained."""
    dropped_refusals: int = 0
    """The refusals among them."""


def measure_progress(now: float | None = None) -> BacklogProgress:
    """Return backlog, age and rate at `now` (unix seconds, the present by default)."""
    now = time.time() if now is None else now
    waits = Q(stored_at__gte=_time(now - KEEP_S))
    refused = ~Q(action=int(Action.ADMIT))
    found = (
        select_unexplained(now - HORIZON_S, now)
        .filter(stored_at__gte=_time(now - KEEP_S - RATE_S))
        .aggregate(
            waiting=Count("id", filter=waits),
            oldest=Min("stored_at", filter=waits),
            dropped=Count("id", filter=~waits),
            refusals=Count("id", filter=~waits & refused),
        )
    )
    since = _time(now - RATE_S)
    # The bound on `at` spares old partitions. Older decisions, which a sweep explains, do not
    # count.
    made = Explanation.objects.filter(
        at__gte=since - timedelta(seconds=HORIZON_S), computed_at__gte=since
    ).count()
    age = now - found["oldest"].timestamp() if found["oldest"] else 0.0
    dropped = (found["dropped"], found["refusals"])
    return BacklogProgress(found["waiting"], max(0.0, age), made / RATE_S, *dropped)


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
