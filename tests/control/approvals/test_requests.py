"""Asking for a change, deciding it and making it."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from django.utils import timezone

from control.approvals import mode, requests
from control.approvals.lifecycle import State
from control.approvals.models import Mode, Request
from control.approvals.requests import NotApproved
from control.audit.actors import Actor
from control.config import changes, lies, requested
from control.config.gate import NeedsSecondPerson
from control.errors import Conflict, NotAllowed, Refused
from control.models import AuditEntry, SwitchFlip
from control.people import grants
from control.switches import switches
from tests.control.approvals.conftest import apply, approve, ask_to_clear, engage, turn_on, veto
from tests.test_architecture import ROOMS, ROOT

pytestmark = pytest.mark.django_db


def later(monkeypatch, minutes: float) -> None:
    """Moves the clock of the console."""
    there = timezone.now() + timedelta(minutes=minutes)
    monkeypatch.setattr(timezone, "now", lambda: there)


def raised_burst(config, by: float = 2.0):
    tier = msgspec.structs.replace(config.tiers[1], burst=config.tiers[1].burst * by)
    return msgspec.structs.replace(config, tiers=[config.tiers[0], tier, *config.tiers[2:]])


def raise_burst(by, factor: float = 2.0, edit=None, **more):
    return changes.make_version(
        by=Actor.of(by),
        reason="They replay after restarts",
        action="policy.change",
        subject="standard",
        summary="raised the burst of standard apps",
        edit=edit or (lambda config: raised_burst(config, factor)),
        **more,
    )


def ask_for_burst(by, factor: float = 2.0) -> Request:
    with pytest.raises(NeedsSecondPerson, match="it raises standard tier, burst") as held:
        raise_burst(by, factor=factor)
    return requested.ask(held.value, by=by, reason="They replay after restarts")


def test_a_new_installation_lets_one_person_do_it_and_marks_it(first, dele) -> None:
    row = raise_burst(dele)
    entry = AuditEntry.objects.get(config_version=row)
    assert (row.loosens, row.alone, row.request) == (True, True, None)
    assert entry.summary == "raised the burst of standard apps (one person)"
    assert entry.after == {"second_person": "not asked: single-person mode"}
    assert changes.current().tiers[1].burst == 600


def test_two_people_turn_it_on_and_two_turn_it_off(first, dele, priya) -> None:
    asked = mode.ask(True, by=dele, reason="Two are here now")
    assert not mode.is_on()
    with pytest.raises(Refused, match="someone else must decide"):
        approve(asked, dele)
    with pytest.raises(NotApproved, match="0 of 1 approvals count"):
        apply(asked)
    approve(asked, priya)
    assert apply(asked)
    assert mode.is_on()
    off = mode.ask(False, by=priya, reason="A drill")
    with pytest.raises(NotApproved):
        apply(off)
    approve(off, dele)
    assert apply(off)
    assert not mode.is_on()
    assert Mode.objects.count() == 2


def test_who_may_not_change_the_rule_may_not_ask_for_it(first, people) -> None:
    with pytest.raises(NotAllowed, match="may not turn four eyes on"):
        mode.ask(True, by=people("mara", "support"), reason="x")


def test_engaging_takes_one_person_and_clearing_two(four_eyes, monkeypatch, dele, noor) -> None:
    engage(dele)
    later(monkeypatch, 11)
    asked = ask_to_clear(dele)
    assert [s.name for s in changes.current().switches] == ["all_ml"]
    approve(asked, noor)
    assert apply(asked)
    row = changes.latest()
    asked.refresh_from_db()
    assert (changes.current().switches, row.request, row.loosens) == ([], asked, True)
    assert (asked.state, asked.outcome) == (State.APPLIED, "Approved by Noor.")
    flip = SwitchFlip.objects.get()
    assert (flip.ended_by, flip.ended_version) == ("Dele", row)
    actions = list(AuditEntry.objects.order_by("seq").values_list("action", flat=True))[-3:]
    assert actions == ["approval.ask", "approval.approve", "switch.clear"]
    assert AuditEntry.objects.first().after == {
        "state": "clear",
        "request": asked.pk,
        "second_person": "Approved by Noor.",
    }


def test_whoever_engaged_a_switch_takes_it_back_alone_within_ten_minutes(
    four_eyes, monkeypatch, dele, noor
) -> None:
    engage(dele)
    with pytest.raises(NeedsSecondPerson, match="it clears the switch “All ML”"):
        switches.clear("all_ml", by=Actor.of(noor), reason="x")
    later(monkeypatch, 9)
    switches.clear("all_ml", by=Actor.of(dele), reason="The wrong one")
    assert changes.current().switches == []
    # engaged by someone else since, it is not his any more
    engage(noor)
    with pytest.raises(NeedsSecondPerson):
        switches.clear("all_ml", by=Actor.of(dele), reason="x")


def test_an_end_within_ten_minutes_is_a_clearing(four_eyes, monkeypatch, dele, noor) -> None:
    engage(dele, timezone.now() + timedelta(hours=2))
    soon, later_on = (timezone.now() + timedelta(minutes=m) for m in (1, 30))
    with pytest.raises(NeedsSecondPerson, match="it moves the end"):
        switches.extend("all_ml", by=Actor.of(noor), reason="x", until=soon)
    switches.extend("all_ml", by=Actor.of(noor), reason="x", until=later_on)
    with pytest.raises(NeedsSecondPerson, match="it moves the end"):
        switches.extend("all_ml", by=Actor.of(noor), reason="x", until=None)


def test_a_role_decides_only_its_kind_whatever_a_request_calls_itself(
    four_eyes, dele, noor, priya, people
) -> None:
    burst = ask_for_burst(dele)
    with pytest.raises(NotAllowed):
        approve(burst, noor)
    for nobody in (people("tom", "auditor"), people("mara", "support"), people("x")):
        with pytest.raises(NotAllowed):
            approve(burst, nobody)
        with pytest.raises(NotAllowed):
            veto(burst, nobody)
    approve(burst, priya)
    assert apply(burst)
    assert changes.current().tiers[1].burst == 600


def test_unrelated_changes_do_not_make_it_stale_and_related_ones_do(
    four_eyes, dele, priya, people
) -> None:
    other = people("marit", "policy_admin")
    burst = ask_for_burst(dele)
    engage(dele)
    now = timezone.now()
    assert requested.overtaken(burst, now) is None
    smaller = ask_for_burst(other, 0.5 * 2.2)
    approve(smaller, priya)
    assert apply(smaller)
    found = requested.overtaken(burst, timezone.now())
    assert (found.by, found.part.part, found.now) == ("Marit", "/tiers/standard/burst", 330.0)
    approve(burst, priya)
    with pytest.raises(requested.parts.Overtaken):
        apply(burst)
    burst.refresh_from_db()
    assert burst.state == State.OPEN
    again = requested.rebase(burst, by=dele, reason="Still wanted")
    burst.refresh_from_db()
    assert (burst.state, burst.outcome) == (State.WITHDRAWN, "Rebased by Dele.")
    assert requested.parts_of(again)[0].before == 330.0
    assert again.votes.count() == 0
    approve(again, priya)
    assert apply(again)
    assert changes.current().tiers[1].burst == 600.0


def test_a_vote_is_for_what_was_read(four_eyes, dele, priya) -> None:
    burst = ask_for_burst(dele)
    with pytest.raises(Refused, match="other content than you have read"):
        approve(burst, priya, digest="0" * 64)
    approve(burst, priya)
    with pytest.raises(Refused, match="voted on this request already"):
        veto(burst, priya)


def test_an_approval_is_for_one_change_once(four_eyes, monkeypatch, dele, noor, priya) -> None:
    engage(dele)
    later(monkeypatch, 11)
    asked = ask_to_clear(dele)
    with pytest.raises(Conflict, match=f"request {asked.pk}"):
        ask_to_clear(noor)
    approve(asked, noor)
    with pytest.raises(NotApproved, match="not the one that was approved"):
        raise_burst(dele, request=asked)
    assert apply(asked)
    engage(dele)
    later(monkeypatch, 11)
    with pytest.raises(NotApproved, match="closed"):
        switches.apply_request(asked)
    assert len(changes.current().switches) == 1


@pytest.mark.parametrize("how", ["role", "account"])
def test_who_lost_the_role_between_vote_and_change_does_not_count(
    four_eyes, dele, priya, how
) -> None:
    burst = ask_for_burst(dele)
    approve(burst, priya)
    if how == "role":
        priya.groups.clear()
    else:
        priya.is_active = False
        priya.save()
    with pytest.raises(NotApproved, match=r"0 of 1 approvals count\. The vote of priya@"):
        apply(burst)
    assert changes.current().tiers[1].burst == 300


def test_what_someone_asked_who_is_not_active_any_more_is_not_made(four_eyes, dele, priya) -> None:
    burst = ask_for_burst(dele)
    approve(burst, priya)
    dele.is_active = False
    dele.save()
    with pytest.raises(NotApproved, match="is not active any more"):
        apply(burst)
    assert changes.current().tiers[1].burst == 300


def test_one_veto_ends_it_and_the_proposer_withdraws(four_eyes, dele, noor, priya) -> None:
    burst = ask_for_burst(dele)
    with pytest.raises(Refused, match=r"Only dele@example\.org can withdraw"):
        requests.withdraw(burst.pk, by=noor, reason="x")
    veto(burst, priya)
    burst.refresh_from_db()
    assert (burst.state, burst.outcome) == (State.VETOED, "Priya: Not now.")
    for tried in (
        lambda: requests.withdraw(burst.pk, by=dele, reason="x"),
        lambda: apply(burst),
        lambda: requested.rebase(burst, by=dele, reason="x"),
    ):
        with pytest.raises(Refused):
            tried()
    again = ask_for_burst(dele)
    assert requests.withdraw(again.pk, by=dele, reason="Not needed").state == State.WITHDRAWN


def test_a_request_ends_in_time_and_with_the_switch_it_clears(
    four_eyes, monkeypatch, dele, noor
) -> None:
    end = timezone.now() + timedelta(hours=2)
    engage(dele, end)
    asked = ask_to_clear(noor)
    assert abs(asked.expires_at - end) < timedelta(milliseconds=1)
    burst = ask_for_burst(dele)
    assert burst.expires_at - burst.requested_at == requests.WAITS
    assert requests.expire(timezone.now()) == 0
    later(monkeypatch, 121)
    with pytest.raises(NotApproved, match="ended undecided"):
        approve(asked, dele)


def test_an_impossible_change_ends_as_failed_and_says_why(four_eyes, dele, priya) -> None:
    with pytest.raises(NeedsSecondPerson) as held:
        changes.make_version(
            by=Actor.of(dele),
            reason="x",
            action="policy.change",
            subject="time limit",
            summary="raised the time limit",
            edit=lambda config: msgspec.structs.replace(config, ml_time_limit_ms=1e9),
        )
    asked = requested.ask(held.value, by=dele, reason="x")
    approve(asked, priya)
    assert not apply(asked)
    asked.refresh_from_db()
    assert asked.state == State.FAILED
    assert "rules that can never work" in asked.outcome


def test_nobody_decides_for_whom_they_gave_a_role_lately(four_eyes, dele, priya) -> None:
    burst = ask_for_burst(dele)
    grants.give(by=priya, person=dele, role="support", reason="He is new")
    with pytest.raises(Refused, match=r"gave dele@example\.org a role within the last 24 hours"):
        approve(burst, priya)


def test_what_was_approved_before_a_crash_is_made_by_the_task(four_eyes, dele, priya) -> None:
    burst = ask_for_burst(dele)
    approve(burst, priya)
    assert requested.apply_approved({}) == 1
    assert requested.apply_approved({}) == 0
    assert changes.current().tiers[1].burst == 600


def test_verify_finds_a_version_that_lies_about_itself(four_eyes, dele, noor, monkeypatch) -> None:
    engage(dele)
    later(monkeypatch, 11)
    asked = ask_to_clear(dele)
    approve(asked, noor)
    apply(asked)
    assert lies.find().lies == ()
    monkeypatch.setattr(
        "control.config.gate.second_person",
        lambda *given: type("V", (), {"needs": (), "digest": ""})(),
    )
    raise_burst(dele)
    monkeypatch.undo()
    (lie,) = lies.find().lies
    assert "needed a second person and says that it did not" in lie


def test_turning_on_is_refused_when_it_is_on(four_eyes, dele, priya) -> None:
    with pytest.raises(Refused, match="on already"):
        turn_on(dele, priya)


def test_a_change_of_two_kinds_needs_both_of_their_people(four_eyes, dele, noor, priya) -> None:
    def edit(config):
        services = [msgspec.structs.replace(s, capacity=999.0) for s in config.services]
        return msgspec.structs.replace(raised_burst(config), services=services)

    with pytest.raises(NeedsSecondPerson) as held:
        changes.make_version(
            by=Actor.of(dele), reason="x", action="x.x", subject="x", summary="x", edit=edit
        )
    asked = requested.ask(held.value, by=dele, reason="x")
    approve(asked, noor)
    with pytest.raises(NotApproved, match="needs someone of another role"):
        apply(asked)
    approve(asked, priya)
    assert apply(asked)
    assert changes.current().services[0].capacity == 999


def test_only_flips_that_happened_already_pass_the_gate_afterwards() -> None:
    """Whoever passes `offline=True` is let through, so nobody else may; nor may anyone store a
    document by a standing of their own.
    """
    used = {
        (word, str(path.relative_to(ROOT)))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for word in ("offline=True", "Clearance(", "changes.store(")
        if word in path.read_text()
    }
    assert used == {
        ("offline=True", "control/switches/offline.py"),
        ("offline=True", "control/switches/switches.py"),
        ("changes.store(", "control/switches/offline.py"),
        ("Clearance(", "control/config/changes.py"),
        ("Clearance(", "control/config/gate.py"),
        ("Clearance(", "control/config/beside.py"),
    }
