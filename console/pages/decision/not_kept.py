"""The page about a decision that is not stored: what was decided around it, under which rules, and
why it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from console.pages.lookup import page as lookup_page
from console.pages.lookup.page import DecisionRow
from control import installation
from control.config import documents
from control.directory import apps as directory
from decider.contracts.config import Config, TierPolicy, in_force
from decider.contracts.ids import decision_time, format_decision_id
from decider.contracts.vocabulary import Action, Tier
from decisions.counts.estimate import Estimate, total
from decisions.models import Decision
from decisions.search import credentials, facet_counts, lookup
from decisions.search.filters import DAY_S, Filters
from decisions.search.lookup import QueryReading

# Seconds. A younger decision may still be on its way from its decider.
ARRIVES_S = 30.0
# Seconds. Clocks of nodes differ by less than a minute, so an id from further ahead comes from a
# wrong clock or is invented.
AHEAD_S = 60.0
# Seconds: a minute, and how far before and after the id similar decisions are sought, which bounds
# the scan. Similar decisions shown; eight fill the table without scrolling.
MINUTE_S, NEAR_S, SIMILAR = 60.0, 900.0, 8


@dataclass(frozen=True, slots=True)
class Share:
    """Decisions of one action."""

    action: Action
    number: Estimate
    share: float
    """Share of all decisions of that time, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Time:
    """What was decided in a span of time."""

    words: str
    number: Estimate
    shares: tuple[Share, ...]
    href: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The config document in force then, as far as it says what could have happened."""

    version: int
    switches: tuple[str, ...]
    """Names of the engaged kill switches."""
    model: str
    """Name and version of the live model; empty: the fallback limiter decided."""
    kept: tuple[tuple[str, float], ...]
    """How likely a decision of each kind was to be kept, unless load made it less."""
    tier: str
    plan: TierPolicy | None
    """Plan of the app's tier; None when the app is not known."""


@dataclass(frozen=True, slots=True)
class NotKept:
    """Everything on the page about a decision that is not stored."""

    id: str
    at: float
    state: str
    """sampled, young, expired or future."""
    app: str
    name: str
    unknown: bool
    """Whether the text given for the app names none. It may be a credential, so the page does not
    repeat it.
    """
    times: tuple[Time, ...]
    rules: Rules | None
    similar: tuple[DecisionRow, ...]
    keep_days: int

    @property
    def shown_apps(self) -> tuple[str, ...]:
        """Ids of the apps that the page shows something of."""
        named = [self.app] if self.app else []
        return tuple(dict.fromkeys([*named, *(row.decision.app for row in self.similar)]))

    @property
    def minute(self) -> Time:
        return self.times[0]


def missing_decision(raw: bytes, app: str, now: float) -> NotKept:
    """Return what is known about the moment whose time a decision id holds.

    `raw` is the 16 bytes of the id, `app` an id or name (may be empty) that narrows it to one app,
    `now` unix seconds.
    """
    at = decision_time(raw)
    known, app_id = _app(app)
    reading = QueryReading("app", app_id, apps=(app_id,)) if app_id else QueryReading("all", "")
    version, document = documents.in_force(at)
    minute = at // MINUTE_S * MINUTE_S
    return NotKept(
        id=format_decision_id(raw),
        at=at,
        state=_state(at, now),
        app=app_id,
        name=known.name if known else app_id,
        unknown=bool(app) and not app_id,
        times=(
            _time("That minute", reading, minute, minute + MINUTE_S, now),
            _time(
                "Ten minutes around it", reading, minute - 5 * MINUTE_S, minute + 5 * MINUTE_S, now
            ),
        ),
        rules=_rules(version, document, known.tier if known else None, at) if document else None,
        similar=tuple(lookup_page.rows_of(_similar(app_id, at))),
        keep_days=installation.keep_days(),
    )


def app_of(text: str) -> str:
    """Return the id of the app that someone named by id or name.

    Return "" for a text that is not an app, and for one that looks like a credential.
    """
    return "" if credentials.looks_secret(text) else _app(text)[1]


def _app(text: str) -> tuple[directory.KnownApp | None, str]:
    """Return the app that someone named, and its id.

    An app that was seen in decisions but never registered has an id only.
    """
    # No id or name is longer, and a longer text must not make the query slow.
    text = text.strip()[:200]
    # PostgreSQL cannot store a NUL, and no query may get a credential.
    if not text or "\x00" in text or credentials.is_secret(text, insisted=True):
        return None, ""
    found = directory.app(text) or next(iter(directory.named(text, limit=1).apps), None)
    if found:
        return found, found.id
    return None, text if Decision.objects.filter(app=text).exists() else ""


def _state(at: float, now: float) -> str:
    """Say why a decision of this time (unix seconds) is not stored: future, young, expired or
    sampled.
    """
    if at > now + AHEAD_S:
        return "future"
    if at > now - ARRIVES_S:
        return "young"
    # Partitions are dropped by whole days.
    return "expired" if at < now // DAY_S * DAY_S - installation.keep_days() * DAY_S else "sampled"


def _time(words: str, reading: QueryReading, since: float, until: float, now: float) -> Time:
    """Count what was decided from `since` until `until` (unix seconds)."""
    filters = Filters(start=since, end=until)
    counted = lookup_page.count(reading, filters, now)
    number = total(t.number for t in counted.tallies)
    by_action = facet_counts.sums(counted.tallies, lambda t: Action(t.values[0]))
    shares = tuple(Share(action, n, n.count / number.count) for action, n in by_action.items())
    return Time(
        words,
        number,
        shares,
        lookup_page.lookup_address(reading.text, filters, insist="app" if reading.apps else ""),
    )


def _rules(version: int, document: Config, tier: int | None, at: float) -> Rules:
    """Return what the config document says about switches, model, sampling and plan."""
    s = document.sampling
    return Rules(
        version=version,
        switches=tuple(w.name.replace("_", " ") for w in in_force(document.switches, at)),
        model=f"{document.model.name} v{document.model.version}" if document.model else "",
        kept=(
            ("Admit", s.admit),
            ("Refusal", s.refuse),
            ("Block", s.block),
            ("Refusal of enterprise", s.enterprise_refuse),
        ),
        tier="" if tier is None else Tier(tier).word.capitalize(),
        plan=None if tier is None else document.tiers[tier],
    )


def _similar(app: str, at: float) -> list[Decision]:
    """Return the stored decisions nearest in time, newest first; of one app when it is known."""
    rows = lookup.within(
        Decision.objects.filter(app=app) if app else Decision.objects.all(),
        at - NEAR_S,
        at + NEAR_S,
    )
    rows, moment = rows.defer("features"), lookup.id_at(at)
    # Both sides are read in full, because the nearest ones may all lie on one side.
    older = list(rows.filter(id__lt=moment).order_by("-id")[:SIMILAR])
    newer = list(rows.filter(id__gte=moment).order_by("id")[:SIMILAR])
    nearest = sorted(older + newer, key=lambda d: abs(d.at.timestamp() - at))[:SIMILAR]
    return sorted(nearest, key=lambda d: d.id, reverse=True)
