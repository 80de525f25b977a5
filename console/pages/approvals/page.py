"""What the pages of approvals show: what waits for whom, what would change, who would notice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.utils import timezone

from console.frame import roles
from console.pages.approvals import deciding, noticing
from control.approvals import mode, requests, reviews, voters
from control.approvals.lifecycle import State
from control.approvals.models import Request, Review, Vote
from control.audit.actors import Actor
from control.config import gate, part_words, parts, requested
from control.config.part_words import Said
from control.config.second_person import Kind, kinds_of

# What each kind is called on its card, and who decides it.
_TAGS = {
    Kind.SWITCHES: "Switch",
    Kind.POLICIES: "Policy",
    Kind.ROLLOUTS: "Model",
    Kind.RULE: "Rule",
}
# What stays as it is, by kind.
_STAYS = {
    Kind.SWITCHES: "All other switches and services.",
    Kind.POLICIES: "Every other limit, list and override.",
    Kind.ROLLOUTS: "Limits, switches and thresholds.",
    Kind.RULE: "Everything in the config.",
}
# Levels of a state that has ended, as the page marks them.
_LEVELS = {State.APPLIED: "ok", State.VETOED: "bad", State.FAILED: "bad"}
# Four eyes are two people's.
PAIR = 2
# The rows of the table of who decides what.
RULES = (
    ("Engage a switch, lower a capacity", "Nobody else, it is at once"),
    ("Go back to a model of the last 30 days", "Nobody else, it is at once"),
    ("Clear a switch, or extend its end", "1 SRE, but whoever engaged it has 10 minutes alone"),
    ("Raise a capacity", "1 SRE"),
    ("Tiers, overrides, lists", "1 policy admin"),
    ("Another model", "1 ML owner"),
    ("Four eyes on or off", "1 SRE or policy admin"),
)


@dataclass(frozen=True)
class Voice:
    """One vote in a card."""

    name: str
    how: str
    """When, and what vouches for the person."""
    approves: bool
    text: str
    """Approved, Vetoed, or why it does not count any more."""


@dataclass(frozen=True)
class Card:
    """One request as this person sees it."""

    row: Request
    title: str
    tag: str
    proposer: str
    said: tuple[Said, ...]
    stays: str
    voices: tuple[Voice, ...]
    level: str
    """Of the state in words: ok, warn, bad or off."""
    state: str
    overtaken: str
    """Who overtook it and what is in force now; empty when nobody did."""
    is_mine: bool
    why_not: str
    """Why this person may not decide it; empty when they may."""
    may_rebase: bool
    who_can: str
    lacks: str
    """What it still needs, sentences."""

    @property
    def may_vote(self) -> bool:
        """Whether this person may decide it now."""
        return self.row.state == State.OPEN and not self.why_not

    @property
    def may_approve(self) -> bool:
        """Whether they may approve it: an overtaken one can only be vetoed."""
        return self.may_vote and not self.overtaken

    @property
    def is_open(self) -> bool:
        return self.row.state == State.OPEN

    @property
    def is_counted(self) -> bool:
        """Whether a preview can say who would notice."""
        return noticing.is_counted(self.row)

    @property
    def rank(self) -> tuple[int, int]:
        """Place in the list: what waits for this person, what was overtaken, the others."""
        first = 0 if self.may_approve else 1 if self.overtaken else 3 if self.is_mine else 2
        return first, self.row.pk


@dataclass(frozen=True)
class Page:
    """Everything on the page of approvals."""

    cards: tuple[Card, ...]
    decided: tuple[Card, ...]
    """Closed since midnight, the latest first."""
    reviews: tuple[Review, ...]
    four_eyes: bool
    may_ask: bool
    mode_asked: Request | None
    """The open request to turn four eyes on or off."""
    lone: tuple[str, ...]
    """What only one person may decide, so that their own requests wait for nobody."""
    rules: tuple[tuple[str, str], ...] = RULES

    @property
    def headline(self) -> str:
        waits, mine = len(self.cards), sum(card.may_approve for card in self.cards)
        if not waits:
            done = len(self.decided)
            if not done:
                return "Nothing waits for a second person"
            return f"Nothing waits. {done} {'was' if done == 1 else 'were'} decided today"
        head = f"{waits} change{'s wait' if waits > 1 else ' waits'} for a second person"
        return f"{head}, {mine} of them for you" if waits > 1 else f"{head}{', you' * bool(mine)}"

    @property
    def lead(self) -> str:
        """What else is to know of the list, in sentences."""
        said = []
        if over := sum(bool(card.overtaken) for card in self.cards):
            was = "One was" if over == 1 else f"{over} were"
            said.append(f"{was} overtaken by a newer change.")
        if own := sum(card.is_mine for card in self.cards):
            said.append("One is yours." if own == 1 else f"{own} are yours.")
        said.append("The proposer never decides. A request that nobody decides ends by itself.")
        return " ".join(said)


def approvals_page(user: User) -> Page:
    """Read the page for this person."""
    now = timezone.now()
    cards = sorted((card_of(row, user, now) for row in requests.waiting(now)), key=_rank)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return Page(
        cards=tuple(cards),
        decided=tuple(card_of(row, user, now) for row in requests.closed(today)[:20]),
        reviews=tuple(reviews.waiting()),
        four_eyes=mode.is_on(),
        may_ask=user.has_perm(mode.PERMISSION),
        mode_asked=next((c.row for c in cards if c.tag == _TAGS[Kind.RULE]), None),
        lone=_lone(),
    )


def _rank(card: Card) -> tuple[int, int]:
    return card.rank


def card_of(row: Request, user: User, now: datetime) -> Card:
    """Return a request as this person sees it."""
    found = parts.read_payload(row.payload)
    kinds = sorted(kinds_of(found), key=list(Kind).index)
    needed, is_mine = gate.permissions_of(row), row.requested_by_id == user.pk
    over = requested.overtaken(row, now) if row.state == State.OPEN else None
    overtaken = deciding.overtaken_text(over) if over else ""
    voted = next((vote for vote in row.votes.all() if vote.voter_id == user.pk), None)
    why_not = voters.why_not(user, row, needed) if row.state == State.OPEN else "It is closed."
    if voted is not None:
        why_not = why_not or f"You {voted.get_verdict_display().lower()} it already."
    level, state = _standing(row, overtaken, is_mine, why_not)
    return Card(
        row=row,
        title=title(row),
        tag=_TAGS[kinds[0]],
        proposer="You" if is_mine else Actor.of(row.requested_by).name,
        said=said_of(row.payload),
        stays=_STAYS[kinds[0]],
        voices=_voices(row, needed),
        level=level,
        state=state,
        overtaken=overtaken,
        is_mine=is_mine,
        why_not=why_not,
        may_rebase=bool(overtaken) and requested.may_rebase(user, row),
        who_can=" ".join(f"{roles.who_can(name)}." for name in sorted(needed)),
        lacks=_lacks(row, needed),
    )


def _lacks(row: Request, needed: set[str]) -> str:
    """Return what a request still needs, in sentences; empty when it is closed."""
    if row.state != State.OPEN:
        return ""
    found = voters.missing(row, needed)
    said = f"It needs {max(found.people, len(found.permissions), 1)} more."
    return " ".join([said, *(f"{roles.who_can(one)}." for one in sorted(found.permissions))])


def said_of(payload: str) -> tuple[Said, ...]:
    """Return the parts of a change in words."""
    return tuple(part_words.said(one) for one in parts.read_payload(payload))


def title(row: Request) -> str:
    """Return what a request asks for, in the words of its content."""
    clauses = [part_words.clause(one) for one in parts.read_payload(row.payload)]
    verb, _, rest = clauses[0].removeprefix("it ").partition(" ")
    more = f", and {len(clauses) - 1} more" if len(clauses) > 1 else ""
    # "it clears the switch" is asked for as "Clear the switch"
    return f"{verb.capitalize().removesuffix('s')} {rest}{more}"


def _standing(row: Request, overtaken: str, is_mine: bool, why_not: str) -> tuple[str, str]:
    """Return level and words of how a request stands for this person."""
    if row.state != State.OPEN:
        return _LEVELS.get(State(row.state), "off"), State(row.state).label
    if overtaken:
        return "bad", "Overtaken"
    if is_mine:
        return "off", "Yours"
    return ("off", "Not yours") if why_not else ("warn", "Needs you")


def _voices(row: Request, needed: set[str]) -> tuple[Voice, ...]:
    counted = {vote.pk for vote in voters.counted(row, needed)} if row.votes.all() else set()
    return tuple(
        Voice(
            Actor.of(vote.voter).name,
            f"{vote.at:%H:%M}, {vote.get_how_display()}",
            vote.verdict == Vote.Verdict.APPROVE,
            vote.get_verdict_display()
            if vote.pk in counted or vote.verdict == Vote.Verdict.VETO or row.state != State.OPEN
            else "Does not count any more",
        )
        for vote in row.votes.all()
    )


def _lone() -> tuple[str, ...]:
    """Return the kinds that fewer than two people may decide."""
    few = []
    for kind, permission in gate.PERMISSIONS.items():
        able = User.objects.with_perm(
            permission, backend="django.contrib.auth.backends.ModelBackend"
        )
        if able.count() < PAIR:
            few.append(_TAGS[kind])
    return tuple(few)
