"""The gate for changes that are not in the config document: imports of apps, and what a file
declares that the document does not hold.

Like every change that the table does not name, they need a second person. Nobody keeps an import's
file, so an import is approved first and made when the same file is imported again.
"""

from __future__ import annotations

from datetime import datetime

from control import installation
from control.approvals import mode, requests
from control.approvals.lifecycle import State
from control.approvals.models import Request
from control.config import gate, part_words
from control.config.gate import Clearance, NeedsSecondPerson, Wanted
from control.config.parts import Difference, Value
from control.config.second_person import Verdict

# First steps of the parts that are beside the document.
APPS, INSTALLATION = "apps", "installation"
SECTIONS = frozenset({APPS, INSTALLATION})


# How what changes nothing beside the document stands, such as a dry run.
NOTHING = Clearance()


def import_of(file: str, apps: int, make_tenants: bool) -> Difference:
    """Return an import of apps as a change. `file`: the digest of what is imported."""
    return Difference(
        (APPS, "import"), None, {"file": file, "apps": apps, "make_tenants": make_tenants}
    )


def installation_to(gateways: dict[str, str], keep_days: int | None) -> Difference | None:
    """Return the change of what is stored beside the document; None when nothing changes."""
    after = {"gateways": gateways, "keep_days": keep_days}
    before = value_of((INSTALLATION,))
    return None if before == after else Difference((INSTALLATION,), before, after)


def value_of(path: tuple[str, ...]) -> Value:
    """Return what a part is now; None for an import, before which there was none."""
    if path[0] == APPS:
        return None
    told = installation.told()
    return {"gateways": told.gateways, "keep_days": told.keep_days}


def pass_through(found: Difference, wanted: Wanted, now: datetime) -> Clearance:
    """Return how a change may stand. Call it in its transaction. Raise NeedsSecondPerson for one
    that nobody was asked about yet, and NotApproved for one that is not approved.
    """
    verdict = Verdict((found,), (part_words.clause(found),))
    if not mode.is_on():
        return Clearance(True, verdict.digest, alone=True)
    row = Request.objects.filter(digest=verdict.digest, state=State.OPEN).first()
    if row is None:
        raise NeedsSecondPerson(verdict, wanted, now.timestamp())
    taken = requests.take(row.pk, verdict.digest, gate.permissions_of)
    return Clearance(True, verdict.digest, request=taken)


def noted(clearance: Clearance) -> dict[str, object]:
    """Return what the entry of such a change says of the second person."""
    if clearance.request is not None:
        return {"request": clearance.request.pk, "second_person": clearance.request.outcome}
    return {"second_person": "not asked: single-person mode"} if clearance.alone else {}
