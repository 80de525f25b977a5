"""A file is applied as one change with its entry; the file owns what it names from then on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from msgspec import structs

from console.frame import roles
from console.pages.approvals.deciding import EFFECTS
from control import installation, locks
from control.approvals.models import Request
from control.audit import chain, tokens
from control.config import changes, requested
from control.declared import applying
from control.declared.yaml_text import DeclarationError
from control.errors import Refused
from control.models import AppliedFile, AuditEntry, ConfigVersion, Tenant
from decider.contracts.config import Switch
from tests.audited import audited
from tests.control.approvals.conftest import approve, make_person, turn_on
from tests.control.conftest import DELE
from tests.database import as_owner

pytestmark = pytest.mark.django_db

FILE = """\
sluice: 1
gateways:
  edge: {kind: nginx}
services:
  shop:
    routes: [/shop]
    capacity: 250
    latency_ms: 20
tiers:
  free: {rate: 2, burst: 20, quota_per_day: 9000}
tenants:
  acme: {name: Acme Ltd, weight: 3}
lists:
  block:
    - source: 192.0.2.0/24
retention: {days: 12}
"""


def applied(text: str = FILE, **more: object) -> applying.Applied:
    return applying.apply(text, by=DELE, reason="INC-1", **more)


def service(name: str):
    return next((s for s in changes.current().services if s.name == name), None)


def in_console(name: str, **fields: object) -> None:
    """Change a service as a page would."""

    def edit(old):
        services = [structs.replace(s, **fields) if s.name == name else s for s in old.services]
        return structs.replace(old, services=services)

    changes.make_version(
        by=DELE, reason="by hand", action="service.change", subject=name, summary="x", edit=edit
    )


def test_a_file_is_applied_as_one_change(first: ConfigVersion) -> None:
    done = applied()
    config = changes.current()
    assert (service("shop").capacity, service("shop").prefixes) == (250, ["/shop"])
    assert service("orders-read") is not None  # the file does not name it
    assert (config.tiers[0].rate, config.tiers[1].rate) == (2, 15)
    assert [(p.tenant, p.weight) for p in config.tenants] == [("acme", 3)]
    assert [(e.verdict, e.subject, e.network) for e in config.lists] == [
        ("block", "192.0.2.0/24", True)
    ]
    assert Tenant.objects.get(pk="acme").name == "Acme Ltd"
    assert (installation.told().gateways, installation.keep_days()) == ({"edge": "nginx"}, 12)
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.actor, entry.config_version) == (
        "declaration.apply",
        "Dele Okafor",
        done.version,
    )
    assert entry.summary.startswith("applied sluice.yaml: added gateway edge, added service shop")
    assert entry.after["changes"]["change tier free"] == [
        "rate: 5, becomes 2",
        "burst: 50, becomes 20",
        "quota_per_day: 50000, becomes 9000",
    ]
    assert chain.verify().broken is None


def test_applying_it_again_changes_nothing_and_makes_no_version(first: ConfigVersion) -> None:
    applied()
    version = changes.current().version
    again = applied()
    assert (again.plan.changes, again.version) == ((), None)
    assert changes.current().version == version


def test_what_the_next_file_leaves_out_goes_and_only_that(first: ConfigVersion) -> None:
    applied()
    rest = FILE.partition("services:")[0] + "tiers:" + FILE.partition("tiers:")[2]
    done = applied(rest.replace("lists:\n  block:\n    - source: 192.0.2.0/24\n", ""))
    assert [(c.verb, c.name) for c in done.plan.changes] == [
        ("remove", "service shop"),
        ("remove", "block list: source 192.0.2.0/24"),
    ]
    assert service("shop") is None and service("orders-read") is not None
    assert changes.current().lists == []


def test_what_the_console_changed_stops_the_file_until_somebody_says_whose_value_holds(
    first: ConfigVersion,
) -> None:
    applied()
    in_console("shop", capacity=99.0)
    in_console("search", capacity=77.0)  # not the file's
    wanted = FILE.replace("capacity: 250", "capacity: 300")
    with pytest.raises(applying.Overtaken, match=r"service shop was changed .*capacity: 250, now"):
        applied(wanted)
    assert service("shop").capacity == 99.0
    applied(wanted, take="console")
    assert service("shop").capacity == 99.0
    # the console's value is the file's business again only when it changes once more
    assert applying.plan(wanted).plan.conflicts == ()
    applied(wanted, take="file")
    assert (service("shop").capacity, service("search").capacity) == (300.0, 77.0)


@pytest.mark.parametrize("text", [FILE, "sluice: 1\nretention: {days: 12}\n"])
def test_what_somebody_changes_at_the_same_moment_is_not_overwritten(
    first: ConfigVersion, monkeypatch, text: str
) -> None:
    """The other change commits just before this one has the lock."""
    held = locks.hold

    def late(lock: locks.Lock) -> None:
        held(lock)
        row = installation.told()
        row.keep_days = 99
        row.save()

    monkeypatch.setattr(locks, "hold", late)
    with pytest.raises(Refused, match="at the same moment"):
        applied(text)
    assert not AppliedFile.objects.exists()


def test_an_export_of_what_was_applied_changes_nothing(first: ConfigVersion) -> None:
    applied()
    text = applying.export_text()
    assert text == applying.export_text()
    assert applying.plan(text).plan.changes == ()
    assert "acme" in text and "192.0.2.0/24" in text and "days: 12" in text


def test_switches_are_never_in_a_file_and_stay(first: ConfigVersion) -> None:
    changes.make_version(
        by=DELE,
        reason="x",
        action="switch.engage",
        subject="observe_only",
        summary="x",
        edit=lambda old: structs.replace(old, switches=[Switch("observe_only")]),
    )
    assert "observe_only" not in applying.export_text()
    applied()
    assert [s.name for s in changes.current().switches] == ["observe_only"]


def test_a_file_that_is_wrong_or_impossible_changes_nothing(first: ConfigVersion) -> None:
    with pytest.raises(DeclarationError, match="line 6, column 14"):
        applied(FILE.replace("[/shop]", "[shop]"))
    # one that only the whole document shows: the prefix is another service's
    with pytest.raises(Refused, match="is also one of orders-read"):
        applied(FILE.replace("[/shop]", "[/v2/orders]"))
    assert changes.latest() == first
    assert not AppliedFile.objects.exists() and not Tenant.objects.filter(pk="acme").exists()


@pytest.mark.django_db(transaction=True)
def test_the_database_keeps_a_file_as_it_was_applied(first: ConfigVersion) -> None:
    applied()
    for statement in (
        "UPDATE control_appliedfile SET text = ''",
        "DELETE FROM control_appliedfile",
        "DELETE FROM control_installation",
    ):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            audited(),
            as_owner(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
    with pytest.raises(DatabaseError, match="has no entry"), transaction.atomic():
        installation.told().save()
        row = installation.told()
        row.keep_days = 1
        row.save()


def person(role: str) -> User:
    roles.ensure()
    user = User.objects.create_user(f"{role}@example.com", password="x", first_name=role)
    user.groups.add(Group.objects.get(name=role))
    return user


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "sluice.yaml"
    found.write_text(FILE)
    return found


def test_the_commands_plan_apply_and_export(
    first: ConfigVersion, path: Path, capsys, monkeypatch
) -> None:
    call_command("plan", str(path))
    said = capsys.readouterr().out
    assert "+ add service shop\n    routes: /shop\n    capacity: 250\n" in said
    assert "5 to add, 1 to change, 0 to remove.\n" in said
    assert "No decision was stored in the last hour" in said
    with pytest.raises(SystemExit, match="3"):
        call_command("plan", str(path), check=True)
    _, token = tokens.create(by=person("policy_admin"), days=1, reason="a test")
    monkeypatch.setenv("SLUICE_TOKEN", token)
    capsys.readouterr()
    call_command("apply", str(path), reason="CHG-7")
    assert "Applied as config 2." in capsys.readouterr().out
    assert AuditEntry.objects.first().actor == "policy_admin"
    call_command("plan", str(path), check=True)
    assert capsys.readouterr().out == "Nothing to change.\n"
    call_command("export")
    assert applying.plan(capsys.readouterr().out).plan.changes == ()


def test_a_plan_shows_its_effect_on_a_log(
    first: ConfigVersion, path: Path, tmp_path: Path, capsys
) -> None:
    line = (
        '192.0.2.{} - - [29/Jan/2025:10:00:{:02} +0000] "GET /v2/orders/1 HTTP/1.1" 200 9 "-" "x"'
    )
    log = tmp_path / "access.log"
    log.write_text("".join(f"{line.format(n % 2 * 7 + 1, n // 4)}\n" for n in range(240)))
    path.write_text("sluice: 1\ntiers:\n  free: {rate: 0.01, burst: 1, quota_per_day: 9000}\n")
    call_command("plan", str(path), log=log)
    said = capsys.readouterr().out
    assert "Of 240 requests of the log" in said
    assert re.search(r"admit: 240, would be \d{1,2} \(-\d{3}\)", said)
    assert re.search(r"anon_\S+: 0 refused, would be \d{2,3}", said)
    # nothing was changed by looking
    assert changes.latest() == first


def test_a_log_that_cannot_be_read_is_a_sentence(first: ConfigVersion, path: Path) -> None:
    with pytest.raises(CommandError, match=r"nowhere\.log"):
        call_command("plan", str(path), log=Path("nowhere.log"))


def test_a_wrong_file_is_told_in_lines_that_editors_open(path: Path) -> None:
    path.write_text(FILE.replace("capacity: 250", "capacity: 2e2"))
    with pytest.raises(CommandError, match=r"sluice\.yaml:7:15: `2e2` is a number"):
        call_command("plan", str(path))


def test_apply_asks_for_a_token_whose_owner_may(
    first: ConfigVersion, path: Path, monkeypatch
) -> None:
    monkeypatch.delenv("SLUICE_TOKEN", raising=False)
    for token, says in (
        ("", "Set SLUICE_TOKEN to an API token"),
        ("x" * 70, "no API token that is valid now"),
        ("ä\udcff", "no API token that is valid now"),
        (tokens.create(by=person("support"), days=1, reason="x")[1], "Policy admin can do this"),
    ):
        monkeypatch.setenv("SLUICE_TOKEN", token)
        with pytest.raises(CommandError, match=says):
            call_command("apply", str(path), reason="x")
    assert changes.latest() == first


@pytest.mark.parametrize("content", [b"\xff\xfe", None, b"x" * 2_000_001])
def test_a_file_that_cannot_be_read_is_a_sentence(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=r"not text in UTF-8|cannot be read|more than 2,000,000"):
        call_command("plan", str(path))


def test_the_example_of_the_document_is_right_and_can_be_applied(first: ConfigVersion) -> None:
    text = (Path(__file__).parents[2] / "docs" / "declaration.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0].replace("/v2/orders", "/v3/orders")
    done = applied(example)
    assert [change.name for change in done.plan.changes][:2] == ["service orders", "service stock"]
    assert service("orders").endpoints[1].costs == {"stock": 1.0}


def test_with_four_eyes_a_file_is_asked_for_and_kept_once_it_is_in_force(
    first: ConfigVersion, path: Path, capsys, monkeypatch
) -> None:
    owner, noor, priya = (
        person("policy_admin"),
        make_person("noor", "sre"),
        make_person("priya", "policy_admin"),
    )
    turn_on(noor, priya)
    _, token = tokens.create(by=owner, days=1, reason="a test")
    monkeypatch.setenv("SLUICE_TOKEN", token)
    call_command("apply", str(path), reason="CHG-7")
    assert "Asked for it: request" in capsys.readouterr().out
    assert service("shop") is None
    asked = Request.objects.get(action="declaration.apply")
    for one in (noor, priya):
        approve(asked, one)
    assert requested.apply(asked, {})
    assert service("shop") is not None
    # gateways and retention are in no config document, and are asked for by themselves
    call_command("apply", str(path), reason="CHG-7")
    assert (
        "it changes gateways and retention (was gateways none, decisions kept as long as the"
        " settings say; becomes gateways edge (nginx), decisions kept for 12 days)"
    ) in capsys.readouterr().out
    beside = Request.objects.get(action="declaration.apply", state="open")
    approve(beside, priya)
    assert requested.apply(beside, EFFECTS)
    call_command("apply", str(path), reason="CHG-7")
    assert "Applied; deciders had nothing new to be told." in capsys.readouterr().out
    assert AppliedFile.objects.count() == 1
