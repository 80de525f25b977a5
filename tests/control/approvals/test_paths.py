"""Random changes by every path there is: nothing that needs a second person takes effect without
one, and nothing that needs none is held back.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from msgspec.structs import replace

from control.approvals.models import Request
from control.audit import chain
from control.audit.actors import SYSTEM, Actor
from control.config import changes, gate, lies, parts, requested
from control.config.gate import Clearance, NeedsSecondPerson, Wanted
from control.models import App, ConfigVersion, Tenant
from decider.contracts import config as document
from tests.control.approvals import edits
from tests.control.approvals.conftest import apply, approve, engage, make_person, turn_on

pytestmark = pytest.mark.django_db
AT = datetime.fromtimestamp(edits.NOW, UTC)
# Chosen: some seconds of tests; the pure half of this property runs more (`test_table`).
STEPS, FLIPS = 400, 75


@contextmanager
def clock(at: datetime):
    with mock.patch.object(timezone, "now", lambda: at):
        yield


@contextmanager
def undone():
    """Runs a step and takes it back."""
    step = transaction.atomic()
    # undone as a test is, so that a change takes it for the end of everything
    step._from_testcase = True
    with step:
        yield
        transaction.set_rollback(True)


def check_deferred() -> None:
    """Asks what the commit would."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS version_is_approved, version_is_audited IMMEDIATE")
        cursor.execute("SET CONSTRAINTS version_is_approved, version_is_audited DEFERRED")


@pytest.fixture
def there(people) -> User:
    """The document of `edits` in an installation with four eyes on; the one who changes it."""
    dele, priya = people("dele", "sre"), people("priya", "policy_admin")

    def make(edit) -> None:
        changes.make_version(
            by=SYSTEM, reason="x", action="x.x", subject="x", summary="x", edit=edit
        )

    with clock(AT - timedelta(hours=2)):
        changes.first(by=SYSTEM, reason="x")
        make(lambda config: replace(config, model=edits.OLD))
        Tenant.objects.create(id="ten_e", name="E")
        App.objects.create(id="app_e", name="E", tenant_id="ten_e", tier=3)
        # entries that have ended by now had not then
        make(lambda config: replace(edits.start(), version=config.version))
    # as their commits do, before four eyes is on
    check_deferred()
    turn_on(dele, priya)
    return dele


def by_verb(case: edits.Case, by: User) -> None:
    changes.make_version(
        by=Actor.of(by),
        reason="x",
        action="policy.change",
        subject="x",
        summary="x",
        edit=lambda config: replace(case.after, version=config.version),
    )


def try_verb(case: edits.Case, by: User) -> str:
    version = changes.latest().version
    try:
        by_verb(case, by)
    except NeedsSecondPerson:
        assert case.needs, case.places
        assert changes.latest().version == version
        return "held back"
    assert not case.needs, case.places
    assert changes.latest().loosens is False
    return "made"


def try_request(case: edits.Case, by: User) -> str:
    """Asks, has everyone approve, and applies by parts."""
    try:
        by_verb(case, by)
    except NeedsSecondPerson as held:
        row = requested.ask(held, by=by, reason="x")
    else:
        return "made"
    voters = [make_person(name, name) for name in ("sre", "policy_admin", "ml_owner")]
    for voter in voters:
        if any(voter.has_perm(one) for one in gate.permissions_of(row)):
            approve(row, voter)
    assert requested.apply(row, {})
    newest = changes.latest()
    assert (newest.loosens, newest.request) == (True, row)
    left = parts.differences(changes.current(), parts.decoded(case.after), edits.NOW)
    assert left == ()
    return "approved"


def try_offline(case: edits.Case, by: User) -> str:
    new = replace(case.after, version=changes.latest().version + 1)
    wanted = Wanted(Actor.of(by), "x", "switch.clear", "x", "x")
    clearance = gate.pass_through(changes.current(), new, wanted, now=AT, offline=True)
    assert (clearance.review is not None) == clearance.loosens == case.needs
    row = changes.store(new, by=wanted.by, reason="x", made_at=AT, clearance=clearance)
    changes.note(wanted, row, clearance)
    return "to review"


def store_past_the_gate(case: edits.Case, **more: object) -> None:
    """Stores a version as whoever holds the application's role can, with an entry that says who."""
    newest = changes.latest()
    new = replace(case.after, version=newest.version + 1)
    given = {"loosens": False, "change": "", "alone": False, "request_id": None} | more
    with chain.changing():
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO control_configversion (version, payload, signed, made_at, by, reason,"
                " loosens, change, alone, request_id)"
                " VALUES (%s, %s, %s, %s, 'x', 'x', %s, %s, %s, %s)",
                [new.version, document.encode(new), bytes(newest.signed), AT, *given.values()],
            )
        row = ConfigVersion.objects.get(version=new.version)
        changes.note(Wanted(SYSTEM, "x", "x.x", "x", "x"), row, Clearance())
    check_deferred()


def try_lie(case: edits.Case, by: User) -> str:
    """The database takes a version that says it needs nobody; the check of versions finds it."""
    store_past_the_gate(case)
    found = lies.find().lies
    # nothing stores which tier an app was of, so what only these two need is not judged later
    if not found and {"override 1", "list 1"} & set(case.places):
        return "no lie"
    assert bool(found) == case.needs, (case.places, found)
    return "lie found" if found else "no lie"


def try_sql(case: edits.Case, by: User) -> str:
    """A version that says it needs someone and has nobody is refused, whatever it claims."""
    asked = Request.objects.get(action="four_eyes.on")
    for more in (
        {"loosens": True},
        {"loosens": True, "alone": True},
        {"loosens": True, "request_id": asked.pk, "change": "0" * 64},
        {"loosens": None},
    ):
        with pytest.raises(DatabaseError), undone():
            store_past_the_gate(case, **more)
    # the approval of something else, with its own digest, passes the database and is found
    store_past_the_gate(case, loosens=True, request_id=asked.pk, change=asked.digest)
    assert any("is not the change that its digest says" in lie for lie in lies.find().lies)
    return "refused"


WAYS = (try_verb, try_verb, try_request, try_offline, try_lie, try_sql)


def test_random_edits_by_random_paths(there, monkeypatch) -> None:
    # some edits take an entry out by an end that is past, which a change may not bring in
    monkeypatch.setattr("control.config.faults.check", lambda *_: None)
    rng, seen = random.Random(7), Counter()
    with clock(AT):
        for _ in range(STEPS):
            case, way = edits.case(rng), rng.choice(WAYS)
            with undone():
                seen[way.__name__, way(case, there)] += 1
                check_deferred()
    assert {outcome for _, outcome in seen} == {
        *("held back", "made", "approved", "to review", "lie found", "no lie", "refused")
    }, seen


VERBS = ("engage", "extend", "clear")
MINUTES = (1, 9, 11, 60)


def table(verb: str, own: bool, minutes: int, old: float | None, new: float | None) -> bool:
    """The rows of the table about switches, in minutes from the engaging; None has no end."""
    if verb == "engage" or (own and minutes < 10):
        return False
    if verb == "clear":
        return True
    far = float("inf")
    was, becomes = (far if end is None else end for end in (old, new))
    return becomes > was or becomes < minutes + 10


def by_form(verb: str, who: User, end: datetime | None) -> None:
    client = Client()
    client.force_login(who, backend="django.contrib.auth.backends.ModelBackend")
    form = {"reason": "x", "confirm": "all ml", "ends": "open" if end is None else "at"}
    form |= {} if end is None else {"at": f"{end:%Y-%m-%dT%H:%M:%S}"}
    done = client.post(reverse("switch-flip", args=["all_ml", verb]), form)
    assert done.status_code == 302, done.content


def by_rest(verb: str, who: User, end: datetime | None) -> None:
    client = Client()
    client.force_login(who, backend="django.contrib.auth.backends.ModelBackend")
    body = {"reason": "x"} | ({} if verb == "clear" else {"until": end and end.isoformat()})
    path = f"/api/v1/switches/all_ml/{verb}"
    done = client.post(path, body, content_type="application/json")
    assert done.status_code in (200, 202), done.content


def by_command(verb: str, who: User, end: datetime | None) -> None:
    length = [] if verb == "clear" else ["--until-cleared"]
    if end is not None and verb != "clear":
        length = ["--for", f"{round((end - timezone.now()).total_seconds() / 60)}m"]
    call_command(
        *("switch", "all_ml", f"--{verb}", "--reason", "x", "--by", who.username, *length),
        stdout=StringIO(),
    )


def test_switches_by_form_rest_and_command(four_eyes, dele, noor, monkeypatch) -> None:
    # the command waits a second for deciders, of which there are none
    monkeypatch.setattr("control.management.commands.switch.Command._say_acks", lambda *_: None)
    rng, seen, began = random.Random(3), Counter(), timezone.now().replace(microsecond=0)
    for _ in range(FLIPS):
        verb, who = rng.choice(VERBS), rng.choice((dele, noor))
        minutes, old = rng.choice(MINUTES), rng.choice((None, 120))
        new = rng.choice((None, 65, 75, 300))
        ends = [None if end is None else began + timedelta(minutes=end) for end in (old, new)]
        way = rng.choice((by_form, by_rest, by_command))
        with undone():
            if verb != "engage":
                with clock(began):
                    engage(dele, ends[0])
            now = began + timedelta(minutes=minutes)
            with clock(now):
                version = changes.latest().version
                way(verb, who, ends[1])
                asked = Request.objects.filter(action=f"switch.{verb}").first()
                needs = table(verb, who == dele, minutes, old, new)
                assert (changes.latest().version == version) == needs == (asked is not None)
                if asked is not None:
                    approve(asked, noor if who == dele else dele)
                    assert apply(asked)
                    assert changes.latest().request == asked
                check_deferred()
                seen[way.__name__, needs] += 1
    assert len(seen) == 6, seen
