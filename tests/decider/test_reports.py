"""Deciders believe only reports of their fleet, only newer ones, and no figure out of range."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from decider.contracts import defaults
from decider.engine.engine import Engine
from decider.engine.shared import report as reports
from decider.engine.shared import state as shared
from decider.engine.shared.peers import MOST_PEERS, REMEMBERED_S, STALE_S
from decider.engine.shared.report import NAMED, Report, ReportError
from tests.decider.model import small_model

NOW, KEY = 1_790_000_000.0, b"k" * 32
SERVICE = "search"


def engine(node: str = "n0", key: bytes = KEY) -> Engine:
    made = Engine(node, "r", key, capacity=64)
    made.apply(defaults.config(), small_model())
    made.sharing.peers.join(NOW - 100.0)
    return made


def report(node: str = "n1", number: int = 1, **figures: float) -> Report:
    """A report about one service, with one tenant."""
    row = np.zeros((1, reports.N_FIGURES), np.float32)
    row[0, reports.ASKED] = figures.get("asked", 50.0)
    row[0, reports.ADMITTED] = figures.get("admitted", 40.0)
    row[0, reports.PRICE] = figures.get("price", 1.5)
    named = np.zeros(1, NAMED)
    named[0] = (
        figures.get("service", 0),
        figures.get("tier", 1),
        figures.get("weight", 2.0),
        figures.get("demand", 30.0),
        figures.get("use", 20.0),
        77,
    )
    return Report(node, NOW - 100.0, number, [SERVICE], row.tobytes(), named.tobytes())


def hear(made: Engine, *heard: Report | bytes, at: float = NOW) -> np.ndarray:
    """Let an engine hear reports. Return its row of the service after the next merge."""
    key = made.sharing.peers.key
    data = [one if isinstance(one, bytes) else reports.seal(one, key) for one in heard]
    made.sharing.hear(list(data), at)
    made.sharing.peers.merge(made.shared, 1, at)
    return made.shared.service[made.router.index[SERVICE]]


def test_the_others_figures_are_added_up() -> None:
    row = hear(engine(), report("n1"), report("n2", asked=10.0, admitted=5.0, price=0.5))
    assert row[shared.OTHERS_ASKED] == 60.0
    assert row[shared.OTHERS_ADMIT] == 45.0
    assert row[shared.OTHERS_PRICE] == 1.0


def test_what_one_decider_says_is_what_the_other_reads() -> None:
    one, two = engine("n1"), engine("n0")
    row = one.shared.service[one.router.index[SERVICE]]
    row[shared.ASKED_NOW], row[shared.ADMIT_NOW], row[shared.PRICE] = 70.0, 60.0, 1.25
    found = hear(two, one.sharing.speak(NOW))
    assert found[shared.OTHERS_ASKED] == 70.0
    assert found[shared.OTHERS_ADMIT] == 60.0
    assert found[shared.OTHERS_PRICE] == 1.25


def test_services_are_told_apart_by_name_not_by_their_order() -> None:
    made = engine()
    turned = structs.replace(defaults.config(), services=defaults.config().services[::-1])
    other = Engine("n1", "r", KEY, capacity=64)
    other.apply(turned, small_model())
    other.shared.service[other.router.index[SERVICE], shared.ASKED_NOW] = 5.0
    hear(made, other.sharing.speak(NOW))
    asked = made.shared.service[:, shared.OTHERS_ASKED]
    assert asked[made.router.index[SERVICE]] == 5.0 and asked.sum() == 5.0


def test_a_document_that_reorders_services_moves_what_was_heard() -> None:
    made = engine()
    hear(made, report("n1", asked=5.0))
    turned = structs.replace(defaults.config(), services=defaults.config().services[::-1])
    made.apply(turned, small_model())
    made.sharing.peers.merge(made.shared, 1, NOW)
    asked = made.shared.service[:, shared.OTHERS_ASKED]
    assert asked[made.router.index[SERVICE]] == 5.0 and asked.sum() == 5.0


@pytest.mark.parametrize("purpose", [b"sluice-reports", b"sluice-reports-2"])
def test_a_report_of_another_format_is_not_read(purpose: bytes) -> None:
    key = hashlib.blake2b(key=KEY, person=purpose, digest_size=32).digest()
    made = engine()
    row = hear(made, reports.seal(report(), key))
    assert row[shared.OTHERS_ASKED] == 0.0
    assert made.sharing.peers.rejected == 1


def test_a_report_of_another_fleet_is_not_believed() -> None:
    made = engine()
    row = hear(made, reports.seal(report(), reports.derive_key(b"x" * 32)))
    assert row[shared.OTHERS_ASKED] == 0.0
    assert made.sharing.peers.rejected == 1


@pytest.mark.parametrize(
    "figures",
    [
        {"asked": -1.0},
        {"admitted": math.nan},
        {"price": math.inf},
        {"asked": 2e9},
        {"demand": -1.0},
        {"use": math.nan},
        {"weight": 0.0},
        {"tier": 4},
        {"service": 1},
    ],
)
def test_a_figure_out_of_range_costs_the_report_and_not_its_neighbour(figures) -> None:
    made = engine()
    row = hear(made, report("n1", **figures), report("n2", asked=7.0))
    assert row[shared.OTHERS_ASKED] == 7.0
    assert made.sharing.peers.rejected == 1


def test_a_report_that_is_repeated_or_older_changes_nothing() -> None:
    made = engine()
    assert hear(made, report(number=2))[shared.OTHERS_ASKED] == 50.0
    later = NOW + STALE_S / 2
    hear(made, report(number=1, asked=900.0), at=later)
    hear(made, report(number=2, asked=900.0), at=later)
    before = structs.replace(report(number=9, asked=900.0), started_at=NOW - 200.0)
    assert hear(made, before, at=later)[shared.OTHERS_ASKED] == 50.0
    # repeating it keeps no decider alive
    assert hear(made, report(number=2), at=NOW + 2 * STALE_S)[shared.OTHERS_ASKED] == 0.0


def test_a_decider_that_was_started_again_begins_anew() -> None:
    made = engine()
    hear(made, report(number=50))
    again = structs.replace(report(number=1, asked=9.0), started_at=NOW)
    assert hear(made, again)[shared.OTHERS_ASKED] == 9.0


def test_a_decider_does_not_listen_to_itself() -> None:
    assert hear(engine("n1"), report("n1"))[shared.OTHERS_ASKED] == 0.0


def test_no_more_deciders_are_listened_to_than_a_region_has() -> None:
    made = engine()
    hear(made, *(report(f"other-{k}", asked=1.0) for k in range(MOST_PEERS + 9)))
    assert len(made.sharing.peers.alive(NOW)) == MOST_PEERS


def test_a_region_is_divided_while_the_store_is_silent() -> None:
    made = engine()
    merge = made.sharing.peers.merge
    merge(made.shared, 4, NOW)
    assert made.shared.part[0] == 0.25  # nobody was heard yet: as many as the document says
    hear(made, report("n1"), report("n2"))
    assert made.shared.part[0] == 1.0
    merge(made.shared, 4, NOW + 5.0)
    assert made.shared.part[0] == pytest.approx(1 / 3)
    assert made.shared.service[made.router.index[SERVICE], shared.OTHERS_ASKED] == 0.0
    # one that is long gone does not count any more
    hear(made, report("n1", number=2), at=NOW + REMEMBERED_S + 1.0)
    merge(made.shared, 4, NOW + REMEMBERED_S + 20.0)
    assert made.shared.part[0] == 0.5


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError):
        reports.unseal(data, reports.derive_key(KEY))


@given(st.data())
def test_a_report_that_was_changed_anywhere_is_refused(data) -> None:
    key = reports.derive_key(KEY)
    sealed = bytearray(reports.seal(report(), key))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ReportError):
        reports.unseal(bytes(sealed), key)


@given(st.binary(max_size=64), st.binary(max_size=64), st.lists(st.text(max_size=8), max_size=3))
def test_a_sealed_report_of_any_content_is_read_or_refused(figures, named, services) -> None:
    """Even of a decider that went wrong."""
    key = reports.derive_key(KEY)
    sealed = reports.seal(Report("n1", 0.0, 1, services, figures, named), key)
    try:
        found = reports.unseal(sealed, key)
    except ReportError:
        return
    assert len(found.read_figures()) == len(services)


def test_a_document_with_fewer_services_may_come_between_two_parts_of_a_tick() -> None:
    made, now = engine(), NOW
    made.tick(now)
    held = made.shared
    parts = made.tick_in_parts(now + 0.2)
    next(parts)
    fewer = structs.replace(defaults.config(), services=defaults.config().services[:1])
    made.apply(fewer, small_model())
    before = made.shared.service.copy()
    assert len(list(parts)) == len(held.service) - 1
    # what remained of the tick went to the tables that it began with
    assert (made.shared.service == before).all()
