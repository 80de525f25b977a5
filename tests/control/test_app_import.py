"""Apps are imported all or none, by id, and deciders hear of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import redis
from django.core.management import CommandError, call_command
from django.utils import timezone

from control.audit import chain, tokens
from control.deciders import publish
from control.directory import app_import, app_rows
from control.directory.app_rows import BadRows
from control.models import App, AppImport, AuditEntry, ConfigVersion, Tenant
from control.tasks import publish_import
from decider.contracts.sealed import profiles
from decider.contracts.store import PROFILE_PREFIX
from decider.contracts.vocabulary import Tier
from tests.audited import audited
from tests.control.conftest import DELE
from tests.control.test_applying import person

pytestmark = pytest.mark.django_db

HEADER = b"id,tenant,tier,name,verified\n"


@pytest.fixture
def acme(db) -> Tenant:
    with audited():
        return Tenant.objects.create(id="acme", name="Acme Ltd")


def imported(text: bytes, **more: object) -> app_import.Imported:
    rows = app_rows.read(text.splitlines(keepends=True), "csv")
    return app_import.import_apps(rows, by=DELE, reason="INC-1", digest="ab" * 32, **more)


def test_apps_are_added_changed_and_left_as_they_are(acme: Tenant) -> None:
    done = imported(HEADER + b"a1,acme,free,One,true\na2,acme,premium,,\n")
    assert (done.added, done.changed, done.same) == (2, 0, 0)
    one, two = App.objects.order_by("pk")
    assert (one.name, one.tier, one.verified, two.name) == ("One", Tier.FREE, True, "a2")
    before = two.created_at
    # empty values say nothing: the rest stays
    done = imported(HEADER + b"a1,acme,free,One,true\na2,,enterprise,,\na3,acme,free,Three,false\n")
    assert (done.added, done.changed, done.same) == (1, 1, 1)
    two = App.objects.get(pk="a2")
    assert (two.tier, two.tenant_id, two.created_at) == (Tier.ENTERPRISE, "acme", before)
    assert [row.imported_id for row in App.objects.order_by("pk")] == [
        done.number - 1,
        done.number,
        done.number,
    ]
    entry = AuditEntry.objects.first()
    assert entry.summary == "imported apps: 1 added, 1 changed, 1 as before (one person)"
    assert entry.after["file"] == "ab" * 32
    assert chain.verify().broken is None


def test_one_wrong_row_leaves_everything_as_it_was(acme: Tenant) -> None:
    text = HEADER + b"a1,acme,free,One,true\na2,,free,,\na3,nobody,free,,\na4,acme,,,\na5,,,,\n"
    with pytest.raises(BadRows) as raised:
        imported(text)
    assert [str(fault) for fault in raised.value.faults] == [
        "line 3: a2 is a new app: name its tenant",
        "line 4: there is no tenant nobody: add it first, or have tenants added",
        "line 5: a4 is a new app: name its tier",
        "line 6: a5 is a new app: name its tenant and tier",
    ]
    assert not App.objects.exists() and not AppImport.objects.exists()
    assert not AuditEntry.objects.filter(action="app.import").exists()


def test_tenants_are_added_when_that_was_asked_for(db) -> None:
    done = imported(HEADER + b"a1,t1,free,,\na2,t2,free,,\na3,t1,free,,\n", make_tenants=True)
    assert (done.added, done.tenants) == (3, 2)
    assert dict(Tenant.objects.values_list("id", "name")) == {"t1": "t1", "t2": "t2"}


def test_deciders_are_told_of_what_changed_alone(
    first: ConfigVersion, acme: Tenant, valkey: redis.Redis, keys: Path
) -> None:
    publish.rebuild()
    done = imported(HEADER + b"a1,acme,free,One,true\na2,acme,premium,,\n")
    assert app_import.publish_import(done.number) == 2
    key = publish._profile_key()
    seen = profiles.unseal(valkey.get(PROFILE_PREFIX + "a2"), key)
    assert (seen.tenant, seen.tier) == ("acme", Tier.PREMIUM)
    done = imported(HEADER + b"a1,acme,free,One,true\na2,acme,free,,\n")
    assert app_import.publish_import(done.number) == 1
    assert AppImport.objects.filter(published_at=None).count() == 0
    done = imported(HEADER + b"a1,acme,premium,One,true\n")
    assert publish_import(done.number) == 1


def test_an_import_that_was_killed_before_it_told_deciders_is_told_later(
    first: ConfigVersion, acme: Tenant, valkey: redis.Redis
) -> None:
    publish.rebuild()
    imported(HEADER + b"a1,acme,free,One,true\n")
    now = timezone.now()
    # the import's own program is still at it
    assert app_import.pending(now) == ""
    assert app_import.pending(now + timedelta(minutes=11)) == "told deciders of 1 imported apps"
    assert valkey.exists(PROFILE_PREFIX + "a1")
    assert app_import.pending(now + timedelta(minutes=12)) == ""


def test_the_command_imports_as_the_owner_of_the_token(
    first: ConfigVersion, acme: Tenant, tmp_path: Path, monkeypatch, capsys
) -> None:
    publish.rebuild()
    path = tmp_path / "apps.csv"
    path.write_bytes(HEADER + b"a1,acme,free,One,true\n")
    _, token = tokens.create(by=person("support"), days=1, reason="x")
    monkeypatch.setenv("SLUICE_TOKEN", token)
    with pytest.raises(CommandError, match="Policy admin can do this"):
        call_command("apps", "import", str(path), reason="x")
    _, token = tokens.create(by=person("policy_admin"), days=1, reason="x")
    monkeypatch.setenv("SLUICE_TOKEN", token)
    call_command("apps", "import", str(path), reason="CRM export")
    said = capsys.readouterr().out
    assert said == "1 apps added, 0 changed, 0 as before.\nDeciders were told.\n"
    assert AuditEntry.objects.filter(action="app.import").latest("seq").actor == "policy_admin"
    path.write_bytes(HEADER + b"a1,acme,gold,One,true\n")
    with pytest.raises(CommandError, match=r"nothing was imported\.\nline 2: tier: write free"):
        call_command("apps", "import", str(path), reason="x")
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("apps", "import", str(tmp_path / "none.csv"), reason="x")


def test_a_dry_run_counts_and_keeps_nothing(acme: Tenant) -> None:
    text = HEADER + b"a1,acme,free,One,true\na2,other,free,,\n"
    done = imported(text, make_tenants=True, dry_run=True)
    assert (done.added, done.tenants) == (2, 1)
    assert not App.objects.exists() and Tenant.objects.count() == 1
    assert not AuditEntry.objects.filter(action="app.import").exists()
    with pytest.raises(BadRows, match="there is no tenant other"):
        imported(text, dry_run=True)


def test_json_lines_are_told_by_the_files_name(
    first: ConfigVersion, acme: Tenant, tmp_path: Path, monkeypatch, capsys
) -> None:
    publish.rebuild()
    path = tmp_path / "apps.jsonl"
    path.write_bytes(msgspec.json.encode({"id": "a1", "tenant": "acme", "tier": "free"}))
    _, token = tokens.create(by=person("policy_admin"), days=1, reason="x")
    monkeypatch.setenv("SLUICE_TOKEN", token)
    call_command("apps", "import", str(path), reason="x")
    assert App.objects.get().id == "a1"
