"""Tables of explanations, checks of each model's SHAP values, and forecasts."""

from __future__ import annotations

import numpy as np
from django.db import models
from django.db.models.functions import Now
from numpy.typing import NDArray

from decisions.store import partitions

# Explanations are partitioned and dropped by the day of their decision.
EXPLANATIONS = partitions.Parted("explain_explanation")


class Explanation(models.Model):
    """SHAP values of one decision's risk, in log-odds. base + sum(contributions) must be the raw
    score, up to rounding.
    """

    # Time is part of the key because PostgreSQL wants the partition column in every unique key.
    pk = models.CompositePrimaryKey("decision", "at")
    decision = models.UUIDField()
    at = models.DateTimeField()
    """The decision's time."""
    model = models.TextField()
    """Digest of the artifact from which the values were computed."""
    base = models.FloatField()
    """Expected raw score of the model, log-odds."""
    contributions = models.BinaryField()
    """float64, little endian, in registry order, log-odds."""
    raw = models.FloatField()
    """The raw score the decider recorded."""
    sum_error = models.FloatField()
    """base + sum(contributions) - raw."""
    mismatch = models.BooleanField()
    """The values do not explain the score that was used: their sum is off by more than the
    tolerance, or LightGBM's values differ.
    """
    computed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "explain_explanation"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"explanation of {self.decision}"

    @property
    def values(self) -> NDArray[np.float64]:
        """The contributions as float64 (number of features,)."""
        return np.frombuffer(bytes(self.contributions), "<f8")


class ModelCheck(models.Model):
    """One model's SHAP values, checked once against an independent implementation."""

    model = models.TextField(primary_key=True)
    """Digest of the artifact."""
    rows = models.IntegerField()
    """Golden vectors that were compared."""
    max_difference = models.FloatField()
    """Largest difference of any value from LightGBM's pred_contrib or from shap.TreeExplainer,
    log-odds.
    """
    max_sum_error = models.FloatField()
    """Largest difference between base + sum of values and the golden raw score."""
    ok = models.BooleanField()
    error = models.TextField(blank=True)
    """Why the model could not be checked; empty when it was."""
    at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.model[:12]}: {'agrees' if self.ok else 'differs'}"


# What a forecast may say of the future.
STATES = ("soon", "some", "clear")


class Forecast(models.Model):
    """A forecast of an app's next hour and, once settled, its outcome. One app is forecast at most
    once a minute.
    """

    app = models.TextField()
    made_at = models.DateTimeField()
    minute = models.BigIntegerField()
    """Unix minute of `made_at`."""
    state = models.TextField()
    """soon, some or clear, as `outlook.Outlook.state` has it."""
    pace = models.FloatField(default=0.0)
    """Requests a second that the forecast assumes."""
    minutes = models.FloatField(null=True)
    """Only for soon: minutes until the app is refused, at that pace."""
    limit = models.TextField()
    """Which limit comes first: bucket, quota or risk; empty when none does."""
    because = models.TextField()
    due_at = models.DateTimeField()
    """Time from which its outcome can be determined."""
    settled_at = models.DateTimeField(null=True)
    refused_after = models.FloatField(null=True)
    """Minutes until the first kept refusal before `due_at`; null when there was none, and until
    settled.
    """
    refusals = models.FloatField(null=True)
    """Refusals until `due_at`, estimated from those that were kept; null until settled."""
    chance = models.FloatField(null=True)
    """Probability with which a refusal was kept at that time; null until settled."""
    right = models.BooleanField(null=True)
    """Whether the forecast came true. Null until settled, when too few refusals were kept to tell,
    and when the app slowed down.
    """
    slowed = models.BooleanField(default=False)
    """Only for soon: the app did not keep its pace until the forecast time."""

    class Meta:
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["app", "minute"], name="forecast_once_a_minute"),
            models.CheckConstraint(
                condition=models.Q(state__in=STATES), name="forecast_has_a_state"
            ),
            models.CheckConstraint(
                condition=models.Q(slowed=False) | models.Q(right__isnull=True),
                name="forecast_slowed_has_no_verdict",
            ),
            models.CheckConstraint(
                condition=models.Q(settled_at__isnull=False) | models.Q(right__isnull=True),
                name="forecast_verdict_is_settled",
            ),
            models.CheckConstraint(
                condition=models.Q(minutes__isnull=True) | models.Q(minutes__gte=0),
                name="forecast_not_in_past",
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=models.Q(settled_at__isnull=True),
                name="forecast_waiting",
            ),
            models.Index(fields=["app", "-made_at"], name="forecast_by_app"),
        ]

    def __str__(self) -> str:
        return (
            f"{self.app}:"
            f" {'not within the hour' if self.minutes is None else f'{self.minutes:.0f} min'}"
        )
