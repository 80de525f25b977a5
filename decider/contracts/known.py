"""How the table of known apps travels to deciders: signed snapshots, and signed changes after them.

A snapshot names its parts by their digests, so that one short signature covers a million entries
and each part can be checked by itself. Each change names the version before it, so a decider
notices one that is lost or comes twice. Only hashes travel. They are made with the fleet's key, and
a mark in each message tells which key that was.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct
from numpy.typing import NDArray

from decider.contracts.config import MALFORMED, Signed, key_id

# Bytes of one entry: two hashes and a tier.
ENTRY_BYTES = 8 + 8 + 1
# Entries in one part. Chosen: half a megabyte, which a decider reads and checks in a millisecond.
# Beside the tables, a decider holds no more than one part of a snapshot in memory.
PART_ENTRIES = 32_768
# Entries in one message of changes. Chosen: a decider applies them in less than a millisecond.
CHANGES_ENTRIES = 1_000
# Signed in front of the payload, so that a signed config document or command never passes for a
# table.
_DOMAIN = b"sluice-known-apps\x00"

# Versions are unix milliseconds, or one more than the version before. Chosen: so they go on growing
# even after the store lost its data; 2^53 lies far in the future.
Version = Annotated[int, Meta(ge=1, le=2**53)]
Mark = Annotated[bytes, Meta(min_length=8, max_length=8)]

# Hash of the app id, hash of the tenant id, tier: (n,) each.
Entries = tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]


class KnownError(Exception):
    """A message or part of the table of known apps that must not be used: it is not signed with a
    known key, is damaged or missing, or does not fit what the decider holds.
    """


class Snapshot(Struct, array_like=True, frozen=True, tag="snapshot"):
    """The whole table: all entries, sorted by hash, in parts."""

    version: Version
    config_version: Annotated[int, Meta(ge=0)]
    """The config document whose tenants are in it."""
    mark: Mark
    """Tells which key the hashes were made with (`text_hash.TextHash.mark`)."""
    # 64 parts hold more than `known_apps.MOST_ENTRIES`
    parts: Annotated[list[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]], Meta(max_length=64)]
    """SHA-256 of each part, in order."""


class Changes(Struct, array_like=True, frozen=True, tag="changes"):
    """Entries to put into the table, or to take out of it (tier `known_apps.REMOVED`)."""

    version: Version
    previous: Version
    """The version that they change."""
    config_version: Annotated[int, Meta(ge=0)]
    mark: Mark
    since: Annotated[int, Meta(ge=1)]
    """Number of messages of changes since the snapshot, this one included."""
    rows: Annotated[bytes, Meta(max_length=ENTRY_BYTES * CHANGES_ENTRIES)]
    """The entries, as in a part."""


Message = Snapshot | Changes

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def sign(message: Message, key: Ed25519PrivateKey) -> bytes:
    """Return the message as bytes to publish: msgpack of `Signed`."""
    payload = _encode(message)
    return msgspec.msgpack.encode(
        Signed(payload, key.sign(_DOMAIN + payload), key_id(key.public_key()))
    )


def verify(data: bytes, keys: dict[str, Ed25519PublicKey]) -> Message:
    """Check a message's signature and form, and return it.

    `keys`: public keys by key id. Raises KnownError that says what failed.
    """
    try:
        signed = msgspec.msgpack.decode(data, type=Signed)
    except MALFORMED as error:
        raise KnownError(f"not a signed message: {error}") from error
    if (key := keys.get(signed.key_id)) is None:
        raise KnownError(f"signed by an unknown key {signed.key_id[:16]!r}")
    try:
        key.verify(signed.signature, _DOMAIN + signed.payload)
        message: Message = _decode(signed.payload)
    except InvalidSignature as error:
        raise KnownError("the signature does not match") from error
    except MALFORMED as error:
        raise KnownError(f"malformed message: {error}") from error
    return message


def pack(entries: Entries) -> bytes:
    """Return entries as bytes, one column after another, little-endian."""
    key, tenant, tier = entries
    return key.astype("<u8").tobytes() + tenant.astype("<i8").tobytes() + tier.tobytes()


def unpack(rows: bytes) -> Entries:
    """Return the entries in bytes that `pack` made. Raises KnownError for a part of an entry."""
    key, tenant, tier = _columns(rows)
    return key.astype(np.uint64), tenant.astype(np.int64), tier.copy()


def _columns(rows: bytes | memoryview) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return views of the columns in packed entries."""
    count, rest = divmod(len(rows), ENTRY_BYTES)
    if rest:
        raise KnownError(f"{len(rows)} bytes are not whole entries of {ENTRY_BYTES} bytes")
    return (
        np.frombuffer(rows, "<u8", count),
        np.frombuffer(rows, "<i8", count, 8 * count),
        np.frombuffer(rows, np.uint8, count, 16 * count),
    )


def split(entries: Entries) -> dict[str, bytes]:
    """Return the parts of a table by their digests, in order."""
    key, tenant, tier = entries
    parts: dict[str, bytes] = {}
    for at in range(0, len(key), PART_ENTRIES):
        to = at + PART_ENTRIES
        data = pack((key[at:to], tenant[at:to], tier[at:to]))
        parts[digest_of(data)] = data
    return parts


def open_part(digest: str, data: bytes | memoryview) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return views of the columns of one part. Raises KnownError when it is not the part that a
    snapshot names by this digest.
    """
    if len(data) > ENTRY_BYTES * PART_ENTRIES or digest_of(data) != digest:
        raise KnownError(f"part {digest[:12]} is too large or does not match its digest")
    return _columns(data)


def digest_of(data: bytes | memoryview) -> str:
    """Return the name of a part, its SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
