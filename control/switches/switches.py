"""Kill switches: which exist, which are engaged, and engaging, extending and clearing them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import msgspec
from django.db.models import Q
from django.utils import timezone

from control.approvals import mode
from control.approvals.models import Request
from control.audit.actors import Actor
from control.config import changes, gate, parts
from control.config.parts import pointer
from control.errors import NotAllowed, Refused
from control.models import ConfigVersion, SwitchFlip
from control.permissions import holds
from decider.contracts.config import ALL_ML, Config, Switch, SwitchName, in_force

Verb = Literal["engage", "extend", "clear"]
PERMISSION = "control.engage_switch"
# The longest time after which a switch may end by itself. Chosen: one that is needed for longer is
# a policy, and stays engaged until someone clears it.
LONGEST = timedelta(days=90)


@dataclass(frozen=True)
class SwitchKind:
    """A kill switch and its texts."""

    name: SwitchName
    label: str
    effect: str
    """What happens while it is engaged: a sentence in the present tense, without its full stop, for
    the table.
    """
    consequence: str
    """The same about the future, a whole sentence, for the sheet that asks for confirmation."""
    cleared: str
    """What happens once it is cleared, a whole sentence."""
    group: str
    """How wide it reaches; groups are shown in the catalogue's order, widest first."""

    @property
    def confirm(self) -> str:
        """What a person types to confirm a flip."""
        return self.label.lower()


CATALOGUE: dict[str, SwitchKind] = {
    kind.name: kind
    for kind in (
        SwitchKind(
            name=ALL_ML,
            label="All ML",
            effect="The fallback limiter decides everything",
            consequence="The fallback limiter will decide, in all regions, for all tiers.",
            cleared=(
                "The model will rank again what triage passes on, in all regions, for all tiers."
            ),
            group="Everything",
        ),
    )
}


def kind(name: str) -> SwitchKind:
    """Return the switch of that name. Raise Refused when there is none."""
    if (found := CATALOGUE.get(name)) is None:
        raise Refused(f"There is no switch “{name}”. Choose from: {', '.join(CATALOGUE)}.")
    return found


def may_flip(user: object) -> bool:
    """Return whether this person may flip switches. The button asks this, the endpoint asks
    `check_may_flip`.
    """
    return holds(user, PERMISSION)


def check_may_flip(user: object) -> None:
    """Raise NotAllowed for a person who may not flip switches."""
    if not may_flip(user):
        raise NotAllowed(f"{user} may not flip switches.")


def engaged(now: datetime | None = None) -> dict[str, SwitchFlip]:
    """Return the flips in force, by switch name."""
    now = now or timezone.now()
    # a flip whose end has passed stays open until `settle`, but is not in force
    rows = SwitchFlip.objects.filter(Q(until=None) | Q(until__gt=now), ended_at=None)
    return {row.name: row for row in rows}


def ended(since: datetime, now: datetime | None = None) -> list[SwitchFlip]:
    """Return flips that ended at or after `since`, by hand or by themselves, latest end first."""
    now = now or timezone.now()
    rows = SwitchFlip.objects.filter(
        Q(ended_at__gte=since) | Q(ended_at=None, until__gte=since, until__lte=now)
    )
    return sorted(rows, key=lambda row: row.end(now) or now, reverse=True)


def last_flips() -> dict[str, SwitchFlip]:
    """Return the latest flip of each switch that was ever engaged."""
    return {
        row.name: row for row in SwitchFlip.objects.order_by("name", "-engaged_at").distinct("name")
    }


def engage(name: str, *, by: Actor, reason: str, until: datetime | None) -> ConfigVersion:
    """Engage a switch until a time, or until someone clears it (None). Return the new config
    version, which is published right after the commit.

    Raise Refused when the switch is engaged already, the end is past or too far ahead, or the
    reason is empty.
    """
    return _flip("engage", name, by=by, reason=reason, until=until)


def extend(name: str, *, by: Actor, reason: str, until: datetime | None) -> ConfigVersion:
    """Give an engaged switch another end and return the new config version. Raise Refused when the
    switch is clear, the end is past or too far ahead, or the reason is empty.
    """
    return _flip("extend", name, by=by, reason=reason, until=until)


def clear(name: str, *, by: Actor, reason: str) -> ConfigVersion:
    """Clear an engaged switch and return the new config version. Raise Refused when the switch is
    clear already or the reason is empty.
    """
    return _flip("clear", name, by=by, reason=reason, until=None)


def edited(config: Config, verb: Verb, name: str, until: float | None) -> Config:
    """Return the document after a flip; `until` in unix seconds. Raise Refused when the switch is
    not in the state that the verb needs.
    """
    label, now = kind(name).label, timezone.now().timestamp()
    is_engaged = any(s.name == name for s in in_force(config.switches, now))
    # refused, not accepted: engaging twice would silently replace the first one's end
    if verb == "engage" and is_engaged:
        raise Refused(f"“{label}” is engaged already. It can be extended or cleared.")
    if verb != "engage" and not is_engaged:
        raise Refused(f"“{label}” is clear already.")
    # an expired entry of this switch goes, too: a document holds each switch at most once
    others = [s for s in config.switches if s.name != name]
    mine = [] if verb == "clear" else [Switch(name=_name(name), until=until)]
    return msgspec.structs.replace(config, switches=others + mine)


def check_until(until: datetime | None) -> None:
    """Raise Refused unless the end is ahead and within LONGEST."""
    if until is None:
        return
    now = timezone.now()
    if until <= now:
        raise Refused(f"The end, {until:%d %b %H:%M} UTC, is past. Pick a later one.")
    if until > now + LONGEST:
        raise Refused(
            f"The end is more than {LONGEST.days} days ahead. Pick an earlier one, or “until I turn"
            " it off”."
        )


def summary(verb: Verb, name: str, until: datetime | None) -> str:
    """Return what a flip did, in words for the audit log."""
    label = kind(name).label
    if verb == "clear":
        return f"cleared the switch “{label}”"
    end = "until someone clears it" if until is None else f"until {until:%d %b %H:%M} UTC"
    return (
        f"engaged the switch “{label}” {end}"
        if verb == "engage"
        else f"extended the switch “{label}” {end}"
    )


def flip(verb: Verb, name: str, *, by: Actor, reason: str, until: datetime | None) -> ConfigVersion:
    """Engage, extend or clear a switch and return the new config version; `until` is not used to
    clear. Raise Refused as these do, and NeedsSecondPerson.
    """
    return _flip(verb, name, by=by, reason=reason, until=None if verb == "clear" else until)


def waits_for_someone(name: str, by: Actor) -> bool:
    """Return whether this person can only ask to clear a switch."""
    part = pointer(("switches", name))
    return mode.is_on() and part not in gate.own_switches(by, timezone.now())


def flip_again(
    verb: Verb, name: str, *, by: Actor, reason: str, until: datetime | None
) -> ConfigVersion:
    """Make a flip that was made without PostgreSQL again, as a newer version. Where it needed a
    second person, a review waits for one. Raise Refused as the flip does.
    """
    return _flip(verb, name, by=by, reason=reason, until=until, offline=True)


def apply_request(row: Request) -> ConfigVersion:
    """Make the flip that an approved request asks for. Raise Refused when it is not approved, or
    not possible any more.
    """
    (found,) = parts.read_payload(row.payload)
    seconds = found.after.get("until") if found.after else None
    return _flip(
        "clear" if found.after is None else "extend",
        found.path[1],
        by=Actor.of(row.requested_by),
        reason=row.reason,
        until=None if seconds is None else datetime.fromtimestamp(seconds, UTC),
        request=row,
    )


def _flip(
    verb: Verb,
    name: str,
    *,
    by: Actor,
    reason: str,
    until: datetime | None,
    request: Request | None = None,
    offline: bool = False,
) -> ConfigVersion:
    # check before the lock is taken, so that a mistake in the form holds nobody up
    kind(name)
    check_until(until)
    seconds = until.timestamp() if until else None
    return changes.make_version(
        by=by,
        reason=reason,
        action=f"switch.{verb}",
        subject=name,
        summary=summary(verb, name, until),
        edit=lambda config: edited(config, verb, name, seconds),
        before={"state": "clear" if verb == "engage" else "engaged"},
        after=(
            {"state": "clear"}
            if verb == "clear"
            else {"state": "engaged", "until": until.isoformat() if until else None}
        ),
        within=lambda row, _: record(verb, name, by=by, reason=reason, until=until, version=row),
        request=request,
        offline=offline,
    )


def record(
    verb: Verb, name: str, *, by: Actor, reason: str, until: datetime | None, version: ConfigVersion
) -> None:
    """Write a flip, made as `version`, into the switch history. Call it in the transaction of the
    change.
    """
    now, reason = version.made_at, reason.strip()
    # first: the constraint allows one open flip for each switch, also when its end has passed
    settle(now)
    mine = SwitchFlip.objects.filter(name=name, ended_at=None)
    if verb == "clear":
        mine.update(ended_at=now, ended_by=by.name, ended_reason=reason, ended_version=version)
    elif verb == "extend":
        mine.update(until=until)
    else:
        SwitchFlip.objects.create(
            name=name,
            reason=reason,
            by=by.name,
            engaged_at=now,
            until=until,
            engaged_version=version,
        )


def settle(now: datetime) -> None:
    """Record the end of flips that ended by themselves at or before `now`, so that their switches
    can be engaged again.
    """
    # `ended_by` stays empty: nobody ended it
    for row in SwitchFlip.objects.filter(ended_at=None, until__lte=now):
        SwitchFlip.objects.filter(pk=row.pk).update(ended_at=row.until)


def _name(name: str) -> SwitchName:
    known: tuple[SwitchName, ...] = get_args(SwitchName)
    for one in known:
        if one == name:
            return one
    raise Refused(f"Deciders know no switch “{name}”. Choose from: {', '.join(known)}.")
