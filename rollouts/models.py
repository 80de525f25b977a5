"""Model versions: which artifacts are registered and which one is live."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q


class ModelVersion(models.Model):
    """A registered model artifact. Its file is kept under its digest and never changes."""

    class State(models.TextChoices):
        """The states of a version."""

        REGISTERED = "registered", "Registered"
        LIVE = "live", "Live"
        RETIRED = "retired", "Retired"

    # all versions of a name replace one another; a version never moves to another name
    name = models.CharField(max_length=128)
    version = models.PositiveIntegerField()
    """1, 2, 3 ... per name."""
    digest = models.CharField(
        max_length=64, unique=True, validators=[RegexValidator(r"^[0-9a-f]{64}$")]
    )
    """SHA-256 of the artifact; the name of its file."""
    feature_schema = models.CharField(max_length=128)
    card = models.JSONField()
    """The artifact's model card (`decider.contracts.artifact.ModelCard`)."""
    state = models.CharField(max_length=16, choices=State.choices, default=State.REGISTERED)
    registered_at = models.DateTimeField()
    by = models.CharField(max_length=200)
    live_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-registered_at"]
        # registering and promoting are acts with a reason; nobody edits a row
        default_permissions = ("view",)
        permissions = [
            ("register_model", "May register model versions"),
            ("promote_model", "May make a model version live"),
        ]
        # constraints also stop bulk updates and SQL: the console shows one live model, and deciders
        # run one
        constraints = [
            models.UniqueConstraint(fields=["name", "version"], name="model_version_once"),
            models.UniqueConstraint(
                fields=["state"], condition=Q(state="live"), name="one_live_model"
            ),
            models.CheckConstraint(
                condition=~Q(state="live") | Q(live_since__isnull=False),
                name="live_model_has_since",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"
