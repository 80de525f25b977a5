from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from control.audit import chain
from control.config import changes
from control.deciders import publish
from control.errors import Refused, StoreUnavailable
from control.models import AuditEntry, ConfigVersion, SwitchFlip
from control.switches import switches
from decider.contracts.vocabulary import Tier
from tests.control.conftest import DELE

pytestmark = pytest.mark.django_db


def in_two_hours() -> datetime:
    return timezone.now() + timedelta(hours=2)


def test_the_audit_log_says_what_each_flip_did() -> None:
    end = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
    assert [switches.summary(verb, "all_ml", end) for verb in ("engage", "extend", "clear")] == [
        "engaged the switch “All ML” until 01 May 12:30 UTC",
        "extended the switch “All ML” until 01 May 12:30 UTC",
        "cleared the switch “All ML”",
    ]
    assert switches.summary("engage", "all_ml", None) == (
        "engaged the switch “All ML” until someone clears it"
    )


def test_engaging_makes_the_change_its_audit_row_and_a_signed_version_together(
    first, published, django_capture_on_commit_callbacks
) -> None:
    until = in_two_hours()
    with django_capture_on_commit_callbacks(execute=True):
        row = switches.engage("all_ml", by=DELE, reason="  Scores look wrong, INC-7 ", until=until)
    entry, flip, config = AuditEntry.objects.first(), SwitchFlip.objects.get(), published()
    assert (row.version, config.version, entry.config_version_id) == (2, 2, 2)
    assert [(s.name, s.until) for s in config.switches] == [("all_ml", until.timestamp())]
    assert (entry.actor, entry.actor_role, entry.action, entry.subject) == (
        "Dele Okafor",
        "SRE",
        "switch.engage",
        "all_ml",
    )
    assert entry.reason == flip.reason == "Scores look wrong, INC-7"
    assert entry.after == {"state": "engaged", "until": until.isoformat()}
    assert ConfigVersion.objects.get(version=2).published_at is not None
    assert chain.verify().broken is None


def test_clearing_ends_the_flip_and_turns_ml_on_again(first) -> None:
    switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
    assert list(switches.engaged()) == ["all_ml"]
    switches.clear("all_ml", by=DELE, reason="The model was not it")
    (flip,) = switches.ended(timezone.now() - timedelta(days=7))
    assert (switches.engaged(), changes.current().switches) == ({}, [])
    assert (flip.ended_by, flip.ended_reason, flip.ended_version_id) == (
        "Dele Okafor",
        "The model was not it",
        3,
    )


def test_extending_moves_the_end(first) -> None:
    switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=in_two_hours())
    switches.extend("all_ml", by=DELE, reason="Still looking", until=None)
    assert switches.engaged()["all_ml"].until is None
    assert [s.until for s in changes.current().switches] == [None]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001, "bad \x00 byte"])
def test_a_reason_that_says_nothing_or_cannot_be_kept_is_refused(first, reason: str) -> None:
    with pytest.raises(Refused, match=r"[Rr]eason"):
        switches.engage("all_ml", by=DELE, reason=reason, until=None)
    assert ConfigVersion.objects.count() == 1


def test_an_impossible_flip_is_refused_with_a_sentence(first) -> None:
    with pytest.raises(Refused, match="is clear already"):
        switches.clear("all_ml", by=DELE, reason="Why not")
    with pytest.raises(Refused, match="is clear already"):
        switches.extend("all_ml", by=DELE, reason="Why not", until=None)
    with pytest.raises(Refused, match="is past"):
        switches.engage(
            "all_ml", by=DELE, reason="Why not", until=timezone.now() - timedelta(seconds=1)
        )
    with pytest.raises(Refused, match="no switch “alles”"):
        switches.engage("alles", by=DELE, reason="Why not", until=None)
    switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
    with pytest.raises(Refused, match="is engaged already"):
        switches.engage("all_ml", by=DELE, reason="Again", until=None)


def test_a_switch_that_ended_by_itself_is_clear_and_may_be_engaged_again(
    first, monkeypatch
) -> None:
    switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=in_two_hours())
    later = timezone.now() + timedelta(hours=3)
    monkeypatch.setattr(timezone, "now", lambda: later)
    (flip,) = switches.ended(later - timedelta(days=1))
    assert (switches.engaged(), flip.ended_by, flip.end(later)) == ({}, "", flip.until)
    row = switches.engage("all_ml", by=DELE, reason="It is back", until=None)
    assert row.version == 3
    assert [s.until for s in changes.current().switches] == [None]
    assert SwitchFlip.objects.get(pk=flip.pk).ended_at == flip.until


@pytest.mark.parametrize(
    "where",
    [
        "control.audit.chain.append",
        "control.switches.switches.record",
        "control.config.changes.store",
    ],
)
def test_a_fault_anywhere_in_a_change_leaves_nothing_of_it(first, monkeypatch, where: str) -> None:
    def fail(*args, **kwargs):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(where, fail)
    with pytest.raises(RuntimeError):
        switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
    assert (
        ConfigVersion.objects.count(),
        AuditEntry.objects.count(),
        SwitchFlip.objects.count(),
    ) == (1, 1, 0)


def test_a_change_that_deciders_would_refuse_is_refused_here(first) -> None:
    import msgspec

    with pytest.raises(Refused, match="deciders refuse"):
        changes.make_version(
            by=DELE,
            reason="A try",
            action="x.y",
            subject="x",
            summary="x",
            edit=lambda c: msgspec.structs.replace(c, tiers=c.tiers[: int(Tier.PREMIUM)]),
        )


def test_the_change_stands_when_the_store_is_down_and_is_published_later(
    first, published, monkeypatch, django_capture_on_commit_callbacks
) -> None:
    publish.rebuild()
    with monkeypatch.context() as down:
        down.setattr(
            publish,
            "push",
            lambda *_: (_ for _ in ()).throw(StoreUnavailable("Valkey does not answer.")),
        )
        with django_capture_on_commit_callbacks(execute=True):
            row = switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
        with pytest.raises(StoreUnavailable):
            publish.pending()
    assert (ConfigVersion.objects.get(version=row.version).published_at, published().version) == (
        None,
        1,
    )
    assert publish.pending() == "published config 2"
    assert (published().version, publish.pending()) == (2, "")
