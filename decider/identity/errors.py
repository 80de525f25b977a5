"""Why a credential is not believed. No text here quotes a credential."""

from __future__ import annotations

from enum import StrEnum


class Why(StrEnum):
    """What is wrong with a credential; the label of the metric that counts it."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    NO_APP = "no_app"
    UNKNOWN = "unknown"
    TOO_MANY = "too_many"


class CredentialError(Exception):
    """A credential that names no app."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


class IdentityFileError(Exception):
    """A file of keys, of apps or of settings that cannot be used; the text names file and line."""
