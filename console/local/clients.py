"""The keys with which the demo's clients sign their tokens."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from control.errors import KeysError
from learning.traffic import tokens
from learning.traffic.tokens import Signer


def ensure_clients_keys() -> Path:
    """Make the clients' keys unless they are there; return the path of their JWK Set, which the
    gateway reads. Raise KeysError.
    """
    try:
        return tokens.ensure_keys(settings.SLUICE_KEYS)
    except (OSError, ValueError) as error:
        raise KeysError(f"The clients' keys cannot be made or read: {error}.") from error


def clients_signer() -> Signer:
    """Return the maker of the demo's tokens. Raise KeysError."""
    ensure_clients_keys()
    return Signer(settings.SLUICE_KEYS / tokens.KEY_FILE)
