"""API keys: those that begin with their app and end with a check, and those that a table lists.

A key with a check is APP.RANDOM.CHECK. The check is an HMAC of what stands before it, so nobody
without the secret can make a key for another's app, and no table is needed. Such a key cannot be
taken back alone: block its app, or replace the secret. A table lists the SHA-256 of each key: who
reads the file learns no key. Use it for random keys of 128 bits or more, which nobody can guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from decider.identity.errors import CredentialError, IdentityFileError, Why
from decider.identity.settings import read_limited

# Secrets of a file. Chosen: one in use and those before it until their keys are replaced.
MOST_SECRETS = 8
# Bytes of a file of secrets: MOST_SECRETS lines with room for comments.
MOST_SECRETS_BYTES = 65_536
# Bytes of a secret. Chosen: as strong as SHA-256 itself.
LEAST_SECRET = 16
# Hexadecimal digits of a check: 128 bits, which nobody can guess.
CHECK_DIGITS = 32
# Bytes of a table. Chosen: about a million keys, 170 MB in memory.
MOST_TABLE_BYTES = 96 << 20
# Lines of a table that are read at once. Chosen: 1 ms, then decisions in other threads go on.
LINES_AT_ONCE = 256

_app = re.compile(r"[!-+\--~]{1,128}").fullmatch
_digest = re.compile(r"[0-9a-f]{64}").fullmatch


def check_of(secret: bytes, text: str) -> str:
    """Return the check of a key whose part before it is `text`."""
    return hmac.digest(secret, text.encode(), "sha256").hex()[:CHECK_DIGITS]


def mint(secret: bytes, app: str) -> str:
    """Make a new key for an app. Raise ValueError for what is no app id."""
    if _app(app) is None:
        raise ValueError("an app id has 1 to 128 visible ASCII characters and no comma")
    text = f"{app}.{secrets.token_hex(16)}"
    return f"{text}.{check_of(secret, text)}"


def app_of_key(key: str, known: Sequence[bytes]) -> str:
    """Return the app at the beginning of a key whose check is right by one of the secrets. Raise
    CredentialError.
    """
    text, _, check = key.rpartition(".")
    app, separator, _ = text.rpartition(".")
    if not separator or not key.isascii() or _app(app) is None:
        raise CredentialError(Why.MALFORMED)
    # all are tried, so that the time tells nothing of which one it was
    right = [hmac.compare_digest(check_of(secret, text), check) for secret in known]
    if not any(right):
        raise CredentialError(Why.SIGNATURE)
    return app


def read_secrets(path: Path) -> list[bytes]:
    """Return the secrets of a file. Raise IdentityFileError."""
    found = []
    for number, line in _lines(path, MOST_SECRETS_BYTES):
        try:
            found.append(bytes.fromhex(line))
        except ValueError:
            raise IdentityFileError(f"{path}: line {number} is not hexadecimal") from None
        if len(found[-1]) < LEAST_SECRET:
            raise IdentityFileError(f"{path}: line {number} has fewer than {LEAST_SECRET} bytes")
    if not 1 <= len(found) <= MOST_SECRETS:
        raise IdentityFileError(f"{path}: must hold 1 to {MOST_SECRETS} secrets")
    return found


def read_table(path: Path) -> dict[bytes, str]:
    """Return the apps of a table by the digest of their key. Raise IdentityFileError, which names
    the line: half a table would turn customers away.
    """
    found: dict[bytes, str] = {}
    for number, line in _lines(path, MOST_TABLE_BYTES):
        if number % LINES_AT_ONCE == 0:
            time.sleep(0)
        digest, _, app = line.partition(" ")
        if _digest(digest) is None or _app(app := app.strip()) is None:
            raise IdentityFileError(
                f"{path}: line {number} is not a SHA-256 in hexadecimal, a space and an app id"
            )
        if found.setdefault(bytes.fromhex(digest), app) != app:
            raise IdentityFileError(f"{path}: line {number} gives a key to a second app")
    if not found:
        raise IdentityFileError(f"{path}: lists no key")
    return found


def app_in_table(key: str, table: dict[bytes, str]) -> str:
    """Return the app that a table lists for a key. Raise CredentialError."""
    if (app := table.get(hashlib.sha256(key.encode()).digest())) is None:
        raise CredentialError(Why.UNKNOWN)
    return app


def _lines(path: Path, most: int) -> list[tuple[int, str]]:
    """Return number and text of the lines that are neither empty nor comments."""
    try:
        text = read_limited(path, most).decode("ascii")
    except UnicodeDecodeError:
        raise IdentityFileError(f"{path}: is not ASCII") from None
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]
