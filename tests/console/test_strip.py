from __future__ import annotations

import time

import pytest
from django.urls import reverse

from console.frame import status_strip
from decider.contracts.config import Switch
from decider.contracts.vocabulary import MlState
from monitoring import fleet
from tests.console.conftest import MODEL
from tests.pages import shown

pytestmark = pytest.mark.django_db


def cells() -> dict[str, status_strip.Cell]:
    return {cell.label: cell for cell in status_strip.read_strip().cells}


def test_a_calm_installation_has_a_calm_strip(publish, beat) -> None:
    publish(model=MODEL)
    beat("d01")
    beat("d02")
    status = status_strip.read_strip()
    assert status.level == "calm"
    texts = [(cell.text, cell.more) for cell in status.cells]
    assert texts[:4] == [("Live", ""), ("risk v1", ""), ("All clear", ""), ("2 / 2", "at cfg 7")]


def test_ml_off_by_its_switch_is_an_incident_and_names_what_decides(publish, beat) -> None:
    publish(model=MODEL, switches=[Switch("all_ml")])
    beat(ml_state=int(MlState.SWITCHED_OFF))
    ml = cells()["ML ranking"]
    assert (ml.text, ml.bad) == ("Off, fallback limiter", True)
    assert cells()["Kill switches"].text == "1 engaged"


def test_a_switch_past_its_end_is_not_engaged(publish, beat) -> None:
    publish(model=MODEL, switches=[Switch("all_ml", until=time.time() - 1)])
    beat()
    assert cells()["Kill switches"].text == "All clear"


def test_ml_off_on_one_decider_says_on_how_many(publish, beat) -> None:
    publish(model=MODEL)
    beat("d01", ml_state=int(MlState.LATE))
    beat("d02")
    assert (cells()["ML ranking"].text, cells()["ML ranking"].more) == ("Live", "off on 1 of 2")


def test_ml_without_usable_scores_says_so(publish, beat) -> None:
    publish(model=MODEL)
    beat(ml_state=int(MlState.BAD_SCORE))
    ml = cells()["ML ranking"]
    assert (ml.text, ml.more) == ("Off, fallback limiter", "no usable score")


def test_the_time_added_and_what_got_no_decision_are_the_gateways_figures(beat, gateway) -> None:
    beat(latency_p99_us=3_600.0)
    assert cells()["Time added, p99"].text == "Not measured"
    gateway(recent_asked=10_000, recent_unasked=3, recent_p99_ms=4.4)
    cell = cells()["Time added, p99"]
    assert (cell.text, cell.more, cell.level, cell.bad) == (
        *("4.4\N{NO-BREAK SPACE}ms", "0.03% undecided"),
        *("ok", False),
    )
    gateway("second", recent_asked=10_000, recent_unasked=4_400, recent_p99_ms=16.0)
    cell = cells()["Time added, p99"]
    assert (cell.text, cell.more, cell.bad) == ("16.0\N{NO-BREAK SPACE}ms", "22% undecided", True)


def test_a_lost_decider_still_counts(publish, beat) -> None:
    publish(model=MODEL)
    beat("d01")
    beat("d02", ago=40)
    assert (cells()["Deciders in sync"].text, cells()["Deciders in sync"].level) == (
        "1 / 2",
        "warn",
    )


def test_drift_is_not_claimed_before_it_is_measured(publish) -> None:
    assert cells()["Drift"] == status_strip.Cell(
        "Drift", reverse("home"), "off", "Not measured yet"
    )


def test_a_document_with_a_wrong_signature_is_not_believed(publish, beat, keys) -> None:
    publish(model=MODEL)
    beat()
    (keys / "config.pub").write_text("11" * 32)
    assert cells()["Deciders in sync"].more == "no usable config"
    assert cells()["Model"].text == "None"


def test_without_valkey_every_cell_is_unknown_and_none_keeps_its_last_value(
    publish, beat, settings
) -> None:
    publish(model=MODEL)
    beat()
    good = status_strip.read_strip()
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    away = status_strip.read_strip()
    assert away.level == "unknown"
    *unknown, people = away.cells
    assert {cell.text for cell in unknown} == {f"Status unknown since {good.at:%H:%M:%S}"}
    # the database knows it
    assert people.text == "One person"


def test_the_strip_says_whether_one_person_decides(publish, beat, monkeypatch) -> None:
    publish(model=MODEL)
    beat()
    assert (cells()["Changes"].text, status_strip.read_strip().level) == ("One person", "calm")
    monkeypatch.setattr("control.approvals.mode.is_on", lambda: True)
    assert (cells()["Changes"].text, cells()["Changes"].level) == ("Four eyes", "ok")


def test_an_unreadable_heartbeat_costs_itself_only(valkey, beat) -> None:
    beat("d02")
    beat()
    valkey.set("sluice:node:d01", b"\xc1")
    found = fleet.read_fleet()
    assert [node.node for node in found.nodes] == ["d02"]
    assert found.unbelieved == ("d01",)
    cells = {cell.label: cell.text for cell in status_strip.strip_cells(found)}
    assert cells[status_strip.LABELS[3]] == "0 / 2"
    valkey.set("sluice:node:d02", b"\xc1")
    assert status_strip.strip_cells(fleet.read_fleet())[0].text == "No report is believed"


def test_the_strip_answers_304_until_something_changes(signed_in, publish, beat) -> None:
    client = signed_in("sre")
    publish(model=MODEL)
    beat()
    first = client.get(reverse("ui-strip"))
    assert first.status_code == 200
    assert first["Sluice-Level"] == "calm"
    same = client.get(reverse("ui-strip"), headers={"if-none-match": first["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    publish(model=MODEL, switches=[Switch("all_ml")])
    assert (
        client.get(reverse("ui-strip"), headers={"if-none-match": first["ETag"]}).status_code == 200
    )


def test_an_incident_tints_its_cell(signed_in, publish, beat) -> None:
    publish(model=MODEL, switches=[Switch("all_ml")])
    beat(ml_state=int(MlState.SWITCHED_OFF))
    page = shown(signed_in("auditor").get(reverse("ui-strip")))
    assert 'class="bad"><span class="k">ML ranking' in page


def test_a_strip_whose_session_has_ended_reloads_its_page(client, db) -> None:
    answer = client.get(reverse("ui-strip"), headers={"hx-request": "true"})
    assert answer["HX-Refresh"] == "true"
    assert b"Sign in" not in answer.content
