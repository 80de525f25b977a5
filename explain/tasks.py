"""Background tasks of explanations and forecasts. A task may run twice or get lost without harm,
because a later one finds what is missing.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import timedelta

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from decider.contracts.artifact import ArtifactError
from decisions.models import Decision
from decisions.search import lookup
from explain.forecast import track_record
from explain.models import ModelCheck
from explain.shap import backlog
from explain.shap import values as shap_values

log = logging.getLogger("sluice.explain")

# Celery ships no types, so its decorator is untyped; the functions below are not.


@shared_task(name="explain.tasks.explain_pending", expires=30)  # type: ignore[untyped-decorator]
def explain_pending() -> dict[str, int]:
    """Explain decisions that were stored lately, and check a model that is seen for the first time.
    Return the counts. Run it every two seconds.
    """
    done = backlog.explain_newest()
    check_new_models()
    return {"explained": done.explained, "mismatched": done.mismatched, "failed": done.failed}


@shared_task(name="explain.tasks.explain_backlog", expires=600)  # type: ignore[untyped-decorator]
def explain_backlog() -> dict[str, int]:
    """Explain decisions that were dropped or that an outage left unexplained, and return the
    counts. Run it every five minutes.
    """
    done = backlog.explain_dropped()
    return {"explained": done.explained, "mismatched": done.mismatched, "failed": done.failed}


@shared_task(name="explain.tasks.look_ahead", expires=120)  # type: ignore[untyped-decorator]
def look_ahead() -> dict[str, int]:
    """Forecast the busiest apps, settle forecasts that are due and delete old ones. Return the
    counts. Run it every five minutes.
    """
    now = time.time()
    return {
        "settled": track_record.settle_due(now),
        "made": track_record.forecast_busiest(now),
        "forgotten": track_record.delete_old(),
    }


@shared_task(name="explain.tasks.explain_one", expires=60)  # type: ignore[untyped-decorator]
def explain_one(decision: str) -> int:
    """Explain the decision (UUID as text) whose page someone opened. Return 1 when it was
    explained, else 0.
    """
    return backlog.explain_decision(uuid.UUID(decision)).explained


@shared_task(name="explain.tasks.check_model")  # type: ignore[untyped-decorator]
def check_model(digest: str) -> bool:
    """Compare one model's SHAP values with `pred_contrib` and `shap.TreeExplainer`. Store the
    outcome and return whether all agree.
    """
    try:
        found = shap_values.compare_implementations(digest)
        row: dict[str, object] = {
            "rows": found.rows,
            "max_difference": found.max_difference,
            "max_sum_error": found.max_sum_error,
            "ok": found.ok,
        }
    except ArtifactError as error:
        # Stored as well, so that the page says why, and the check is not queued every two seconds.
        nothing: dict[str, object] = {"rows": 0, "max_difference": 0.0, "max_sum_error": 0.0}
        row = {**nothing, "ok": False, "error": str(error)}
    ModelCheck.objects.update_or_create(
        model=digest, defaults={"error": "", "at": timezone.now(), **row}
    )
    if not row["ok"]:
        log.error("SHAP values of model %s are not confirmed: %s", digest[:12], row)
    return bool(row["ok"])


def check_new_models() -> None:
    """Queue a check of the newest explained model when none is stored, or when it failed more than
    ten minutes ago.
    """
    lately = lookup.within(
        Decision.objects.filter(raw_risk__isnull=False), time.time() - backlog.HORIZON_S
    )
    newest = lately.order_by("-id").values_list("model", flat=True)[:1]
    again = timezone.now() - timedelta(minutes=10)  # by now a missing model file may have arrived
    known = ModelCheck.objects.filter(Q(error="") | Q(at__gte=again))
    for digest in sorted(set(newest) - set(known.values_list("model", flat=True))):
        check_model.delay(digest)
