"""Receipts of this installation, opened."""

from __future__ import annotations

from django.conf import settings

from decider.receipt import Key, Receipt, ReceiptError, keys_of, open_sealed

KEY_FILES = ("token.key", "token.old")
"""The key that receipts are sealed with, and those before it, one a line."""


def opened(text: str) -> Receipt:
    """What a receipt says. Raises ReceiptError, also when this host has no key to open it with."""
    return open_sealed(text, _keys())


def _keys() -> dict[bytes, Key]:
    lines: list[str] = []
    for name in KEY_FILES:
        path = settings.SLUICE_KEYS / name
        if path.exists():
            lines += path.read_text(encoding="ascii").split()
    try:
        return keys_of(bytes.fromhex(line) for line in lines)
    except ValueError as error:
        raise ReceiptError("unknown_key", "The keys on this host cannot be read, so no receipt can be opened here.") from error
