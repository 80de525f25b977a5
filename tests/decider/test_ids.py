"""Decision ids and digests of credentials, in the form in which they are stored and told."""

from __future__ import annotations

import uuid

import pytest

from decider.contracts import ids

NOW = 1_790_000_000.123


def test_an_id_is_a_uuid_of_version_7_with_the_millisecond_in_front() -> None:
    raw = ids.IdSource().one(NOW)
    made = uuid.UUID(bytes=raw)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert int.from_bytes(raw[:6], "big") == 1_790_000_000_123
    assert ids.decision_time(raw) == NOW


def test_ids_grow_also_within_a_millisecond_and_when_the_clock_steps_back() -> None:
    source = ids.IdSource()
    made = [*source.many(5_000, NOW), *source.many(3, NOW - 60)]
    assert sorted(set(made)) == made


def test_a_text_is_read_back_with_and_without_prefix_and_dashes() -> None:
    raw = ids.IdSource().one(NOW)
    plain = uuid.UUID(bytes=raw)
    for text in (ids.format_decision_id(raw), str(plain), plain.hex.upper(), f" dec_{plain} "):
        assert ids.parse_decision_id(text) == raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dec_",
        "dec_" + "0" * 31,
        "dec_" + "f" * 32,
        "app_1",
        str(uuid.UUID(int=4, version=4)),
        "dec_065dfa4b4000" + "7000" + "8" * 16,  # a moment after the year 2191
    ],
)
def test_what_is_not_an_id_or_lies_too_far_ahead_is_none(text: str) -> None:
    assert ids.parse_decision_id(text) is None


def test_a_digest_is_the_one_under_which_credentials_are_stored() -> None:
    """Another digest would find no request that was stored before."""
    assert ids.token_digest(b"k" * 32, "tok_1") == "0dc9ebeefec118edd09a0489c999095c"
    assert ids.token_digest(b"j" * 32, "tok_1") != ids.token_digest(b"k" * 32, "tok_1")
    assert len(ids.token_digest(b"k" * 32, "\udcff")) == 32
