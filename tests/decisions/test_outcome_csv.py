"""A CSV file of outcomes is stored as a whole, or refused line by line with nothing stored,
whatever is in it.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.audit.actors import Actor
from control.errors import Refused
from decisions.models import Outcome
from decisions.outcomes import csv_file
from decisions.outcomes.csv_file import BadFile

PRIYA = Actor("Priya Raman", "priya@example.org", "Policy admin")
HEADER = "key,kind,occurred_at,app,note\n"
GOOD = (
    HEADER + 'cb-1,chargeback,2026-01-14T09:30:00Z,app_1,"PAY-812,'
    ' first"\ncb-2,churn,2026-01-15T09:30:00+01:00,app_2,\n'
)


def upload(text: str | bytes):
    data = text if isinstance(text, bytes) else text.encode()
    return csv_file.upload(data, by=PRIYA, reason="Chargebacks")


def problems(text: str | bytes) -> list[tuple[int, str]]:
    with pytest.raises(BadFile) as caught:
        csv_file.parse_reports(text if isinstance(text, bytes) else text.encode())
    return [(p.line, p.column) for p in caught.value.problems]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "dress",
    [str, lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "\n\n,,,,\n"],
)
def test_a_good_file_is_stored_once_however_often_it_comes(dress) -> None:
    assert upload(dress(GOOD)).stored == 2
    assert upload(dress(GOOD)).repeated == 2
    assert set(Outcome.objects.values_list("note", "source")) == {
        ("PAY-812, first", "csv"),
        ("", "csv"),
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [(1, "key")]),
        ("a,b\n1,2\n", [(1, "key")]),
        (HEADER, [(0, "")]),
        ("key,kind,occurred_at,password\nx\n", [(1, "password")]),
        ("key,kind,occurred_at,key\n", [(1, "")]),
        (GOOD + "cb-3,chargeback\n", [(4, "")]),
        (GOOD + "cb-3,luck,yesterday,app_1,\n", [(4, "occurred_at")]),
        (GOOD + "cb-3,luck,2026-01-14T09:30:00Z,app_1,\n", [(4, "kind")]),
        (GOOD + "cb-3,churn,2026-01-14T09:30:00,app_1,\n", [(4, "occurred_at")]),
        (GOOD + "cb-3,churn,,,\n", [(4, "occurred_at")]),
        (GOOD + "cb-3,churn,2026-01-14T09:30:00Z,,\n", [(4, "app")]),
        (GOOD + 'cb-3,churn,2026-01-14T09:30:00Z,app_1,"=cmd|calc"\n', [(4, "note")]),
        (GOOD + "@x,churn,2026-01-14T09:30:00Z,+1,-2\n", [(4, "key"), (4, "app"), (4, "note")]),
        (GOOD + 'cb-3,churn,2026-01-14T09:30:00Z,app_1,"two\nlines"\n', [(4, "note")]),
        (GOOD + 'cb-3,churn,2026-01-14T09:30:00Z,app_1,"open', [(4, "")]),
        (GOOD + 'cb-3,churn,2026-01-14T09:30:00Z,app_1,"a"b\n', [(4, "")]),
        (GOOD + "cb-3,churn,2026-01-14T09:30:00Z,app_1,\x00\n", [(4, "")]),
        (GOOD.encode() + b"cb-3,churn,2026-01-14T09:30:00Z,app_1,caf\xe9\n", [(4, "")]),
        (b"\xff\xfek\x00e\x00y\x00", [(1, "")]),
        (
            "key,kind,occurred_at,weight,decision\nk,churn,2026-01-14T09:30:00Z,heavy,dec_1\n",
            [(2, "weight"), (2, "decision")],
        ),
        ("key,kind,occurred_at,app,weight\nk,churn,2026-01-14T09:30:00Z,a,nan\n", [(2, "weight")]),
        ("key,kind,occurred_at,app\n" + "x" * 200_000, [(2, "")]),
    ],
    ids=range(22),
)
def test_a_bad_file_says_every_line_and_column_that_is_wrong(
    text: str | bytes, found: list
) -> None:
    assert problems(text) == found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD.replace(",", ";").encode(), "separated by semicolons"),
        (GOOD.replace(",", "\t").encode(), "separated by tabs"),
        (GOOD.replace(",", "|").encode(), "separated by vertical bars"),
        (b"PK\x03\x04\x14\x00\x06\x00", "a workbook (.xlsx or .ods)"),
        (bytes.fromhex("d0cf11e0a1b11ae1"), "an old workbook (.xls)"),
        (b"\x1f\x8b\x08\x00", "compressed (gzip)"),
        (b"x" * 2_345_678, "The file has 2,345,678 bytes"),
    ],
)
def test_a_file_of_another_kind_is_told_what_it_is(data: bytes, said: str) -> None:
    with pytest.raises(BadFile, match=re.escape(said)):
        csv_file.parse_reports(data)


@pytest.mark.parametrize("cell", [" cb-3", "cb-3 ", "\tcb-3"])
def test_a_cell_is_taken_as_it_is_written_or_refused(cell: str) -> None:
    line = f"{cell},churn,2026-01-14T09:30:00Z,app_1,\n"
    assert problems(HEADER + line) == [(2, "key")]


@pytest.mark.django_db
def test_one_bad_line_keeps_all_others_out() -> None:
    with pytest.raises(BadFile):
        upload(GOOD + "cb-3,luck,2026-01-14T09:30:00Z,app_1,\n")
    upload(GOOD)
    with pytest.raises(BadFile) as caught:
        upload(
            HEADER
            + "\ncb-9,churn,2026-01-14T09:30:00Z,app_1,\ncb-1,churn,2026-01-14T09:30:00Z,app_1,\n"
        )
    assert [(p.line, p.column) for p in caught.value.problems] == [(4, "key")]
    assert Outcome.objects.count() == 2


def test_a_file_over_its_bounds_is_refused(monkeypatch) -> None:
    assert problems(b"x" * (csv_file.LARGEST + 1)) == [(0, "")]
    monkeypatch.setattr(csv_file.reports, "MOST", 1)
    assert problems(GOOD) == [(0, "")]


@pytest.mark.parametrize(
    "data",
    [
        st.binary(max_size=300),
        st.text(max_size=300).map(lambda t: (HEADER + t).encode("utf-8", "replace")),
    ],
)
def test_any_bytes_are_read_or_refused_with_a_sentence(data) -> None:
    @given(data)
    @settings(max_examples=200)
    def check(found: bytes) -> None:
        try:
            assert csv_file.parse_reports(found)
        except Refused as error:
            assert str(error).endswith(".")

    check()
