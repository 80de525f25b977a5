"""The gate: where a config document is made, what in it needs a second person is held back.

Three things let such a change through: an approved request for exactly this change, single-person
mode, and having happened already while PostgreSQL was down, which opens a review.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from control.approvals import mode, requests, reviews
from control.approvals.models import Request, Review
from control.approvals.requests import Draft
from control.audit.actors import Actor
from control.config import parts
from control.config.second_person import (
    KNOWN_MODEL,
    TAKE_BACK,
    Circumstances,
    Kind,
    Verdict,
    kinds_of,
    second_person,
)
from control.errors import Refused
from control.models import App, AuditEntry, ConfigVersion
from decider.contracts import config as document
from decider.contracts.config import Config
from decider.contracts.vocabulary import Tier

# Who may approve what: each kind of change has a permission.
PERMISSIONS: dict[Kind, str] = {
    Kind.SWITCHES: "approvals.approve_switches",
    Kind.POLICIES: "approvals.approve_policies",
    Kind.ROLLOUTS: "approvals.approve_rollouts",
    Kind.RULE: mode.PERMISSION,
}


@dataclass(frozen=True)
class Wanted:
    """A change as its verb describes it."""

    by: Actor
    reason: str
    action: str
    subject: str
    summary: str


@dataclass(frozen=True)
class Clearance:
    """How a config version came to be, as it is stored with it."""

    loosens: bool = False
    """Whether the change needed a second person."""
    change: str = ""
    """Digest of the change, where it did."""
    alone: bool = False
    """Whether it was made in single-person mode."""
    request: Request | None = None
    review: Review | None = None

    @property
    def mark(self) -> str:
        """What the audit log's sentence ends with."""
        return " (one person)" if self.alone else ""


class NeedsSecondPerson(Refused):
    """A change that waits for a second person. It can be asked for as it is (`draft`)."""

    def __init__(self, verdict: Verdict, wanted: Wanted, now: float) -> None:
        super().__init__(f"This needs a second person: {'; '.join(verdict.needs)}.")
        self.verdict, self.wanted, self.now = verdict, wanted, now

    @property
    def draft(self) -> Draft:
        """The request for it."""
        return drafted(self.verdict, self.wanted, self.now)


def drafted(verdict: Verdict, wanted: Wanted, now: float) -> Draft:
    """Return a change as a request has it. It ends when a switch that it clears ends by itself."""
    ends = [
        float(d.before["until"])
        for d in verdict.change
        if d.path[0] == "switches" and isinstance(d.before, dict) and d.before.get("until")
    ]
    # one that ends later than any request needs no words here
    latest = now + requests.WAITS.total_seconds()
    soonest = min((end for end in ends if now < end < latest), default=None)
    return Draft(
        action=wanted.action,
        subject=wanted.subject,
        summary=wanted.summary,
        payload=verdict.payload,
        digest=verdict.digest,
        base=verdict.base,
        expires_at=None if soonest is None else datetime.fromtimestamp(soonest, UTC),
    )


def permissions_of(request: Request) -> set[str]:
    """Return the permissions that whoever decides a request needs, from its content: what its
    action says of it counts for nothing.
    """
    return permissions_for(request.payload)


def permissions_for(payload: str) -> set[str]:
    """Return the permissions that whoever decides a change of this payload needs."""
    return {PERMISSIONS[kind] for kind in kinds_of(parts.read_payload(payload))}


def pass_through(
    old: Config,
    new: Config,
    wanted: Wanted,
    *,
    now: datetime,
    request: Request | None = None,
    offline: bool = False,
) -> Clearance:
    """Return how a change may stand. Call it in its transaction, under the lock of config versions.

    `offline`: it happened already, without PostgreSQL. Raise NeedsSecondPerson for a change that
    waits for one, Refused when `request` is not approved or for another change.
    """
    verdict = judge(old, new, wanted.by, now)
    if request is not None:
        taken = requests.take(request.pk, verdict.digest, permissions_of)
        return Clearance(bool(verdict.needs), verdict.digest, request=taken)
    if not verdict.needs:
        return Clearance()
    if not mode.is_on():
        return Clearance(True, verdict.digest, alone=True)
    if not offline:
        raise NeedsSecondPerson(verdict, wanted, now.timestamp())
    review = reviews.open_review(
        by=wanted.by,
        payload=verdict.payload,
        digest=verdict.digest,
        summary=wanted.summary,
        reason=wanted.reason,
    )
    return Clearance(True, verdict.digest, review=review)


def judge(old: Config, new: Config, by: Actor, now: datetime, below: int | None = None) -> Verdict:
    """Return what in a change needs a second person, seen from what was stored before the version
    `below`; without it, from all that is stored.
    """
    return second_person(old, parts.decoded(new), now.timestamp(), _circumstances(by, now, below))


def _circumstances(by: Actor, now: datetime, below: int | None) -> Circumstances:
    return Circumstances(
        # asked only about a switch: it reads the versions of ten minutes
        is_own=lambda part: part in own_switches(by, now, below),
        was_live=lambda digest: _was_live(digest, now, below),
        # nobody stores what tier an app was of at an earlier time, and today's would accuse falsely
        is_enterprise=_is_enterprise if below is None else lambda *_: False,
    )


def own_switches(by: Actor, now: datetime, below: int | None = None) -> frozenset[str]:
    """Return the parts of the switches that this person engaged within TAKE_BACK. Documents and
    audit log say it, so nothing else can.
    """
    engaged: dict[str, tuple[str, bool]] = {}
    for row, was, becomes in _steps_since(now - TAKE_BACK, below):
        entry = AuditEntry.objects.filter(config_version=row).order_by("seq").first()
        who = _identity(entry.actor_login, entry.actor_role) if entry else ("", False)
        for found in parts.differences(was, becomes, row.made_at.timestamp()):
            if found.path[0] != "switches":
                continue
            if found.before is None:
                engaged[found.part] = who
            elif found.after is None:
                engaged.pop(found.part, None)
    me = _identity(by.login, by.role)
    # the system has no login, and takes nothing back
    return frozenset(part for part, who in engaged.items() if who == me and me[0])


def _identity(login: str, role: str) -> tuple[str, bool]:
    """Return who that is: a name at a shell is another person's than the same one signed in."""
    return login, role == "Shell"


def _steps_since(
    since: datetime, below: int | None
) -> Iterator[tuple[ConfigVersion, Config, Config]]:
    """Yield each version made since then with the document before it and its own."""
    rows = ConfigVersion.objects.order_by("version")
    if below is not None:
        rows = rows.filter(version__lt=below)
    made = list(rows.filter(made_at__gte=since))
    if not made:
        return
    before = rows.filter(version__lt=made[0].version).last()
    was = _read(before) if before else None
    for row in made:
        becomes = _read(row)
        if was is not None:
            yield row, was, becomes
        was = becomes


def _read(row: ConfigVersion) -> Config:
    return document.decode(bytes(row.payload))


def _was_live(digest: str, now: datetime, below: int | None) -> bool:
    """Return whether a model was live within KNOWN_MODEL, by the stored documents."""
    rows = ConfigVersion.objects.order_by("-version")
    if below is not None:
        rows = rows.filter(version__lt=below)
    for row in rows.iterator(chunk_size=50):
        model = _read(row).model
        if model is not None and model.digest == digest:
            return True
        # the first version before that time was in force when it began
        if row.made_at < now - KNOWN_MODEL:
            return False
    return False


def _is_enterprise(kind: str, subject: str) -> bool:
    """Return whether an app, or a tenant by any app of it, is of the enterprise tier."""
    apps = App.objects.filter(tier=int(Tier.ENTERPRISE))
    found = apps.filter(pk=subject) if kind == "app" else apps.filter(tenant=subject)
    return found.exists()
