"""Seals what tests write in the place of deciders and gateways, with the installation's key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from django.conf import settings

from decider.contracts.sealed import outcomes as sealing
from decider.contracts.sealed import told
from decider.contracts.sealed.told import Kind
from decider.node import commands

KINDS: dict[type, Kind] = {kind.form: kind for kind in (told.HEARTBEAT, told.ACK, commands.ANSWER)}


def token_key(keys: Path | None = None) -> bytes:
    """The token key in a folder of keys, by default that of the installation under test."""
    return bytes.fromhex(((keys or Path(settings.SLUICE_KEYS)) / "token.key").read_text().strip())


def sealed(message: msgspec.Struct, keys: Path | None = None) -> bytes:
    """A heartbeat, an ack or an answer as a decider of that installation writes it."""
    return told.seal(message, KINDS[type(message)].derive_key(token_key(keys)))


def entry(outcomes: Sequence[object], keys: Path) -> dict[str, bytes]:
    """An entry of outcomes as a program beside a gateway that has just started sends it."""
    now, body = time.time(), msgspec.msgpack.encode(outcomes)
    key = sealing.read_key(keys / sealing.KEY_FILE)
    return {"b": body, "s": sealing.Sealer(key, "edge").seal(body, now)}
