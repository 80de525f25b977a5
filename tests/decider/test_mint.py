"""Making API keys by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from decider.identity import api_keys, mint


def test_a_minted_key_is_printed_and_names_its_app(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secrets").write_text("ab" * 32)
    assert mint.main(["--secrets", str(tmp_path / "secrets"), "shop"]) == 0
    key = capsys.readouterr().out.strip()
    assert api_keys.app_of_key(key, [b"\xab" * 32]) == "shop"


def test_what_is_wrong_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mint.main(["--secrets", str(tmp_path / "none"), "shop"]) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "secrets").write_text("ab" * 32)
    assert mint.main(["--secrets", str(tmp_path / "secrets"), "a b"]) == 2
    assert "app id" in capsys.readouterr().err
