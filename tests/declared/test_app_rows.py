"""Rows of an import are taken as written or refused, each with its line."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.directory import app_rows
from control.directory.app_rows import BadRows

HEADER = "id,tenant,tier,name,verified,created_at,cohort_prior\n"


def read(text: str | bytes, form: app_rows.Form = "csv"):
    raw = text.encode() if isinstance(text, str) else text
    return app_rows.read(raw.splitlines(keepends=True), form)


def refused(text: str | bytes, form: app_rows.Form = "csv") -> list[str]:
    with pytest.raises(BadRows) as raised:
        read(text, form)
    return [str(fault) for fault in raised.value.faults]


def test_both_forms_say_the_same() -> None:
    one = read(HEADER + 'a1,acme,free,"A, one",true,2026-01-31T12:00:00+01:00,0.05\n')
    row = {"id": "a1", "tenant": "acme", "tier": "free", "name": "A, one", "verified": True}
    row |= {"created_at": "2026-01-31T12:00:00+01:00", "cohort_prior": 0.05}
    assert one["a1"][1] == read(json.dumps(row), "jsonl")["a1"][1]
    assert one["a1"][1].created_at == datetime(2026, 1, 31, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ("a 1,t,free,,,,", "line 2: id: write 1 to 128 visible ASCII"),
        (",t,free,,,,", "line 2: id is missing"),
        ("a,t,Free,,,,", "line 2: tier: write free, standard, premium or enterprise"),
        ("a,t,1,,,,", "tier: write free"),
        ("a,t,free,,yes,,", "verified: write true or false"),
        ("a,t,free,,1,,", "verified: write true or false"),
        ("a,t,free,,,2026-01-31,", "created_at: write a time with its zone"),
        ("a,t,free,,,2026-01-31T12:00:00,", "created_at: write a time with its zone"),
        ("a,t,free,,,1960-01-31T12:00:00Z,", "write a time from 1970"),
        ("a,t,free,,,,1e-3", "cohort_prior: write a number from 0 to 1"),
        ("a,t,free,,,,nan", "cohort_prior: write a number"),
        ("a,t,free,,,,1.01", "cohort_prior: write a number"),
        ("a,t,free,\x01,,,", "name holds a control character"),
        (f"a,t,free,{'x' * 201},,,", "name: write 1 to 200 characters"),
        ("a,t", "this has 2 values, and the first line names 7 columns"),
        ('a,t,free,"x,,,', "cannot be read as CSV"),
        ("a,t,free,,,,\na,t,free,,,,", "line 3: a stands in line 2 already"),
        (f"a,t,free,{'x' * 20_000},,,", "bytes: write at most 10,000"),
    ],
)
def test_a_wrong_line_says_what_would_be_right(cells: str, says: str) -> None:
    assert says in refused(HEADER + cells + "\n")[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "The file holds no app."),
        (HEADER.encode(), "The file holds no app."),
        (b"id;tenant\n1;2\n", "separated by semicolons: write commas"),
        (b"id\ttenant\n", "separated by tabs"),
        (b"id,colour\n", "there is no column 'colour'"),
        (b"id,id\n", "the column id stands here twice"),
        (b"tenant,tier\n", "the column id is missing"),
        (b"\xff\xfei\x00d\x00\n", "cannot be read as CSV in UTF-8"),
        (b"PK\x03\x04\x00\n", "there is no column"),
    ],
)
def test_a_file_that_is_no_such_table_is_a_sentence(text: bytes, says: str) -> None:
    assert says in refused(text)[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[]", "write an object on each line"),
        (b"{", "this is no JSON"),
        (b'{"id": 1}', "id: write 1 to 128"),
        (b'{"tenant": "t"}', "id is missing"),
        (b'{"id": "a", "colour": 1}', "there is no field `colour`: there are id, tenant"),
        (b'{"id": "a", "verified": "true"}', "verified: write true or false"),
        (b'{"id": "a", "cohort_prior": NaN}', "this is no JSON"),
        (b'{"id": "a", "name": "\\u0000"}', "control character"),
        (b"\xff", "this is no JSON"),
        (b"[" * 9_999, "write an object"),
    ],
)
def test_a_wrong_json_line_says_what_would_be_right(line: bytes, says: str) -> None:
    assert says in refused(b'{"id": "ok"}\n\n' + line, "jsonl")[0]
    assert refused(b'{"id": "ok"}\n\n' + line, "jsonl")[0].startswith("line 3: ")


def test_a_file_of_a_spreadsheet_with_its_mark_is_read() -> None:
    assert list(read(b"\xef\xbb\xbf" + HEADER.encode() + b"a,t,free,,,,\r\n")) == ["a"]


def test_all_wrong_lines_are_counted_and_the_first_are_told() -> None:
    with pytest.raises(BadRows) as raised:
        read(HEADER + "a b,t,free,,,,\n" * 120)
    assert (len(raised.value.faults), raised.value.more) == (50, 70)
    assert str(raised.value).endswith("and 70 more")


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(st.lists(names, min_size=1, max_size=5))
def test_a_name_that_a_csv_writer_quotes_is_read_as_it_was(wanted: list[str]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "name"])
    writer.writerows([f"a{n}", name] for n, name in enumerate(wanted))
    assert [row.name for _, row in read(out.getvalue()).values()] == wanted


@given(st.binary(max_size=300), st.sampled_from(["csv", "jsonl"]))
def test_any_bytes_are_read_or_refused_with_lines(raw: bytes, form: app_rows.Form) -> None:
    try:
        read(raw, form)
    except BadRows as error:
        assert error.faults
