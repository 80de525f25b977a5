"""Stored decisions: a sample whose every row says how likely it was to be kept.

The tables are partitioned by day (`partitions`), so they are made by SQL in the migrations; the
models describe them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, cast

from django.conf import settings
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from decider.contracts.event import Event
from decider.contracts.ids import format_decision_id


class KeptDecision(models.Model):
    """One kept decision: the fields of `decider.contracts.event.Event`, column for column, and when
    it was stored.

    `id` is a UUIDv7, so ids sort by time: newest first is `ORDER BY id DESC`, and a page's cursor
    is an id.
    """

    # PostgreSQL wants the partition column `at` in every unique key
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
    # bigint: a body may have more than 2 GiB
    payload_bytes = models.BigIntegerField()
    stored_at = models.DateTimeField(db_default=Now())

    replayed: ClassVar[bool]
    """Whether it was made in a replay of a log."""

    class Meta:
        abstract = True

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
        """Return the event as the decider wrote it; its time is exact to the microsecond."""
        stored = {name: getattr(self, name) for name in Event.__struct_fields__}
        stored |= {
            "id": self.id.bytes,
            "at": self.at.timestamp(),
            "features": bytes(self.features),
            "signals": bytes(self.signals),
        }
        return Event(**stored)


class Decision(KeptDecision):
    """A decision about live traffic."""

    replayed = False

    class Meta:
        db_table = "decisions_decision"
        default_permissions = ("view",)
        permissions = [
            ("view_token_digest", "Can see the keyed digest of the credential a request carried"),
            ("view_decision_export", "Can export decisions as CSV"),
        ]


class Replayed(KeptDecision):
    """A decision that a replay of a log made, in a table of its own: no figure of live traffic can
    count it by mistake. It is found by its id, or by its app in a search for replayed decisions.
    """

    replayed = True

    class Meta:
        db_table = "decisions_replayed"
        default_permissions = ()


# The same fields in another table: whatever shows a decision shows a replayed one too, so both have
# one type.
ReplayedDecision = cast("type[Decision]", Replayed)


class IngestedBatch(models.Model):
    """A batch of events that is stored. The transaction that stores its rows also inserts its id
    here, so the rows are stored exactly once.
    """

    id = models.UUIDField(primary_key=True)
    node = models.TextField()
    rows = models.IntegerField()
    dropped = models.BigIntegerField()
    """Sampled events that the node had dropped between its start and sending this batch."""
    sent_at = models.DateTimeField()
    stored_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ("view",)
        indexes = [
            # rows come in the order of this time, so a summary of each stretch is enough to find
            # the old ones
            BrinIndex(fields=["stored_at"], name="batch_stored_at")
        ]

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.node}"


class FacetKey(models.Model):
    """A combination of everything decisions are filtered by, and its number (`append.FACETS`)."""

    id = models.IntegerField(primary_key=True)
    action = models.SmallIntegerField()
    stage = models.SmallIntegerField()
    tier = models.SmallIntegerField()
    service = models.TextField()
    method = models.TextField()
    endpoint = models.TextField()
    reason = models.SmallIntegerField()
    arm = models.SmallIntegerField()

    class Meta:
        db_table = "decisions_facetkey"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.method} {self.endpoint}"


class AppCountKey(models.Model):
    """An app, a tier and an action, and their number (`append.APPS`)."""

    id = models.IntegerField(primary_key=True)
    app = models.TextField()
    tier = models.SmallIntegerField()
    action = models.SmallIntegerField()

    class Meta:
        db_table = "decisions_appcountkey"
        default_permissions = ()

    def __str__(self) -> str:
        return self.app


class ReadyCount(models.Model):
    """The number of decisions of a time that share a key. `append` inserts rows; `rollup` sums them
    up in blocks of several lengths.
    """

    pk = models.CompositePrimaryKey("minute", "span", "key")
    """Names a row for Django; the tables have no such constraint, and nothing looks rows up by it.
    """
    minute = models.IntegerField()
    """Minutes since 1970."""
    span = models.SmallIntegerField()
    """Minutes that the row covers; 0 marks a row that ingest appended and `rollup` has not
    compacted.
    """
    key = models.IntegerField()
    kept = models.IntegerField()
    weight = models.FloatField()
    """Sum of 1 / inclusion probability."""
    square = models.FloatField()
    """Sum of (1 / inclusion probability) squared."""

    class Meta:
        abstract = True
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kept} kept of key {self.key}"


class FacetCount(ReadyCount):
    """Counts by everything decisions are filtered by."""

    class Meta(ReadyCount.Meta):
        db_table = "decisions_facet"


class AppCount(ReadyCount):
    """Counts by app, tier and action."""

    class Meta(ReadyCount.Meta):
        db_table = "decisions_appcount"


class CountLevel(models.Model):
    """Up to which minute, exclusive, the blocks of one length are complete (`rollup`)."""

    pk = models.CompositePrimaryKey("counts", "span")
    counts = models.TextField()
    """The table of the counts."""
    span = models.SmallIntegerField()
    minute = models.IntegerField()

    class Meta:
        db_table = "decisions_countlevel"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.counts} of {self.span} min"


class TokenDay(models.Model):
    """A credential's digest, and an app that used it on a day (`seen_tokens`)."""

    pk = models.CompositePrimaryKey("digest", "day", "app")
    digest = models.UUIDField()
    day = models.DateField()
    app = models.TextField()

    class Meta:
        db_table = "decisions_tokenday"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.app} on {self.day}"


class SavedSearch(models.Model):
    """A search that someone saved under a name."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_searches"
    )
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=2000)
    """The part of the address after the question mark, as the look-up page writes it."""
    shared = models.BooleanField(default=False)
    """Whether everyone sees it."""
    saved_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name", "id"]
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="one_saved_search_per_name")
        ]

    def __str__(self) -> str:
        return self.name


def utc(seconds: float) -> datetime:
    """Return unix seconds as an aware datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
