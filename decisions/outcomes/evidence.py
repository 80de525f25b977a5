"""What is known about the app that an outcome is about: from what was reported, from the decisions
and credentials that are stored by now, and from receipts.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.db import connection

from control.errors import KeysError
from decider.contracts.ids import decision_time
from decider.refusal.receipt import ReceiptError
from decisions.models import Decision, Outcome, utc
from decisions.models.outcome import MOST_WEIGHT
from decisions.models.tie import TieHow
from decisions.search import receipts
from decisions.search.filters import DAY_S
from decisions.search.receipts import Unsealed

log = logging.getLogger("sluice.outcomes")

# Decisions that are read for one request id. Chosen: a request is decided a few times (retries); an
# id on more decisions than this names no request, and reading all of them could take minutes.
MOST_OF_REQUEST = 1_000
# Share by which a weight may exceed its limit: reporters round.
ROUNDING = 0.01


@dataclass(frozen=True, slots=True)
class Evidence:
    """What tells the app of one outcome."""

    sure: Mapping[TieHow, str] = field(default_factory=dict)
    """Apps by what told them, where that can tell only one: app id, decision, receipt."""
    unsure: Mapping[TieHow, frozenset[str]] = field(default_factory=dict)
    """Apps that used the request id or the credential. Nothing keeps two apps from the same."""
    crowded: bool = False
    """Whether more decisions carry the request id than were read."""
    is_all: bool = True
    """Whether nothing sure is missing: the decision and the receipt that were given have told their
    app.
    """
    decision: uuid.UUID | None = None
    """The decision that was given, or that the receipt is about."""
    weight: float = MOST_WEIGHT
    """How many events the outcome may stand for at most."""
    problems: tuple[tuple[str, str], ...] = ()
    """Field and sentence of what contradicts itself."""


@dataclass(frozen=True, slots=True)
class _OfRequest:
    apps: frozenset[str]
    decisions: int
    weight: float


@dataclass(frozen=True, slots=True)
class _Known:
    """What was looked up for several outcomes."""

    decisions: Mapping[uuid.UUID, tuple[str, float]]
    """App and weight."""
    requests: Mapping[str, _OfRequest]
    tokens: Mapping[str, frozenset[str]]
    receipts: Mapping[str, Unsealed]
    broken: Mapping[str, str]
    """Receipts that cannot be relied on, and why."""
    pseudonyms: Mapping[str, str]
    """Registered apps by the pseudonym in a receipt."""


def gather(rows: Sequence[Outcome]) -> list[Evidence]:
    """Return the evidence for each outcome, in their order, with one query for each kind of it."""
    opened, broken = _open({row.receipt for row in rows if row.receipt})
    ids = {row.decision for row in rows if row.decision} | {r.decision for r in opened.values()}
    nameless = [row for row in rows if not row.app]
    known = _Known(
        _decisions(ids),
        # with an app, a request tells nothing more but how much the outcome may weigh
        _requests({row.request_id for row in rows if not row.app or row.weight > 1} - {""}),
        _tokens({row.token_digest for row in nameless} - {""}),
        opened,
        broken,
        receipts.registered(opened.values()),
    )
    return [_evidence(row, known) for row in rows]


def _evidence(row: Outcome, known: _Known) -> Evidence:
    opened = known.receipts.get(row.receipt)
    decision = row.decision or (opened.decision if opened else None)
    stored = known.decisions.get(decision) if decision else None
    asked = known.requests.get(row.request_id)
    sure: dict[TieHow, str] = {}
    if row.app:
        sure[TieHow.APP] = row.app
    if stored and row.decision:
        sure[TieHow.DECISION] = stored[0]
    if opened and (app := _app_of(opened, row, known)):
        sure[TieHow.RECEIPT] = app
    unsure = {TieHow.TOKEN: known.tokens.get(row.token_digest, frozenset())}
    if asked:
        unsure[TieHow.REQUEST] = asked.apps
    weight = stored[1] if stored else asked.weight if asked else MOST_WEIGHT
    found = Evidence(
        sure,
        {how: apps for how, apps in unsure.items() if apps},
        crowded=asked is not None and asked.decisions > MOST_OF_REQUEST,
        is_all=(not row.decision or stored is not None)
        and (not row.receipt or TieHow.RECEIPT in sure),
        decision=decision,
        weight=min(MOST_WEIGHT, max(1.0, weight)),
    )
    return _with_problems(found, row, opened, known.broken.get(row.receipt, ""))


def _app_of(opened: Unsealed, row: Outcome, known: _Known) -> str:
    """Return the app of a receipt; "" while none is known that has its pseudonym."""
    stored, _ = known.decisions.get(opened.decision, ("", 0.0))
    for app in (row.app, stored):
        if app and opened.is_of(app):
            return app
    return known.pseudonyms.get(opened.receipt.app, "")


def _with_problems(found: Evidence, row: Outcome, opened: Unsealed | None, broken: str) -> Evidence:
    """Return the evidence with everything in which a report contradicts itself or what is
    stored.
    """
    problems = []
    told = found.sure.get(TieHow.DECISION)
    if row.app and told and told != row.app:
        problems.append(("app", "The decision was about another app than the one given."))
    if broken:
        problems.append(("receipt", broken))
    if opened and row.decision and opened.decision != row.decision:
        problems.append(("receipt", "The receipt is about another decision than the one given."))
    if opened and row.app and not opened.is_of(row.app):
        problems.append(("receipt", "The receipt is about another app than the one given."))
    if row.weight > found.weight * (1 + ROUNDING):
        text = (
            f"The weight is {row.weight:g}, but the decision stands for {found.weight:g}: a weight"
            " is the inverse of the probability with which its decision was kept."
        )
        problems.append(("weight", text))
    return replace(found, problems=tuple(problems))


def _open(texts: set[str]) -> tuple[dict[str, Unsealed], dict[str, str]]:
    """Return the receipts that open, and why the others do not. Without the keys none is opened,
    and none is called broken: they wait.
    """
    opened: dict[str, Unsealed] = {}
    broken: dict[str, str] = {}
    if not texts:
        return opened, broken
    try:
        sealers = receipts.load_sealers()
    except KeysError as error:
        log.warning("Receipts of outcomes cannot be opened here: %s", error)
        return opened, broken
    for text in texts:
        try:
            opened[text] = receipts.unseal(text, sealers)
        except ReceiptError as error:
            broken[text] = str(error)
    return opened, broken


def _decisions(ids: set[uuid.UUID]) -> dict[uuid.UUID, tuple[str, float]]:
    """Return app and weight of those decisions that are stored."""
    times = {one: decision_time(one.bytes) for one in ids}
    # 1970 to 2191: an id outside is not ours, and its datetime might overflow
    ours = {one: at for one, at in times.items() if DAY_S < at < 7e9}
    if not ours:
        return {}
    found = Decision.objects.filter(
        id__in=list(ours),
        at__gte=utc(min(ours.values()) - DAY_S),
        at__lt=utc(max(ours.values()) + DAY_S),
    )
    return {
        one: (app, 1 / probability)
        for one, app, probability in found.values_list("id", "app", "inclusion_probability")
    }


def _requests(ids: set[str]) -> dict[str, _OfRequest]:
    """Return the stored decisions that carry each request id."""
    if not ids:
        return {}
    # each id is read by itself up to a limit: a client may send the same id with every request
    sql = (
        "SELECT r.id, array_agg(DISTINCT d.app), count(*), max(1 / d.inclusion_probability)"
        " FROM unnest(%s::text[]) AS r(id) CROSS JOIN LATERAL ("
        "SELECT app, inclusion_probability FROM decisions_decision"
        " WHERE request_id = r.id AND request_id <> '' LIMIT %s) d GROUP BY r.id"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [sorted(ids), MOST_OF_REQUEST + 1])
        return {
            request: _OfRequest(frozenset(apps), count, weight)
            for request, apps, count, weight in cursor.fetchall()
        }


def _tokens(digests: set[str]) -> dict[str, frozenset[str]]:
    """Return the apps that used each credential, two at most: more than one is too many."""
    if not digests:
        return {}
    sql = (
        "SELECT t.digest, d.app FROM unnest(%s::uuid[]) AS t(digest) CROSS JOIN LATERAL ("
        "SELECT DISTINCT app FROM decisions_tokenday WHERE digest = t.digest LIMIT 2) d"
    )
    found: dict[str, frozenset[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(sql, [[uuid.UUID(hex=one) for one in sorted(digests)]])
        for digest, app in cursor.fetchall():
            found[digest.hex] = found.get(digest.hex, frozenset()) | {app}
    return found
