"""What four eyes keeps: requests, votes, the mode, and reviews of what was done without asking.

The rules also live in the database, as triggers of the first migration: who votes, on what, in
which state, and that nothing is ever taken out.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from control.approvals.lifecycle import State


class Request(models.Model):
    """A change that waits for a second person. Only its state changes, once."""

    action = models.CharField(max_length=64)
    """Machine name of the change, "noun.verb": switch.clear. The audit log gets it when the change
    is applied.
    """
    subject = models.CharField(max_length=200)
    summary = models.CharField(max_length=500)
    """What the audit log will say, a sentence without its actor."""
    payload = models.TextField()
    """The change in canonical JSON (`control.config.parts`): a list of [part, before, after]."""
    digest = models.CharField(max_length=64)
    """SHA-256 of the payload. Votes are for it, so other content needs other votes."""
    base = models.JSONField()
    """Digest of what each part was when this was asked, by part."""
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    requested_at = models.DateTimeField()
    reason = models.CharField(max_length=1000)
    ticket = models.CharField(max_length=40, blank=True)
    needs = models.PositiveSmallIntegerField(default=1)
    """People other than the proposer who must approve."""
    expires_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=State, default=State.OPEN)
    closed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=1000, blank=True)
    """How it ended, a sentence; empty while it is open."""

    class Meta:
        ordering = ["-pk"]
        default_permissions = ("view",)
        permissions = [
            ("approve_switches", "May approve changes of switches and services"),
            ("approve_policies", "May approve changes of policies, overrides and lists"),
            ("approve_rollouts", "May approve changes of the model that decides"),
            ("approve_rule", "May approve turning four eyes on and off"),
        ]
        indexes = [
            models.Index(fields=["expires_at"], condition=Q(state="open"), name="open_requests"),
            models.Index(fields=["closed_at"], name="closed_requests"),
        ]
        constraints = [
            # two would split the votes
            models.UniqueConstraint(
                fields=["digest"], condition=Q(state="open"), name="one_open_request_for_a_change"
            ),
            models.CheckConstraint(condition=Q(needs__gte=1), name="request_needs_someone"),
            models.CheckConstraint(condition=Q(state__in=State.values), name="request_state_known"),
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("requested_at")), name="request_ends_later"
            ),
            models.CheckConstraint(
                condition=Q(state=State.OPEN, closed_at=None)
                | (~Q(state=State.OPEN) & Q(closed_at__isnull=False)),
                name="closed_request_has_its_time",
            ),
        ]

    def __str__(self) -> str:
        return f"request {self.pk}"


class Vote(models.Model):
    """One person's verdict on the digest of a request. It is never changed."""

    class Verdict(models.TextChoices):
        """What a person says of a change."""

        APPROVE = "approve", "Approved"
        VETO = "veto", "Vetoed"

    class How(models.TextChoices):
        """What vouches for the person."""

        SESSION = "session", "session"
        TOKEN = "token", "API token"
        PASSKEY = "passkey", "passkey"

    request = models.ForeignKey(Request, on_delete=models.PROTECT, related_name="votes")
    voter = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    digest = models.CharField(max_length=64)
    verdict = models.CharField(max_length=16, choices=Verdict)
    reason = models.CharField(max_length=1000)
    how = models.CharField(max_length=16, choices=How)
    assertion = models.BinaryField(null=True, blank=True)
    """What the passkey signed, with the digest as its challenge; empty for other ways."""
    at = models.DateTimeField()

    class Meta:
        ordering = ["at", "pk"]
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["request", "voter"], name="one_vote_of_a_person"),
            models.CheckConstraint(
                condition=Q(verdict__in=("approve", "veto")), name="verdict_known"
            ),
            models.CheckConstraint(
                condition=Q(how="passkey", assertion__isnull=False)
                | Q(how__in=("session", "token"), assertion=None),
                name="passkey_has_its_assertion",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} of request {self.request_id}"


class Mode(models.Model):
    """Each time four eyes was turned on or off. Without a row, one person may do everything."""

    on = models.BooleanField()
    at = models.DateTimeField()
    request = models.OneToOneField(Request, on_delete=models.PROTECT, related_name="mode")

    class Meta:
        ordering = ["-pk"]
        default_permissions = ()

    def __str__(self) -> str:
        return f"four eyes {'on' if self.on else 'off'} from {self.at:%Y-%m-%d %H:%M:%S}"


class Review(models.Model):
    """A change that needed a second person and is in force already, because it was made while
    PostgreSQL was down. It stays until a second person has looked at it.
    """

    digest = models.CharField(max_length=64)
    """Digest of the change, as a request for it would have."""
    payload = models.TextField()
    """The change, as a request would hold it."""
    summary = models.CharField(max_length=500)
    reason = models.CharField(max_length=1000)
    by = models.CharField(max_length=200)
    by_login = models.CharField(max_length=200, blank=True)
    made_at = models.DateTimeField()
    closed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
    )
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_reason = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ["-pk"]
        default_permissions = ()
        constraints = [
            models.CheckConstraint(
                condition=Q(closed_by=None, closed_at=None, closed_reason="")
                | (Q(closed_by__isnull=False, closed_at__isnull=False) & ~Q(closed_reason="")),
                name="closed_review_says_by_whom",
            ),
        ]

    def __str__(self) -> str:
        return f"review {self.pk}"
