from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from control.deciders import keys
from control.errors import KeysError
from decider.contracts.sealed import outcomes


def test_keys_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    keys.ensure(folder)
    first = {path.name: path.read_text() for path in folder.iterdir()}
    keys.ensure(folder)
    assert sorted(first) == [
        *("config.key", "config.pub", "installation.id", "outcomes.key", "token.key")
    ]
    assert first == {path.name: path.read_text() for path in folder.iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_what_is_signed_with_the_private_key_verifies_with_the_public_one(tmp_path: Path) -> None:
    keys.ensure(tmp_path)
    (key,) = keys.load_public_keys(tmp_path).values()
    key.verify(keys.load_signing_key(tmp_path).sign(b"document"), b"document")
    assert len(keys.load_token_key(tmp_path)) == 32


def test_processes_that_start_at_once_agree_on_the_keys(tmp_path: Path) -> None:
    tmp_path = tmp_path / "fresh"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: keys.ensure(tmp_path), range(16)))
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("config.key", "not hex", "not hexadecimal"),
        ("token.key", "abcd", "2 bytes, not 32"),
        ("config.pub", "00" * 32, "does not belong"),
    ],
)
def test_a_broken_key_file_is_named_in_a_sentence(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    keys.ensure(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(KeysError, match=says):
        keys.ensure(tmp_path)


def test_a_missing_key_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"token.key is missing .* `manage.py seed` makes it"):
        keys.load_token_key(tmp_path)


def test_a_token_key_that_was_replaced_is_still_known(tmp_path: Path) -> None:
    keys.ensure(tmp_path)
    present, before = keys.load_token_key(tmp_path), bytes(range(32))
    assert keys.load_token_keys(tmp_path) == [present]
    (tmp_path / "token.old").write_text(before.hex() + "\n")
    assert keys.load_token_keys(tmp_path) == [present, before]


def test_the_key_of_outcomes_follows_from_the_token_key(tmp_path: Path) -> None:
    keys.ensure(tmp_path)
    before = outcomes.read_key(tmp_path / outcomes.KEY_FILE)
    assert before == outcomes.derive_key(keys.load_token_key(tmp_path))
    (tmp_path / "token.key").write_text("ab" * 32)
    keys.ensure(tmp_path)
    after = outcomes.read_key(tmp_path / outcomes.KEY_FILE)
    assert after == outcomes.derive_key(b"\xab" * 32) != before
    assert stat.S_IMODE((tmp_path / outcomes.KEY_FILE).stat().st_mode) == 0o600
