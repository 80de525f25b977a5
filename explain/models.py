"""What is known of why: SHAP values of decisions, and whether each model's values were checked."""

from __future__ import annotations

import numpy as np
from django.db import models
from numpy.typing import NDArray

from decisions import partitions

EXPLANATIONS = partitions.Parted("explain_explanation", "computed_at")
"""Explanations are partitioned and dropped by the day of their decision."""

if EXPLANATIONS not in partitions.PARTED:
    partitions.PARTED.append(EXPLANATIONS)


class Explanation(models.Model):
    """SHAP values of one decision's risk, in log-odds. Row for row: base + sum(contributions) is the raw score."""

    pk = models.CompositePrimaryKey("decision", "at")
    decision = models.UUIDField()
    at = models.DateTimeField()
    """The decision's time."""
    model = models.TextField()
    """Digest of the artifact they were computed from."""
    base = models.FloatField()
    """Expected raw score of the model, log-odds."""
    contributions = models.BinaryField()
    """float64, little endian, in registry order, log-odds."""
    raw = models.FloatField()
    """The raw score the decider recorded."""
    sum_error = models.FloatField()
    """base + sum(contributions) - raw."""
    mismatch = models.BooleanField()
    """The sum error is over its tolerance: these values do not explain the score that was used."""
    computed_at = models.DateTimeField(db_default=models.functions.Now())

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
    """Largest difference of any value from LightGBM's pred_contrib or from shap.TreeExplainer, log-odds."""
    max_sum_error = models.FloatField()
    """Largest difference between base + sum of values and the golden raw score."""
    ok = models.BooleanField()
    error = models.TextField(blank=True)
    """Why it could not be checked, empty when it was."""
    at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.model[:12]}: {'agrees' if self.ok else 'differs'}"
