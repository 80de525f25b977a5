"""Refused attempts in the audit log: who tried what their role may not do.

A person's entries are few: nobody may fill the log, and the first ones say it all.
"""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from control.audit import chain
from control.audit.actors import Actor
from control.models import AuditEntry

ACTION = "access.denied"
# Entries of one person within this time. Chosen: enough to see what somebody is after, and a
# script that tries everything adds one entry a minute.
MOST, WITHIN = 10, timedelta(minutes=10)


def record(*, by: Actor, tried: str, why: str) -> bool:
    """Append that someone was refused, unless the log has MOST such entries of them within the last
    ten minutes. Return whether it did.

    `tried`: method and route, without the names in the address. `why`: the sentence they were told.
    Raise Refused as `chain.append` does.
    """
    since = timezone.now() - WITHIN
    mine = AuditEntry.objects.filter(action=ACTION, actor_login=by.login, at__gt=since)
    written = mine.count()
    if written >= MOST:
        return False
    last = written == MOST - 1
    more = f"; for {WITHIN.seconds // 60} minutes no more are written down" if last else ""
    chain.append(
        by=by,
        reason=why[: chain.REASON_MAX],
        action=ACTION,
        subject=tried[:200],
        summary=f"was refused {tried}"[:400] + more,
    )
    return True
