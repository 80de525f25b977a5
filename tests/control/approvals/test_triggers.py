"""The rules of four eyes hold in the database, for the ORM's bulk updates and for raw SQL."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from console.pages.approvals.page import card_of
from control.approvals import lifecycle, mode, reviews
from control.approvals.lifecycle import TRANSITIONS, State
from control.approvals.models import Mode, Request, Review, Vote
from control.audit import chain
from control.audit.actors import SYSTEM, Actor
from control.config import changes, parts, requested
from control.models import ConfigVersion
from control.switches import switches
from rollouts import registry
from tests.audited import append_entry
from tests.control.approvals.conftest import approve, veto
from tests.database import as_owner

pytestmark = pytest.mark.django_db


@contextmanager
def refused(says: str) -> Iterator[None]:
    """The body's statements, or their commit, are refused with these words."""
    with pytest.raises(DatabaseError, match=says), transaction.atomic():
        yield
        append_entry()
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def sql(statement: str, *values: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def made(by, **more) -> Request:
    text = parts.canonical([["/nodes", 8, secrets.randbelow(1 << 40)]])
    now = timezone.now()
    given = {
        "action": "policy.change",
        "subject": "nodes",
        "summary": "changed the nodes",
        "payload": text,
        "digest": parts.digest_of(text),
        "base": {},
        "requested_by": by,
        "requested_at": now,
        "reason": "x",
        "expires_at": now + timedelta(hours=1),
    }
    return Request.objects.create(**(given | more))


def cast(row: Request, voter, **more) -> Vote:
    given = {"digest": row.digest, "verdict": "approve", "reason": "x", "how": "session"}
    return Vote.objects.create(request=row, voter=voter, at=timezone.now(), **(given | more))


CLOSED = {"closed_at": "2026-01-01T00:00Z"}


@pytest.mark.parametrize("state", [s for s in State if s != State.OPEN])
def test_a_request_begins_open(dele, state) -> None:
    with refused("begins open"):
        made(dele, state=state, **CLOSED)


def test_a_digest_is_of_the_content(dele) -> None:
    with refused("not that of the content"):
        made(dele, digest="0" * 64)


@pytest.mark.parametrize(
    "payload",
    ["", "[]", "{}", "3", '["x"]', "[[1,2,3]]", '[["nodes",1,2]]', '[["/nodes",1]]', '[["/",1,2]]'],
)
def test_content_is_a_list_of_parts(dele, payload: str) -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        made(dele, payload=payload, digest=parts.digest_of(payload))


def reached(dele, priya, state: State) -> Request:
    """A request in a state, by the way that leads there."""
    hour = timedelta(hours=1)
    old = {"requested_at": timezone.now() - 2 * hour, "expires_at": timezone.now() - hour}
    row = made(dele, **(old if state == State.EXPIRED else {}))
    if state == State.APPLIED:
        cast(row, priya)
    if state == State.VETOED:
        cast(row, priya, verdict="veto")
    if state != State.OPEN:
        Request.objects.filter(pk=row.pk).update(state=state, closed_at=timezone.now())
    return row


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(State, State)), ids=lambda state: str(state)
)
def test_only_what_the_table_says_leads_from_state_to_state(dele, priya, before, after) -> None:
    if (before, after) in TRANSITIONS:
        # the way there, whose conditions hold
        assert reached(dele, priya, after).pk
        return
    row = reached(dele, priya, before)
    if before == after:
        return
    for move in (
        lambda: Request.objects.filter(pk=row.pk).update(state=after),
        lambda: sql("UPDATE approvals_request SET state = %s WHERE id = %s", str(after), row.pk),
    ):
        with refused("may not go from"):
            move()


FIXED = (
    *("action", "subject", "summary", "payload", "digest", "base", "requested_by_id"),
    *("requested_at", "reason", "ticket", "needs", "expires_at", "id"),
)


@pytest.mark.parametrize("column", FIXED)
def test_nothing_but_the_state_changes(dele, priya, column) -> None:
    row = made(dele)
    value = {
        "base": "'{\"a\": 1}'",
        "requested_by_id": str(priya.pk),
        "needs": "2",
        "id": "999999",
        "requested_at": "now() - interval '1 day'",
        "expires_at": "now() + interval '9 days'",
    }.get(column, "'other'")
    with refused("is fixed"):
        sql(f"UPDATE approvals_request SET {column} = {value} WHERE id = {row.pk}")  # noqa: S608
    cast(row, priya)
    with refused("is fixed"):
        move = "state = 'applied', closed_at = now()"
        sql(f"UPDATE approvals_request SET {move}, {column} = {value} WHERE id = {row.pk}")  # noqa: S608


def test_every_column_is_tried() -> None:
    there = {field.column for field in Request._meta.concrete_fields}
    assert there - {"state", "closed_at", "outcome"} == set(FIXED)


def apply_raw(row: Request) -> None:
    sql("UPDATE approvals_request SET state = 'applied', closed_at = now() WHERE id = %s", row.pk)


def test_applying_takes_the_approvals_on_this_digest(dele, noor, priya, people) -> None:
    row = made(dele, needs=2)
    for approvals, voter in enumerate((noor, priya)):
        with refused(f"has {approvals} of 2 approvals"):
            apply_raw(row)
        cast(row, voter)
    noor.is_active = False
    noor.save()
    with refused("has 1 of 2 approvals"):
        apply_raw(row)
    cast(row, people("marit", "policy_admin"))
    apply_raw(row)


def test_a_veto_ends_it_however_many_approved(dele, noor, priya) -> None:
    row = made(dele)
    cast(row, noor)
    cast(row, priya, verdict="veto")
    with refused("was vetoed"):
        apply_raw(row)


def test_after_its_end_nothing_is_applied_or_voted(dele, noor, priya) -> None:
    row = made(dele, expires_at=timezone.now() + timedelta(milliseconds=200))
    cast(row, noor)
    with refused("has not expired"):
        Request.objects.filter(pk=row.pk).update(state="expired", closed_at=timezone.now())
    sql("SELECT pg_sleep(0.25)")
    with refused("has expired"):
        apply_raw(row)
    with refused("is closed"):
        cast(row, priya)


def test_nobody_vetoed_so_it_is_not_vetoed(dele, noor) -> None:
    row = made(dele)
    cast(row, noor)
    with refused("nobody vetoed"):
        Request.objects.filter(pk=row.pk).update(state="vetoed", closed_at=timezone.now())


def test_votes_are_of_others_for_this_content_once_and_while_it_is_open(dele, noor, priya) -> None:
    row = made(dele)
    with refused("of their own"):
        cast(row, dele)
    with refused("for other content"):
        cast(row, noor, digest=made(dele).digest)
    with refused("verdict_known"):
        cast(row, noor, verdict="maybe")
    with refused("passkey_has_its_assertion"):
        cast(row, noor, how="passkey")
    cast(row, noor)
    with refused("one_vote_of_a_person"):
        cast(row, noor, verdict="veto")
    with refused("one_vote_of_a_person"):
        two = Vote(request=row, voter=noor, digest=row.digest, verdict="veto", reason="x")
        two.how, two.at = "session", timezone.now()
        Vote.objects.bulk_create([two])
    apply_raw(row)
    with refused("is closed"):
        cast(row, priya, verdict="veto")


@pytest.mark.parametrize(
    "table", ["approvals_request", "approvals_vote", "approvals_mode", "approvals_review"]
)
def test_nothing_is_taken_out_or_emptied(dele, noor, priya, table) -> None:
    changes.first(by=SYSTEM, reason="x")
    row = mode.ask(True, by=dele, reason="x")
    approve(row, priya)
    mode.apply_request(row)
    text = parts.canonical([["/nodes", 8, 9]])
    reviews.open_review(
        by=Actor("x", "x", "Shell"),
        payload=text,
        digest=parts.digest_of(text),
        summary="x",
        reason="x",
    )
    # a table with checks that wait for the commit cannot be emptied anyway
    append_entry()
    sql("SET CONSTRAINTS ALL IMMEDIATE")
    sql("SET CONSTRAINTS ALL DEFERRED")
    for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):  # noqa: S608
        with refused("append-only"), as_owner():
            sql(statement)
    if table in ("approvals_vote", "approvals_mode"):
        with refused("append-only"), as_owner():
            sql(f"UPDATE {table} SET at = now()")  # noqa: S608


def test_the_mode_follows_an_applied_request_that_says_so(dele, priya) -> None:
    asked = mode.ask(True, by=dele, reason="x")
    with refused("needs an applied request"):
        Mode.objects.create(on=True, at=timezone.now(), request=asked)
    other = made(dele)
    cast(other, priya)
    apply_raw(other)
    with refused("needs an applied request"):
        Mode.objects.create(on=True, at=timezone.now(), request=other)
    approve(asked, priya)
    mode.apply_request(asked)
    with refused("in this mode already"):
        Mode.objects.create(on=True, at=timezone.now(), request=asked)


def test_a_review_is_closed_once_by_someone_else(dele, noor) -> None:
    text = parts.canonical([["/nodes", 8, 9]])
    row = reviews.open_review(
        by=Actor.of(dele), payload=text, digest=parts.digest_of(text), summary="x", reason="x"
    )
    there = Review.objects.filter(pk=row.pk)
    closing = {"closed_at": timezone.now(), "closed_reason": "x"}
    with refused("another person"):
        there.update(closed_by=dele, **closing)
    with refused("is fixed"):
        there.update(by_login="someone", closed_by=dele, **closing)
    there.update(closed_by=noor, **closing)
    with refused("is fixed"):
        there.update(closed_by=dele, **closing)


def version(**more) -> None:
    """Stores a config version past all of our code, with its entry in the audit log."""
    newest = changes.latest()
    row = ConfigVersion.objects.create(
        version=newest.version + 1,
        payload=newest.payload,
        signed=newest.signed,
        made_at=timezone.now(),
        by="x",
        reason="x",
        **({"loosens": True} | more),
    )
    chain.append(by=SYSTEM, reason="x", action="x.x", subject="x", summary="x", config_version=row)


def test_a_version_that_needs_someone_has_its_request(four_eyes, dele, priya, noor) -> None:
    row = made(dele)
    for more, says in (
        ({"loosens": None}, "does not say"),
        ({}, "needs a second person"),
        ({"alone": True}, "cannot be made by one person"),
        ({"request": row, "change": row.digest}, "is not applied"),
    ):
        with pytest.raises(DatabaseError, match=says), chain.changing():
            version(**more)
            sql("SET CONSTRAINTS version_is_approved IMMEDIATE")
    cast(row, priya)
    apply_raw(row)
    with pytest.raises(DatabaseError, match="another change"), chain.changing():
        version(request=row, change="0" * 64)
        sql("SET CONSTRAINTS version_is_approved IMMEDIATE")
    with chain.changing():
        version(request=row, change=row.digest)
    with pytest.raises(DatabaseError, match="request_id"), chain.changing():
        version(request=row, change=row.digest)


def test_the_diagram_in_the_documents_is_the_table() -> None:
    from tests.test_architecture import ROOT

    assert lifecycle.diagram() in (ROOT / "docs" / "approvals.md").read_text()


def test_a_veto_is_kept(four_eyes, dele, priya) -> None:
    row = made(dele)
    veto(row, priya)
    row.refresh_from_db()
    assert row.state == State.VETOED


@pytest.mark.parametrize(
    "part", ["/x", "/switches/all_ml", "/model", "/tiers/gold/burst", "/nodes"]
)
def test_what_was_written_past_our_code_fails_alone(four_eyes, dele, people, part) -> None:
    text = parts.canonical([[part, None, "x"]])
    row = made(dele, payload=text, digest=parts.digest_of(text))
    for role in ("sre", "policy_admin", "ml_owner"):
        cast(row, people(f"one_{role}", role))
    card_of(row, dele, timezone.now())
    effects = {"switches": switches.apply_request, "model": registry.apply_request}
    assert requested.apply_approved(effects) == 0
    row.refresh_from_db()
    assert row.state in (State.FAILED, State.OPEN)
