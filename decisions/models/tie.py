"""Which app each outcome is about, kept beside the outcome, whose own row is never changed."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from decisions.models.outcome import Outcome


class TieState(models.TextChoices):
    """Whether the app of an outcome is known."""

    TIED = "tied", "Tied"
    UNKNOWN = "unknown", "Unknown"
    SEVERAL = "several", "Several apps"


class TieHow(models.TextChoices):
    """What an app was known by, the surest first."""

    APP = "app", "app id"
    DECISION = "decision", "decision"
    RECEIPT = "receipt", "receipt"
    EARLIER = "earlier", "an earlier version"
    REQUEST = "request", "request id"
    TOKEN = "token", "token digest"


class OutcomeTie(models.Model):
    """The app that an outcome is about, or that none is known. Every outcome has one."""

    outcome = models.OneToOneField(
        Outcome, on_delete=models.CASCADE, primary_key=True, related_name="tie"
    )
    app = models.TextField(blank=True)
    """Empty while no app is known."""
    decision = models.UUIDField(null=True, blank=True)
    """The decision that was reported, or that the reported receipt is about."""
    state = models.CharField(max_length=16, choices=TieState.choices)
    how = models.CharField(max_length=16, choices=TieHow.choices, blank=True)
    occurred_at = models.DateTimeField()
    """The outcome's own, so that an index holds an app's outcomes in order of time."""
    since = models.DateTimeField()
    """When the outcome was stored: it is tried again for `ties.KEEP_TRYING` from then."""
    tries = models.PositiveIntegerField(default=1)
    next_at = models.DateTimeField(null=True, blank=True)
    """When it is tried again; None: nothing can change it, or the time is over."""

    class Meta:
        db_table = "decisions_outcometie"
        default_permissions = ()
        indexes = [
            models.Index(fields=["app", "-occurred_at"], name="tie_app"),
            models.Index(
                fields=["decision"], condition=Q(decision__isnull=False), name="tie_decision"
            ),
            models.Index(fields=["next_at"], condition=Q(next_at__isnull=False), name="tie_due"),
            models.Index(fields=["since"], condition=Q(app=""), name="tie_unknown"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=(Q(state=TieState.TIED, how__in=TieHow.values) & ~Q(app=""))
                | Q(state__in=(TieState.UNKNOWN, TieState.SEVERAL), app="", how=""),
                name="tie_is_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.outcome_id}: {self.app or self.state}"

    @property
    def is_waiting(self) -> bool:
        """Whether no app is known and it is tried again."""
        return self.state != TieState.TIED and self.next_at is not None
