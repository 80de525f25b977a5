"""What became of the sampled decisions, and those that could not be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from console.display import format as fmt
from control import disk
from control.disk import DiskUse, Room, TableSize
from decisions.models import BuriedEvent, DroppedDay
from decisions.store import buried, ledger
from decisions.store.ledger import NodeAccount

# Buried events that are listed. Chosen: what one replay may take.
ROWS = buried.MOST_AT_ONCE
# Tables and dropped days that are listed. Chosen: the rest is small, and older days long gone.
TABLES, DAYS = 10, 10


@dataclass(frozen=True)
class Storing:
    """Everything on the page."""

    headline: str
    accounts: tuple[NodeAccount, ...]
    """Of each decider."""
    total: NodeAccount
    buried: tuple[BuriedEvent, ...]
    """The latest of those that wait."""
    count: int
    """All that wait."""
    use: DiskUse
    disk_line: str
    """What of the disk is used, and what has stopped, if anything."""
    tables: tuple[TableSize, ...]
    """The largest ones."""
    dropped: tuple[DroppedDay, ...]
    """The days that retention dropped last."""

    @property
    def not_listed(self) -> int:
        return self.count - len(self.buried)


def storing_page() -> Storing:
    """Read the page. Raise Django's OperationalError when PostgreSQL does not answer."""
    accounts = tuple(ledger.by_node())
    count = buried.waiting().count
    total, use = _total(accounts), disk.recent()
    return Storing(
        headline=_headline(total, count),
        accounts=accounts,
        total=total,
        buried=tuple(buried.latest()[:ROWS]),
        count=count,
        use=use,
        disk_line=_disk_line(use),
        tables=tuple(disk.by_table()[:TABLES]),
        dropped=tuple(DroppedDay.objects.all()[:DAYS]),
    )


# What has stopped for lack of disk.
_STOPPED = {
    Room.ENOUGH: "Nothing has stopped for lack of disk.",
    Room.NO_ADMITS: "Admits are no longer stored; refusals are, and all is counted.",
    Room.NO_DECISIONS: "No decision is stored any more; all is counted.",
    Room.NO_CHANGES: "No decision is stored, and nothing can be changed but from a shell.",
}


def _disk_line(use: DiskUse) -> str:
    """Say how much is used, and what has stopped."""
    free = "" if use.free is None else f" The disk has {use.free / disk.GB:,.1f} GB free."
    used = f"{use.used / disk.GB:,.1f} GB of {use.budget / disk.GB:,.0f} GB are used."
    return f"{used}{free} {_STOPPED[use.room]}"


def _total(accounts: Sequence[NodeAccount]) -> NodeAccount:
    names = ("sampled", "stored", "buried", "discarded", "withheld", "lost", "dropped")
    return NodeAccount("All", *(sum(getattr(a, name) for a in accounts) for name in names))


def _headline(total: NodeAccount, count: int) -> str:
    """Say in a sentence whether every sampled decision is stored."""
    if count:
        noun, verb = ("decisions", "wait") if count > 1 else ("decision", "waits")
        return f"{count:,} sampled {noun} could not be stored and {verb}"
    if not total.sampled:
        return "Nothing was sampled yet"
    gone = total.lost + total.dropped + total.discarded + total.withheld
    if not gone:
        return "Every sampled decision is stored"
    return f"{fmt.percent(total.stored / total.sampled, 2)} of sampled decisions are stored"
