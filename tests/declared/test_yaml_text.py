"""YAML is read without guesses, and what is written reads back as the same."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from control.declared import yaml_text
from control.declared.yaml_text import DeclarationError

# without surrogates, which no file in UTF-8 holds
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = st.sampled_from(
    [
        "no",
        "on",
        "Y",
        "1e3",
        "0x1f",
        "012",
        "1_000",
        "12:30",
        "2024-01-01",
        "~",
        "null",
        ".inf",
        "-",
    ]
)
numbers = st.integers(-(10**12), 10**12) | st.floats(1e-12, 1e12)
plain = numbers | st.booleans() | texts | words
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4)
        | st.dictionaries(texts | words, inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


def written(value: object) -> str:
    return "\n".join(yaml_text.write(value)) + "\n"


def faults(text: str) -> list[str]:
    with pytest.raises(DeclarationError) as raised:
        yaml_text.read(text)
    return [str(fault) for fault in raised.value.faults]


@given(st.dictionaries(texts | words, values, min_size=1, max_size=5))
def test_what_is_written_reads_back_as_the_same(value: dict[str, object]) -> None:
    found = yaml_text.read(written(value)).value
    assert found == value
    # and other readers of YAML agree, but for the form of a whole number
    assert yaml.safe_load(written(value)) == value


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("no", 'write false, or "no"'),
        ("On", 'write true, or "On"'),
        ("TRUE", 'write true, or "TRUE"'),
        ("1e3", "in digits"),
        ("+1", "in digits"),
        ("012", "in digits"),
        ("0x10", "in digits"),
        ("1_000", "in digits"),
        (".5", "in digits"),
        (".inf", "in digits"),
        ("12:30", "in digits"),
        ("2024-01-01", "is a date"),
        ("~", "no value here"),
        ("null", "no value here"),
        ("", "no value here"),
    ],
)
def test_a_word_that_readers_disagree_about_is_a_fault_at_its_place(word: str, says: str) -> None:
    (said,) = faults(f"a:\n  b: {word}\n")
    assert said.startswith("line 2, column ") and says in said
    assert yaml_text.read(f'a: "{word}"').value == {"a": word}


def test_what_is_clear_is_taken_as_it_is_written() -> None:
    text = "a: [1, -2, 0.5, true, false, v2/orders, 'no', 10.0.0.1, 1.2.3]"
    assert yaml_text.read(text).value == {
        "a": [1, -2, 0.5, True, False, "v2/orders", "no", "10.0.0.1", "1.2.3"]
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x 1", "line 1, column 4: `&x` names a part"),
        ("a: &x [1]\nb: *x", "`&x` names a part"),
        ("a: *x", "`*x` repeats another part"),
        ("a: !!python/object:os.system 1", "gives a type"),
        ("a: !secret 1", "gives a type"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: `a` stands here again, after line 1"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document"),
        ("a: [1", "this is not YAML"),
        ("a: b: c", "this is not YAML"),
        ("a:\n\t- 1", "this is not YAML"),
        ("a: \0", "this is not YAML"),
        ("? [a]\n: 1", "a key must be a word"),
        ("? {a: 1}\n: 1", "a key must be a word"),
        ("[" * 100, "nested more than"),
        ("a: '" + "x" * yaml_text.MOST_BYTES + "'", "more than 2,000,000 bytes"),
    ],
)
def test_what_makes_no_declaration_clearer_is_refused(text: str, says: str) -> None:
    assert says in faults(text)[0]


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_read_or_refused_with_places(text: str) -> None:
    try:
        yaml_text.read(text)
    except DeclarationError as error:
        assert error.faults
        assert all(fault.line >= 1 and fault.column >= 1 for fault in error.faults)


def test_at_most_a_screen_of_faults_is_told_and_how_many_there_are() -> None:
    with pytest.raises(DeclarationError) as raised:
        yaml_text.read("".join(f"k{n}: no\n" for n in range(50)))
    assert len(raised.value.faults) == yaml_text.MOST_FAULTS
    assert str(raised.value).endswith("and 30 more")


def test_reading_takes_time_in_proportion_to_the_length() -> None:
    def cpu_time(count: int) -> float:
        text = "".join(f"k{n}: [1e{n}, no, {'9' * 60}x]\n" for n in range(count))
        began = time.process_time()
        with pytest.raises(DeclarationError):
            yaml_text.read(text)
        return time.process_time() - began

    cpu_time(1_000)
    assert cpu_time(8_000) < 24 * cpu_time(2_000)
