"""What became of decisions: outcomes reported later, and disputes about refusals.

Decisions are partitioned and dropped by retention, so nothing here refers to their rows. What must
outlive them is copied.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from decider.contracts.vocabulary import Action

# The outcome keys of verdicts begin with this. No report may use such a key, or the verdict could
# not be stored.
KEY_PREFIX = "dispute:"
# The source of verdicts. Only outcomes from here count as verdicts.
FROM_DISPUTE = "dispute"
# The most events that a reported outcome may stand for. A weight is the inverse of the probability
# to be kept: a decision that is always kept has 1, and 1,000 in a second that has used up its
# sampling budget (the 0.001 of `decider.engine.sampling.inclusion`). What is reported about a
# stored decision may weigh no more than that decision (`decisions.outcomes.evidence`).
MOST_WEIGHT = 1000.0
# A verdict weighs as much as its decision, however rarely such decisions were kept. Chosen: beyond
# any traffic, so that it stops only what is no weight.
MOST_VERDICT_WEIGHT = 1e9


class OutcomeKind(models.TextChoices):
    """The kinds of outcome."""

    FRAUD = "fraud_confirmed", "Fraud confirmed"
    CHARGEBACK = "chargeback", "Chargeback"
    INCIDENT = "downstream_incident", "Downstream incident"
    RETRY_STORM = "retry_storm", "Retry storm"
    CHURN = "churn", "Churn"
    FALSE_THROTTLE = "false_throttle", "False throttle"
    CORRECT_REFUSAL = "correct_refusal", "Refusal found correct"


# What only a dispute's verdict may say: a second person has looked.
VERDICTS = (OutcomeKind.FALSE_THROTTLE, OutcomeKind.CORRECT_REFUSAL)
# What anyone who may report outcomes may say.
REPORTABLE = tuple(kind for kind in OutcomeKind if kind not in VERDICTS)
# Verdicts that a dispute gave. Before the database refused it, such kinds were also reported; these
# rows are kept, and nothing counts them.
REAL_VERDICT = Q(kind__in=VERDICTS, source=FROM_DISPUTE)
# Everything but verdicts that no dispute gave.
REAL = REAL_VERDICT | ~Q(kind__in=VERDICTS)


class Outcome(models.Model):
    """One thing that happened later, about an app, a credential, a request or a decision. A trigger
    in the database keeps it unchanged.
    """

    key = models.CharField(max_length=200, unique=True)
    """The reporter's own name for it: the same key never counts twice."""
    kind = models.CharField(max_length=32, choices=OutcomeKind.choices)
    occurred_at = models.DateTimeField()
    reported_at = models.DateTimeField()
    matured_at = models.DateTimeField()
    """From this time on it counts, and models may learn from it."""
    source = models.CharField(max_length=32)
    """How it came: csv, api, dispute."""
    weight = models.FloatField(default=1.0)
    """How many such events it stands for: for a verdict about a sampled decision, the inverse of
    that decision's inclusion probability.
    """
    # What it is about, as it was reported. `OutcomeTie` says which app that is.
    app = models.TextField(blank=True)
    token_digest = models.CharField(max_length=32, blank=True)
    request_id = models.TextField(blank=True)
    decision = models.UUIDField(null=True, blank=True)
    receipt = models.CharField(max_length=300, blank=True, default="", db_default="")
    """What a refused client was given, as it was reported (`decider.refusal.receipt`)."""
    note = models.CharField(max_length=500, blank=True)
    by = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)
    """SHA-256 of what was reported: tells a repetition from a conflict."""
    stored_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "decisions_outcome"
        default_permissions = ("view",)
        permissions = [("report_outcome", "May report outcomes and upload them")]
        indexes = [
            models.Index(fields=["app", "-occurred_at"], name="outcome_app"),
            models.Index(
                fields=["decision"], condition=Q(decision__isnull=False), name="outcome_decision"
            ),
            models.Index(
                fields=["request_id"], condition=~Q(request_id=""), name="outcome_request"
            ),
            models.Index(
                fields=["token_digest"], condition=~Q(token_digest=""), name="outcome_token"
            ),
            models.Index(fields=["matured_at"], name="outcome_matured"),
            models.Index(fields=["-stored_at", "-id"], name="outcome_stored"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=OutcomeKind.values), name="outcome_kind_known"
            ),
            models.CheckConstraint(condition=~Q(key=""), name="outcome_has_key"),
            models.CheckConstraint(
                condition=~Q(app="")
                | ~Q(token_digest="")
                | ~Q(request_id="")
                | Q(decision__isnull=False)
                | ~Q(receipt=""),
                name="outcome_is_about_something",
            ),
            models.CheckConstraint(
                condition=Q(reported_at__gte=F("occurred_at"), matured_at__gte=F("occurred_at")),
                name="outcome_times_in_order",
            ),
            models.CheckConstraint(
                condition=Q(weight__gt=0, weight__lte=MOST_WEIGHT)
                | Q(weight__gt=0, weight__lte=MOST_VERDICT_WEIGHT, source=FROM_DISPUTE),
                name="outcome_weight_capped",
            ),
            # a trigger asks besides whether that dispute is there (decisions/resources/ties.sql)
            models.CheckConstraint(
                condition=REAL_VERDICT | (~Q(kind__in=VERDICTS) & ~Q(source=FROM_DISPUTE)),
                name="outcome_verdict_from_dispute",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.key}"

    @property
    def is_mature(self) -> bool:
        """Whether `matured_at` has passed, so that the outcome counts."""
        return self.matured_at <= timezone.now()

    @property
    def is_real(self) -> bool:
        """Whether it may count: it is no verdict that was reported without a dispute."""
        return self.kind not in VERDICTS or self.source == FROM_DISPUTE


class State(models.TextChoices):
    """The states of a dispute."""

    OPEN = "open", "Open"
    UPHELD = "upheld", "Upheld: false throttle"
    DECLINED = "declined", "Declined: correct"


# A verdict is stored whole or not at all; the constraint below holds a dispute to one of these two.
_UNDECIDED = Q(state=State.OPEN, decided_at=None, decided_by="", verdict_reason="", outcome=None)
_DECIDED = (
    Q(
        state__in=(State.UPHELD, State.DECLINED),
        decided_at__gte=F("opened_at"),
        outcome__isnull=False,
    )
    & ~Q(decided_by="")
    & ~Q(verdict_reason="")
)


class Dispute(models.Model):
    """Someone says that a refusal was wrong; a second person decides whether it was. Fixed once it
    is decided.
    """

    decision = models.UUIDField()
    at = models.DateTimeField()
    """The decision's time."""
    app = models.TextField()
    action = models.SmallIntegerField()
    reason_code = models.SmallIntegerField()
    """The decision's machine reason."""
    weight = models.FloatField()
    """Inverse of the decision's inclusion probability."""
    state = models.CharField(max_length=16, choices=State.choices, default=State.OPEN)
    claim = models.CharField(max_length=1000)
    """Why the opener thinks it was wrong."""
    ticket = models.CharField(max_length=100, blank=True)
    opened_by = models.CharField(max_length=200)
    """Sign-in name."""
    opened_name = models.CharField(max_length=200)
    opened_at = models.DateTimeField()
    decided_by = models.CharField(max_length=200, blank=True)
    decided_name = models.CharField(max_length=200, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    verdict_reason = models.CharField(max_length=1000, blank=True)
    outcome = models.OneToOneField(
        Outcome, on_delete=models.PROTECT, null=True, blank=True, related_name="dispute"
    )
    """The outcome that the verdict became."""

    class Meta:
        db_table = "decisions_dispute"
        default_permissions = ("view",)
        permissions = [
            ("open_dispute", "May say that a refusal was wrong"),
            ("adjudicate_dispute", "May decide a dispute that someone else opened"),
        ]
        indexes = [models.Index(fields=["state", "opened_at"], name="dispute_queue")]
        constraints = [
            models.UniqueConstraint(
                fields=["decision"],
                condition=Q(state__in=(State.OPEN, State.UPHELD)),
                name="one_standing_dispute_per_decision",
            ),
            models.CheckConstraint(
                condition=_UNDECIDED | _DECIDED, name="dispute_verdict_is_whole"
            ),
            models.CheckConstraint(
                condition=~Q(decided_by=F("opened_by")), name="dispute_second_person"
            ),
            models.CheckConstraint(
                condition=Q(action__range=(int(Action.DEFER), int(max(Action)))),
                name="dispute_of_refusal",
            ),
            models.CheckConstraint(condition=Q(weight__gte=1), name="dispute_weight_in_range"),
            models.CheckConstraint(
                condition=~Q(claim="") & ~Q(opened_by=""), name="dispute_has_opener"
            ),
        ]

    def __str__(self) -> str:
        return f"dispute {self.pk} of {self.decision}, {self.state}"

    @property
    def is_open(self) -> bool:
        return self.state == State.OPEN
