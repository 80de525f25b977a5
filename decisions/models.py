"""Stored decisions: a sample whose every row says how likely it was to be kept.

The tables are partitioned by day (`partitions`), so they are made by SQL in the migrations; the models describe them.
"""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import models

from decider.event import Event
from decider.ids import format_decision_id

from .outcome_models import Dispute, Outcome

__all__ = ["Decision", "Dispute", "IngestedBatch", "Outcome", "utc"]


class Decision(models.Model):
    """One kept decision, column for column the fields of `decider.event.Event`, and when it was stored.

    `id` is a UUIDv7, so ids sort by time: newest first is `ORDER BY id DESC`, and a page's cursor is an id.
    """

    pk = models.CompositePrimaryKey("id", "at")
    id = models.UUIDField()
    at = models.DateTimeField()
    request_id = models.TextField()
    region = models.TextField()
    node = models.TextField()
    app = models.TextField()
    tenant = models.TextField()
    tier = models.SmallIntegerField()
    token_digest = models.TextField()
    method = models.TextField()
    endpoint = models.TextField()
    service = models.TextField()
    action = models.SmallIntegerField()
    observed = models.BooleanField()
    stage = models.SmallIntegerField()
    reason = models.SmallIntegerField()
    retry_after = models.FloatField()
    risk = models.FloatField(null=True)
    value = models.FloatField(null=True)
    raw_risk = models.FloatField(null=True)
    raw_value = models.FloatField(null=True)
    model = models.TextField()
    arm = models.SmallIntegerField()
    ml_state = models.SmallIntegerField()
    config_version = models.BigIntegerField()
    feature_schema = models.TextField()
    features = models.BinaryField()
    signals = models.BinaryField()
    inclusion_probability = models.FloatField()
    latency_us = models.FloatField()
    payload_bytes = models.BigIntegerField()
    stored_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        db_table = "decisions_decision"
        default_permissions = ("view",)
        permissions = [("view_token_digest", "Can see the keyed digest of the credential a request carried")]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The decision id as people and headers write it, `dec_` and 32 hexadecimal digits."""
        return format_decision_id(self.id.bytes)

    @property
    def weight(self) -> float:
        """How many decisions this row stands for."""
        return 1.0 / self.inclusion_probability

    def event(self) -> Event:
        """The event as the decider wrote it; its time is exact to the microsecond."""
        stored = {name: getattr(self, name) for name in Event.__struct_fields__}
        stored |= {"id": self.id.bytes, "at": self.at.timestamp(), "features": bytes(self.features), "signals": bytes(self.signals)}
        return Event(**stored)


class IngestedBatch(models.Model):
    """A batch of events that is stored. Its id is taken in the transaction that stores its rows: exactly once."""

    id = models.UUIDField(primary_key=True)
    node = models.TextField()
    rows = models.IntegerField()
    dropped = models.BigIntegerField()
    """Sampled events its node had dropped since its start when it sent this batch."""
    sent_at = models.DateTimeField()
    stored_at = models.DateTimeField(db_default=models.functions.Now(), db_index=True)

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.node}"


def utc(seconds: float) -> datetime:
    """Unix seconds as an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)
