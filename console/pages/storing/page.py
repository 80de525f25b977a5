"""What became of the sampled decisions, and those that could not be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from console.display import format as fmt
from decisions.models import BuriedEvent
from decisions.store import buried, ledger
from decisions.store.ledger import NodeAccount

# Buried events that are listed. Chosen: what one replay may take.
ROWS = buried.MOST_AT_ONCE


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

    @property
    def not_listed(self) -> int:
        return self.count - len(self.buried)


def storing_page() -> Storing:
    """Read the page. Raise Django's OperationalError when PostgreSQL does not answer."""
    accounts = tuple(ledger.by_node())
    count = buried.waiting().count
    total = _total(accounts)
    return Storing(
        headline=_headline(total, count),
        accounts=accounts,
        total=total,
        buried=tuple(buried.latest()[:ROWS]),
        count=count,
    )


def _total(accounts: Sequence[NodeAccount]) -> NodeAccount:
    names = ("sampled", "stored", "buried", "discarded", "lost", "dropped")
    return NodeAccount("All", *(sum(getattr(a, name) for a in accounts) for name in names))


def _headline(total: NodeAccount, count: int) -> str:
    """Say in a sentence whether every sampled decision is stored."""
    if count:
        noun, verb = ("decisions", "wait") if count > 1 else ("decision", "waits")
        return f"{count:,} sampled {noun} could not be stored and {verb}"
    if not total.sampled:
        return "Nothing was sampled yet"
    gone = total.lost + total.dropped + total.discarded
    if not gone:
        return "Every sampled decision is stored"
    return f"{fmt.percent(total.stored / total.sampled, 2)} of sampled decisions are stored"
