"""Subjects of lists and overrides are read once, when a change brings them in."""

from __future__ import annotations

import msgspec
import pytest

from control.config import changes, subjects
from control.errors import Refused
from decider.contracts import config as document
from decider.contracts import defaults
from decider.contracts.config import Config, ListEntry, Override
from tests.control.conftest import DELE

pytestmark = pytest.mark.usefixtures("first")


def entry(subject: str, kind: str = "source", verdict: str = "block") -> ListEntry:
    return ListEntry(verdict=verdict, kind=kind, subject=subject)  # type: ignore[arg-type]


def change(**fields: object) -> Config:
    changes.make_version(
        by=DELE,
        reason="A test",
        action="test.change",
        subject="config",
        summary="changed something",
        edit=lambda c: msgspec.structs.replace(c, **fields),
    )
    return changes.current()


def test_a_source_is_stored_in_one_spelling_and_a_network_is_marked() -> None:
    found = change(
        lists=[entry("::FFFF:192.0.2.1"), entry("2001:DB8:0::/48"), entry("192.0.2.9:443")]
    ).lists
    assert [(e.subject, e.network) for e in found] == [
        ("192.0.2.1", False),
        ("2001:db8::/48", True),
        ("192.0.2.9", False),
    ]


@pytest.mark.parametrize("subject", ["banana", "192.0.2.*", "192.0.2.1\n", "192.0.2.1/24"])
def test_a_new_subject_that_is_no_address_is_refused_with_its_entry(subject: str) -> None:
    before = changes.current()
    with pytest.raises(Refused, match="subject of the source entry of the block list") as refused:
        change(lists=[entry("192.0.2.1"), entry(subject)])
    assert repr(subject) in str(refused.value)
    assert changes.current() == before


def test_a_single_ipv6_address_is_refused_with_the_network_to_write() -> None:
    with pytest.raises(Refused, match=r"write 2001:db8::/64\.$"):
        change(lists=[entry("2001:db8::1")])


def test_a_name_with_a_line_end_is_refused() -> None:
    with pytest.raises(Refused, match="the app entry of the block list"):
        change(lists=[entry("app_1\n", kind="app")])
    with pytest.raises(Refused, match="override ovr_1"):
        change(overrides=[Override(id="ovr_1", kind="tenant", subject="ten_1\n", until=1e10)])


def test_a_bad_subject_of_before_stops_no_other_change(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(changes.subjects, "checked", lambda new, old: new)
        change(lists=[entry("banana")])
    found = change(ml_time_limit_ms=7.0, lists=[entry("banana"), entry("192.0.2.1")])
    assert [e.subject for e in found.lists] == ["banana", "192.0.2.1"]
    with pytest.raises(Refused):
        change(lists=[entry("banana"), entry("banana", verdict="allow")])


def test_a_network_waits_for_deciders_that_can_read_it() -> None:
    tiers = [
        msgspec.structs.replace(tier, headroom_to="all", error_budget=None)
        for tier in defaults.TIERS
    ]
    old = msgspec.structs.replace(defaults.config(1, 0.0), tiers=tiers)
    assert document.needed_format(old) == (1, "")
    new = subjects.checked(msgspec.structs.replace(old, lists=[entry("192.0.2.1")]), old)
    assert document.needed_format(new) == (1, "")
    new = subjects.checked(msgspec.structs.replace(old, lists=[entry("192.0.2.0/24")]), old)
    assert document.needed_format(new) == (3, "lists.*.network")
    assert document.decode(document.encode(new)).lists == new.lists
