"""What became of the sampled events that are no stored decisions: those that could not be stored,
and how many each decider sent.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

# Bytes that are kept of one. Chosen: several hundred times an event, and more than the largest
# batch of a decider whose events are as usual.
MOST_RAW = 524_288


class BuriedEvent(models.Model):
    """An event that the database cannot hold, or a batch that cannot be read, with the reason. It
    waits until a person replays or discards it (`decisions.store.buried`).
    """

    whole = models.BooleanField()
    """Whether it is a whole batch, else one event."""
    entry = models.TextField()
    """The stream id of its batch."""
    batch = models.UUIDField(null=True)
    """The id of its batch; null when that could not be read."""
    run = models.UUIDField(null=True)
    """Run of the decider that sent it; null when that is not known."""
    node = models.TextField()
    """Name of that decider, empty when it could not be read."""
    raw = models.BinaryField()
    """As received, at most MOST_RAW bytes of it."""
    size = models.IntegerField()
    """Bytes as received."""
    sqlstate = models.CharField(max_length=5)
    """PostgreSQL's code of the error; empty when the event was refused before."""
    reason = models.CharField(max_length=500)
    buried_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view",)
        permissions = [("settle_buriedevent", "May replay and discard events that were buried")]
        constraints = [
            # a worker that dies before its acknowledgement gets the batch again
            models.UniqueConstraint(
                fields=["entry"], condition=models.Q(whole=True), name="batch_buried_once"
            )
        ]

    def __str__(self) -> str:
        return f"{'batch' if self.whole else 'event'} of {self.node or 'nobody known'}"

    @property
    def is_cut(self) -> bool:
        """Whether bytes are missing, so that it cannot be replayed."""
        return self.size > MOST_RAW


class DeciderRun(models.Model):
    """How many events one run of a decider sampled, from its start to its last batch that arrived,
    and what became of them: sent = stored + buried + discarded + withheld + lost + on
    their way.
    """

    run = models.UUIDField(primary_key=True)
    node = models.TextField()
    first_at = models.DateTimeField(db_default=Now())
    last_at = models.DateTimeField(db_default=Now())
    """When its last batch was stored."""
    dropped = models.BigIntegerField(default=0)
    """Dropped by the decider, as its buffer was full or a text too long. These are not sent."""
    sent = models.BigIntegerField(default=0)
    stored = models.BigIntegerField(default=0)
    buried = models.BigIntegerField(default=0)
    """Those that wait in `BuriedEvent`."""
    discarded = models.BigIntegerField(default=0)
    withheld = models.BigIntegerField(default=0)
    """Not stored for lack of disk; they are in the counts of decisions all the same."""
    lost = models.BigIntegerField(default=0)
    """Sent and gone from the stream before they were stored: trimmed, or lost with the store."""
    lost_at = models.DateTimeField(null=True)
    """When that was last found."""

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    dropped__gte=0, sent__gte=0, stored__gte=0, buried__gte=0, discarded__gte=0
                ),
                name="run_counts_are_counts",
            )
        ]

    def __str__(self) -> str:
        return f"{self.sent} events of {self.node}"

    @property
    def sampled(self) -> int:
        return self.sent + self.dropped

    @property
    def on_their_way(self) -> int:
        """Sent and not known to be stored or lost."""
        known = self.stored + self.buried + self.discarded + self.withheld + self.lost
        return self.sent - known


class DroppedDay(models.Model):
    """A day's partition that retention dropped."""

    name = models.TextField()
    """Of the table."""
    day = models.DateField()
    rows = models.BigIntegerField()
    size = models.BigIntegerField()
    """Bytes, with its indexes."""
    why = models.TextField(choices=[("age", "Age"), ("size", "Disk budget")])
    dropped_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-dropped_at", "-id"]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.name} of {self.day}"
