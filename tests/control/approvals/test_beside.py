"""Four eyes holds imports of apps and what a file declares beside the config document, too."""

from __future__ import annotations

import pytest
from django.utils import timezone

from console.pages.approvals.deciding import EFFECTS
from control import installation
from control.approvals.lifecycle import State
from control.approvals.models import Request
from control.approvals.requests import NotApproved
from control.audit.actors import Actor
from control.config import part_words, requested
from control.config.gate import NeedsSecondPerson
from control.declared import applying
from control.directory import app_import, app_rows
from control.errors import Conflict
from control.models import App, AppliedFile, AuditEntry
from tests.control.approvals.conftest import approve, make_person, veto

pytestmark = pytest.mark.django_db
ROWS = b"id,tenant,tier\na1,acme,enterprise\n"
FILE = "sluice: 1\nretention: {days: 9}\ngateways:\n  edge: {kind: envoy}\n"


def imported(user, text: bytes = ROWS, digest: str = "ab" * 32) -> app_import.Imported:
    rows = app_rows.read(text.splitlines(keepends=True), "csv")
    by = Actor.of(user)
    return app_import.import_apps(rows, by=by, reason="CRM", digest=digest, make_tenants=True)


def asked_for(user, do) -> Request:
    with pytest.raises(NeedsSecondPerson) as held:
        do()
    return requested.ask(held.value, by=user, reason="CRM")


def test_an_import_is_asked_for_approved_and_then_made_with_the_same_file(four_eyes, priya) -> None:
    noor = make_person("nora", "policy_admin")
    asked = asked_for(priya, lambda: imported(priya))
    assert not App.objects.exists()
    (part,) = requested.parts_of(asked)
    assert part_words.clause(part) == (
        "it imports an app of the file abababababab, with the tenants that there are not"
    )
    with pytest.raises(NotApproved, match="0 of 1 approvals count"):
        imported(priya)
    approve(asked, noor)
    with pytest.raises(Conflict, match="when the same file is imported again"):
        requested.apply(asked, EFFECTS)
    # another file is another change
    with pytest.raises(NeedsSecondPerson):
        imported(priya, digest="cd" * 32)
    assert imported(priya).added == 1
    asked.refresh_from_db()
    assert asked.state == State.APPLIED
    entry = AuditEntry.objects.filter(action="app.import").latest("seq")
    assert entry.after["request"] == asked.pk and "Nora" in entry.after["second_person"]
    # what was approved once is made once
    with pytest.raises(NeedsSecondPerson):
        imported(priya, ROWS + b"a2,acme,free\n")


def test_a_vetoed_import_is_never_made(four_eyes, priya) -> None:
    asked = asked_for(priya, lambda: imported(priya))
    veto(asked, make_person("nora", "policy_admin"))
    with pytest.raises(NeedsSecondPerson):
        imported(priya)
    assert not App.objects.exists()


def test_a_dry_run_asks_nobody(four_eyes, priya) -> None:
    rows = app_rows.read(ROWS.splitlines(keepends=True), "csv")
    done = app_import.import_apps(
        rows, by=Actor.of(priya), reason="x", digest="0" * 64, make_tenants=True, dry_run=True
    )
    assert (done.added, App.objects.exists(), Request.objects.filter(state="open").exists()) == (
        1,
        False,
        False,
    )


def test_gateways_and_retention_of_a_file_wait_and_the_file_is_kept_after_them(
    four_eyes, priya
) -> None:
    def apply_file() -> applying.Applied:
        return applying.apply(FILE, by=Actor.of(priya), reason="CHG-9")

    asked = asked_for(priya, apply_file)
    assert (installation.told().keep_days, AppliedFile.objects.exists()) == (None, False)
    approve(asked, make_person("nora", "policy_admin"))
    assert requested.apply(asked, EFFECTS)
    told = installation.told()
    assert (told.keep_days, told.gateways) == (9, {"edge": "envoy"})
    assert AuditEntry.objects.first().after["request"] == asked.pk
    assert apply_file().plan.changes == ()
    assert AppliedFile.objects.get().text == FILE


def test_a_request_for_retention_is_overtaken_and_rebased(four_eyes, priya) -> None:
    asked = asked_for(priya, lambda: applying.apply(FILE, by=Actor.of(priya), reason="CHG-9"))
    row = installation.told()
    row.keep_days = 99
    row.save()
    assert requested.overtaken(asked, timezone.now()).now["keep_days"] == 99
    again = requested.rebase(asked, by=priya, reason="x")
    (found,) = requested.parts_of(again)
    assert (found.before["keep_days"], found.after["keep_days"]) == (99, 9)


def test_one_person_imports_alone_where_four_eyes_is_off_and_is_marked(priya) -> None:
    assert imported(priya).added == 1
    entry = AuditEntry.objects.filter(action="app.import").latest("seq")
    assert entry.summary.endswith("(one person)")
    assert entry.after["second_person"] == "not asked: single-person mode"
