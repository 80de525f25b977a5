"""What the fleet's page and the strip read of the config in the store."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import config, defaults
from monitoring import fleet


def test_a_document_of_either_key_is_read_while_keys_are_rotated(settings, tmp_path: Path) -> None:
    settings.SLUICE_KEYS = tmp_path
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    lines = [key.public_key().public_bytes_raw().hex() for key in (old, new)]
    (tmp_path / "config.pub").write_text("\n".join(lines) + "\n")
    for key in (old, new):
        found, problem = fleet._document(config.sign(defaults.config(7, 1.0), key))
        assert (found and found.version, problem) == (7, "")
