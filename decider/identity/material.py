"""What credentials are read with: the settings and the contents of the files they name."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from decider.identity import api_keys, jwk
from decider.identity.jwk import Key
from decider.identity.jwt import TokenRules
from decider.identity.settings import IdentitySettings, read_settings


class Material(Struct, frozen=True):
    """One whole reading of the files. It is replaced as a whole, so no request meets two halves."""

    settings: IdentitySettings
    rules: TokenRules | None = None
    keys: tuple[Key, ...] = ()
    secrets: tuple[bytes, ...] = ()
    table: dict[bytes, str] = {}

    def still_trusts(self, thumb: bytes, rules: TokenRules | None) -> bool:
        """Return whether a token that was good by this key and these rules is so by these files."""
        return rules == self.rules and any(key.thumb == thumb for key in self.keys)


def read_material(path: Path) -> Material:
    """Return the settings in `path` and what they name. Raise IdentityFileError."""
    found = read_settings(path)
    rules = None
    if found.jwt:
        rules = TokenRules(found.jwt.issuer, found.jwt.audience, found.jwt.claim)
    return Material(
        found,
        rules,
        tuple(jwk.read_keys(path.parent / found.jwt.keys)) if found.jwt else (),
        tuple(api_keys.read_secrets(path.parent / found.key.secrets)) if found.key else (),
        api_keys.read_table(path.parent / found.table.file) if found.table else {},
    )


def files_of(path: Path, settings: IdentitySettings) -> list[Path]:
    """Return the settings file and all files it names."""
    named = [
        settings.jwt and settings.jwt.keys,
        settings.key and settings.key.secrets,
        settings.table and settings.table.file,
    ]
    return [path, *(path.parent / name for name in named if name)]
