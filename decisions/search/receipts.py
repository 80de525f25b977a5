"""Opening receipts of this installation, and finding the apps that they are about."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.conf import settings

from control.deciders import keys
from control.models import App
from decider.refusal import receipt as receipts
from decider.refusal.receipt import Key, Receipt
from decisions.search import lookup


@dataclass(frozen=True, slots=True)
class Opened:
    """A receipt whose seal holds, with the app it is about."""

    receipt: Receipt
    app: str
    """Id of the app; "" when no known app has the receipt's pseudonym."""


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A receipt whose seal holds, with the key that sealed it."""

    receipt: Receipt
    sealer: Key

    @property
    def decision(self) -> uuid.UUID:
        return uuid.UUID(bytes=self.receipt.decision)

    def is_of(self, app: str) -> bool:
        """Return whether this app is the one that the receipt's pseudonym stands for."""
        return self.sealer.pseudonym(app) == self.receipt.app


def load_sealers() -> dict[bytes, Key]:
    """Return the keys that this installation's receipts were sealed with, by their id. Raise
    KeysError when they cannot be read.
    """
    return receipts.keys_of(keys.load_token_keys(settings.SLUICE_KEYS))


def unseal(text: str, sealers: Mapping[bytes, Key]) -> Unsealed:
    """Open a receipt. Raise ReceiptError when it was changed or sealed elsewhere."""
    return Unsealed(receipts.open_sealed(text, sealers), receipts.key_of(text, sealers))


def open_receipt(text: str) -> Opened:
    """Open a receipt of this installation and find its app: first that of its stored decision, then
    the registered apps.

    Raise ReceiptError when it was changed or sealed elsewhere, KeysError when the keys cannot be
    read.
    """
    found = unseal(text, load_sealers())
    stored = lookup.find(found.decision)
    if stored is not None and found.is_of(stored.app):
        return Opened(found.receipt, stored.app)
    return Opened(found.receipt, registered([found]).get(found.receipt.app, ""))


def registered(wanted: Iterable[Unsealed]) -> dict[str, str]:
    """Return the registered apps behind the pseudonyms of receipts, by pseudonym."""
    by_sealer: dict[bytes, tuple[Key, set[str]]] = {}
    for one in wanted:
        by_sealer.setdefault(one.sealer.id, (one.sealer, set()))[1].add(one.receipt.app)
    if not by_sealer:
        return {}
    found: dict[str, str] = {}
    # A pseudonym is a keyed hash, so each app is tried, once for all receipts of a key.
    for app in App.objects.values_list("id", flat=True).iterator():
        for sealer, names in by_sealer.values():
            if (name := sealer.pseudonym(app)) in names:
                found[name] = app
    return found
