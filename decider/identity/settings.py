"""The settings file of `--identity`: how a decider reads the app from a credential. It is TOML,
with paths relative to the file; examples/gateway/identity.toml shows all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from decider.identity.errors import IdentityFileError

# Bytes. Chosen: the example with its comments has 2 kB. A mistaken path should not be read whole.
MOST_BYTES = 65_536
_Text = Annotated[str, Meta(min_length=1, max_length=512)]
# `authorization`, or a header of the API's own: none that says something else in a check.
_Header = Annotated[
    str,
    Meta(
        pattern=r"^(?:authorization|x-(?!sluice-|forwarded-|original-|envoy-|request-id$)[a-z0-9-]{1,60})$"
    ),
]


class JwtSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Signed tokens (RFC 7519) of one issuer."""

    keys: _Text
    """File with the issuer's public keys, a JWK Set (RFC 7517)."""
    issuer: _Text
    audience: _Text
    claim: _Text = "sub"
    """Claim that names the app."""


class KeySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """API keys that begin with their app and end with a check: APP.RANDOM.CHECK."""

    secrets: _Text
    """File with the secrets that checks are made with, in hexadecimal, the newest first."""


class TableSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Opaque API keys, each listed with its app."""

    file: _Text
    """File of lines "SHA-256 of the key, in hexadecimal" and "app"."""


class IdentitySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How credentials are read. At least one of the three kinds is there."""

    header: _Header = "authorization"
    """Header of the check that holds the credential."""
    without: Literal["refuse", "source"] = "refuse"
    """What a request without a credential gets: 401, or a decision as an unknown app that is named
    after its address.
    """
    jwt: JwtSettings | None = None
    key: KeySettings | None = None
    table: TableSettings | None = None


def read_settings(path: Path) -> IdentitySettings:
    """Return the settings in a file. Raise IdentityFileError, which says what to correct."""
    try:
        text = read_limited(path, MOST_BYTES)
        found = msgspec.toml.decode(text, type=IdentitySettings)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise IdentityFileError(f"{path}: {error}") from error
    if not (found.jwt or found.key or found.table):
        raise IdentityFileError(f"{path}: set at least one of [jwt], [key] and [table]")
    return found


def read_limited(path: Path, most: int) -> bytes:
    """Return a file's bytes. Raise IdentityFileError when it cannot be read or has more than `most`
    bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise IdentityFileError(f"{path}: {error.strerror or error}") from error
    if len(data) > most:
        raise IdentityFileError(f"{path}: has more than {most:,} bytes")
    return data
