"""Plans, applies and exports `sluice.yaml` against what is in force and what was last applied."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from django.utils import timezone
from msgspec import Struct

from control import installation, locks
from control.approvals import requests
from control.approvals.models import Request
from control.audit import chain
from control.audit.actors import Actor
from control.config import beside, changes, gate
from control.config import parts as differing
from control.config.gate import Clearance, Wanted
from control.declared import export, form, planning, reading
from control.declared import parts as parted
from control.declared.form import Retention, Tenant
from control.declared.parts import Part, Parts, Stored
from control.declared.planning import Conflict, Plan, Take
from control.errors import Refused
from control.locks import Lock
from control.models import AppliedFile, ConfigVersion
from control.models import Tenant as TenantRow
from decider.contracts.config import Config

# Changes that the audit log's sentence names. Chosen: as many as a line of the log shows.
_NAMED = 3
# Changes that an audit entry holds. Chosen: a person reads fewer, and the kept file has all.
_TOLD = 200
# The structs of the form by the first word of a part's name.
_FORMS: Mapping[str, type[Struct]] = {
    "gateways": form.Gateway,
    "services": form.Service,
    "tiers": form.Plan,
    "tenants": form.Tenant,
    "unknown_apps": form.UnknownApps,
    "lists": form.Entry,
    "sampling": form.Sampling,
    "retention": form.Retention,
}


_OVERTAKEN = "Someone else changed the config at the same moment. Plan again."


class Overtaken(Refused):
    """Parts that the file owns were changed in the console since the last apply."""

    def __init__(self, conflicts: tuple[Conflict, ...]) -> None:
        self.conflicts = conflicts
        told = ". ".join(conflict.says() for conflict in conflicts)
        super().__init__(
            f"{told}. Take the file's values or the console's: --take file or --take console."
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a file did."""

    plan: Plan
    version: ConfigVersion | None
    """The new config version; None when deciders had nothing new to be told."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What applying a file would do now."""

    plan: Plan
    before: Config
    """The document in force."""
    after: Config
    """The document as it would be, with the same version."""


def plan(text: str, take: Take | None = None) -> Planned:
    """Return what applying a file's text would do now. Raise DeclarationError, Refused."""
    named, before = parted.parts_of(reading.read(text)), changes.current()
    last = last_owned()
    made = planning.make_plan(named, _present(before, {*named, *last}), last, take)
    return Planned(made, before, _edited(before, named, made))


def apply(text: str, *, by: Actor, reason: str, take: Take | None = None) -> Applied:
    """Make what a file says, and keep the file. Raise DeclarationError for a wrong file, Overtaken
    for one that the console's changes stand against, Refused when the change is not possible.
    """
    named = parted.parts_of(reading.read(text))
    reason = chain.check_reason(reason)
    last, planned = last_owned(), plan(text, take)
    made = planned.plan
    if made.conflicts and take is None:
        raise Overtaken(made.conflicts)
    wanted = Wanted(by, reason, "declaration.apply", "sluice.yaml", _summary(made))
    if planned.after == planned.before:
        # a file that changes nothing for deciders makes no config version
        with chain.changing():
            locks.hold(Lock.CONFIG)
            # planned again under the lock, as `edit` does below
            if plan(text, take) != planned:
                raise Refused(_OVERTAKEN)
            clearance = _store(made, wanted)
            _keep(text, made, by, reason, None)
            chain.append(
                by=by,
                reason=reason,
                action=wanted.action,
                subject=wanted.subject,
                summary=wanted.summary + clearance.mark,
                after=_told(text, made) | beside.noted(clearance),
            )
        return Applied(made, None)

    def edit(old: Config) -> Config:
        # planned again under the lock: somebody else may have changed a part meanwhile
        again = planning.make_plan(named, _present(old, {*named, *last}), last, take)
        if again != made:
            raise Refused(_OVERTAKEN)
        return _edited(old, named, again)

    def within(version: ConfigVersion, _: Config) -> None:
        _store(made, wanted)
        _keep(text, made, by, reason, version)

    row = changes.make_version(
        by=by,
        reason=reason,
        action=wanted.action,
        subject=wanted.subject,
        summary=wanted.summary,
        edit=edit,
        after=_told(text, made),
        within=within,
    )
    return Applied(made, row)


def apply_request(row: Request) -> None:
    """Store gateways and retention as an approved request says (an effect of approvals). Raise
    Overtaken, NotApproved.
    """
    (found,) = differing.read_payload(row.payload)
    with chain.changing():
        locks.hold(Lock.CONFIG)
        if beside.value_of(found.path) != found.before:
            raise differing.Overtaken(found.part)
        taken = requests.take(row.pk, row.digest, gate.permissions_of)
        told = installation.told()
        told.gateways, told.keep_days = found.after["gateways"], found.after["keep_days"]
        told.save()
        chain.append(
            by=Actor.of(taken.requested_by),
            reason=taken.reason,
            action=taken.action,
            subject=taken.subject,
            summary=taken.summary,
            before=found.before,
            after={**found.after, "request": taken.pk, "second_person": taken.outcome},
        )


def export_text(tenants: bool = False) -> str:
    """Return the present state as a file. Tenants are those with a weight of their own and those
    that the last file named; all with `tenants`.
    """
    config = changes.current()
    ids = {part[1] for part in last_owned() if part[0] == "tenants"}
    ids |= {policy.tenant for policy in config.tenants}
    stored = _stored(None if tenants else ids)
    return export.write(parted.declaration_of(parted.parts_in_force(config, stored)))


def last_owned() -> Parts:
    """Return the parts that the last applied file owned, as they came into force."""
    row = AppliedFile.objects.first()
    if row is None:
        return {}
    return {tuple(part): msgspec.convert(value, _FORMS[part[0]]) for part, value in row.owned}


def _present(config: Config, parts: set[Part]) -> Parts:
    stored = _stored({part[1] for part in parts if part[0] == "tenants"})
    return parted.parts_in_force(config, stored)


def _stored(tenants: set[str] | None) -> Stored:
    """Return what is stored apart from the document, with the names of these tenants, or of all."""
    rows = TenantRow.objects.order_by("pk")
    if tenants is not None:
        rows = rows.filter(pk__in=tenants)
    told = installation.told()
    return Stored(
        tenants=dict(rows.values_list("id", "name")),
        gateways=told.gateways,
        keep_days=told.keep_days,
    )


def _edited(config: Config, named: Parts, made: Plan) -> Config:
    wanted = {part: value for part, value in made.effective.items() if part in named}
    return parted.with_parts(config, wanted, made.gone)


def _store(made: Plan, wanted: Wanted) -> Clearance:
    """Store what no config document holds, and return how it may stand. Raise NeedsSecondPerson,
    NotApproved for gateways and retention that nobody approved.
    """
    told = installation.told()
    gateways, clearance = dict(told.gateways), beside.NOTHING
    for change in made.changes:
        part, value = change.part, change.after
        if isinstance(value, Tenant):
            TenantRow.objects.update_or_create(pk=part[1], defaults={"name": value.name})
        elif isinstance(value, Retention):
            told.keep_days = value.days
        elif isinstance(value, form.Gateway):
            gateways[part[1]] = value.kind
        elif part[0] == "gateways":
            del gateways[part[1]]
    if asked := beside.installation_to(gateways, told.keep_days):
        clearance = beside.pass_through(asked, wanted, timezone.now())
        told.gateways = gateways
        told.save()
    return clearance


def _keep(text: str, made: Plan, by: Actor, reason: str, version: ConfigVersion | None) -> None:
    """Keep the file as it was applied."""
    AppliedFile.objects.create(
        text=text,
        digest=digest_of(text),
        owned=planning.encode_parts(made.effective),
        at=timezone.now(),
        by=by.name,
        reason=reason,
        config_version=version,
    )


def digest_of(text: str) -> str:
    """Return the digest of a file, SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _summary(made: Plan) -> str:
    verbs = {"add": "added", "change": "changed", "remove": "removed"}
    named = [f"{verbs[change.verb]} {change.name}" for change in made.changes[:_NAMED]]
    more = len(made.changes) - len(named)
    told = ", ".join(named) + (f" and {more} more" if more else "")
    return f"applied sluice.yaml: {told or 'nothing changed'}"[:500]


def _told(text: str, made: Plan) -> dict[str, object]:
    """Return what the audit entry holds of a file: its digest, and what it changed, in lines."""
    return {
        "file": digest_of(text),
        "changes": {
            f"{change.verb} {change.name}": change.lines() for change in made.changes[:_TOLD]
        },
        "more": max(0, len(made.changes) - _TOLD),
    }
