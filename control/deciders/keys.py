"""The installation's keys: the Ed25519 pair that signs config documents, and the key that digests
credentials.

Files of hexadecimal text in one directory: `config.key` (private, 32 bytes), `config.pub` (public,
32 bytes) and `token.key` (32 bytes). A decider's host needs `config.pub` and `token.key` only, and
a gateway's `outcomes.key`, which follows from `token.key` and is made anew with it. When
`token.key` is replaced, the old one may go into `token.old`, so that receipts made with it can
still be read and deciders that still run with it are believed.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from control.errors import KeysError
from decider.contracts import config
from decider.contracts.files import create_atomically
from decider.contracts.sealed import outcomes

log = logging.getLogger(__name__)

# Bytes of an Ed25519 key (RFC 8032), of a token key, and of an installation's number.
KEY_BYTES = 32
# File of the number that tells this installation from others, also from a copy with other keys.
INSTALLATION = "installation.id"


def ensure(directory: Path) -> None:
    """Create the keys that are missing and leave the others as they are. Several processes may call
    this at once.

    Raise KeysError when the directory cannot be written or a present file is not a key.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create(directory / "config.key", Ed25519PrivateKey.generate().private_bytes_raw())
        # read from the file, as another process may have created the key first
        _create(
            directory / "config.pub", load_signing_key(directory).public_key().public_bytes_raw()
        )
        _create(directory / "token.key", secrets.token_bytes(KEY_BYTES))
        _create(directory / INSTALLATION, secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        raise KeysError(
            f"The keys cannot be written to {directory}: {error.strerror or error}."
        ) from error
    # checked here: otherwise a wrong pair would show only when deciders refuse every document
    _check_pair(directory)
    _follow(directory / outcomes.KEY_FILE, outcomes.derive_key(load_token_key(directory)))


def load_signing_key(directory: Path) -> Ed25519PrivateKey:
    """Return the private key that signs config documents. Raise KeysError."""
    return Ed25519PrivateKey.from_private_bytes(_read(directory / "config.key"))


def load_public_keys(directory: Path) -> dict[str, Ed25519PublicKey]:
    """Return the keys that a document may be signed with, by their id
    (`decider.contracts.config.key_id`): one per line, so that keys can be rotated. Raise KeysError.
    """
    found = [Ed25519PublicKey.from_public_bytes(raw) for raw in _read_all(directory / "config.pub")]
    return {config.key_id(key): key for key in found}


def load_token_key(directory: Path) -> bytes:
    """Return the key that credentials are digested with (`decider.contracts.ids.token_digest`), 32
    bytes. Raise KeysError.
    """
    return _read(directory / "token.key")


def load_token_keys(directory: Path) -> list[bytes]:
    """Return the token key, then the ones before it (`token.old`, one per line), newest first. Old
    receipts were sealed with the older keys. Raise KeysError.
    """
    before = directory / "token.old"
    return [load_token_key(directory), *(_read_all(before) if before.exists() else [])]


def load_installation(directory: Path) -> str:
    """Return the random number of this installation, in hexadecimal; make it if there is none.
    Raise KeysError.
    """
    path = directory / INSTALLATION
    try:
        # an earlier version made none
        _create(path, secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        raise KeysError(
            f"{INSTALLATION} cannot be kept in {directory}: {error.strerror or error}."
        ) from error
    return _read(path).hex()


def _check_pair(directory: Path) -> None:
    public = load_signing_key(directory).public_key()
    if config.key_id(public) not in load_public_keys(directory):
        raise KeysError(
            f"config.pub does not belong to config.key in {directory}. Delete config.pub;"
            " `manage.py seed` makes it again."
        )
    load_token_key(directory)


def _create(path: Path, raw: bytes) -> None:
    """Write a new key file that only its owner may read; keep one that is there already."""
    if not path.exists():
        create_atomically(path, f"{raw.hex()}\n".encode("ascii"), mode=0o600)


def _follow(path: Path, raw: bytes) -> None:
    """Bring the file of a key that follows from another one up to date. Log a directory that cannot
    be written: all but a gateway's feedback program do without this file.
    """
    text = f"{raw.hex()}\n".encode("ascii")
    try:
        if path.exists():
            if path.read_bytes() == text:
                return
            # of a token key that was replaced
            path.unlink(missing_ok=True)
        create_atomically(path, text, mode=0o600)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror or error)


def _read(path: Path) -> bytes:
    return _read_all(path)[0]


def _read_all(path: Path) -> list[bytes]:
    """Return the keys of a file, one per line, at least one. Raise KeysError."""
    try:
        found = [bytes.fromhex(line) for line in path.read_text(encoding="ascii").split()]
    except FileNotFoundError as error:
        raise KeysError(
            f"{path.name} is missing in {path.parent}. `manage.py seed` makes it."
        ) from error
    except OSError as error:
        raise KeysError(
            f"{path.name} in {path.parent} cannot be read: {error.strerror or error}."
        ) from error
    except ValueError as error:
        raise KeysError(f"{path.name} in {path.parent} is not hexadecimal text.") from error
    for raw in found or [b""]:
        if len(raw) != KEY_BYTES:
            raise KeysError(
                f"{path.name} in {path.parent} holds {len(raw)} bytes, not {KEY_BYTES}."
            )
    return found
