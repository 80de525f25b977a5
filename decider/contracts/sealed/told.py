"""What deciders tell the console, as it lies in the store: heartbeats, acks and answers, sealed.

The stored bytes are the message's fields, as consoles read them before they were sealed, with the
sealed message as the last one. Those consoles ignore what stands behind the fields that they know;
newer ones believe nothing but the sealed one. Each kind has a key of its own, so no message passes
for one of another kind, and each names its node inside the seal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from decider.contracts.config import MALFORMED
from decider.contracts.sealed import codes
from decider.contracts.sealed.codes import SealError
from decider.contracts.store import NODE_TTL_S, Ack, NodeStatus
from decider.contracts.units import span

T = TypeVar("T", bound=msgspec.Struct)

# Seconds by which the clocks of a decider and the console may differ. Chosen: NTP keeps them within
# milliseconds, and a machine that has just started may be some seconds off.
SKEW_S: Final = 15.0
# Seconds after which a heartbeat is an old one that was put back. The store drops it after
# NODE_TTL_S, and clocks may differ.
STALE_S: Final = NODE_TTL_S + SKEW_S


class Unsealed(SealError):
    """A message has no seal: an older decider wrote it, or somebody who has no key."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of message. `purpose`: at most 16 bytes, and its number rises when the meaning of a
    field changes. `most`: bytes of a stored message, both copies.
    """

    form: type[T]
    purpose: bytes
    most: int

    def derive_key(self, token_key: bytes) -> bytes:
        """Return the key of a fleet's messages of this kind."""
        return codes.derive_key(token_key, self.purpose)


# Bytes, chosen: a heartbeat of MOST_SERVICES services with long names, twice; and an ack with the
# longest error, twice.
HEARTBEAT: Final = Kind(NodeStatus, b"sluice-status-1", 1 << 20)
ACK: Final = Kind(Ack, b"sluice-ack-1", 16_384)

_encode = msgspec.msgpack.Encoder().encode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_bytes = msgspec.msgpack.Decoder(bytes).decode


def seal(message: msgspec.Struct, key: bytes) -> bytes:
    """Return a message as bytes for the store. `key`: of its kind (`Kind.derive_key`)."""
    sealed = codes.seal(_encode(message), key)
    return _encode([*msgspec.structs.astuple(message), sealed])


def unseal(data: bytes, kind: Kind[T], keys: Iterable[bytes]) -> T:
    """Return the message that `seal` got, all its values within their ranges. Raise Unsealed for
    one without a seal, SealError for anything else. `keys`: of its kind.
    """
    sealed = _sealed_part(data, kind)
    for key in keys:
        try:
            body = codes.unseal(sealed, key, kind.most)
        except SealError:
            continue
        try:
            return msgspec.msgpack.decode(body, type=kind.form)
        except MALFORMED as error:
            raise SealError(f"it has a value that cannot be: {error}") from error
    raise SealError("its seal is not this fleet's: it has another token.key, or it is forged")


def read_claim(data: bytes, kind: Kind[T]) -> T | None:
    """Return what a message without a seal says, None for what is none. Nobody vouches for it: use
    it to refuse something, never to allow it.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind.form) if len(data) <= kind.most else None
    except MALFORMED:
        return None


def read_heartbeat(data: bytes, node: str, now: float, keys: Iterable[bytes]) -> NodeStatus:
    """Return the heartbeat that lies at a node's place in the store at `now` (unix seconds). Raise
    SealError when it is not believed.
    """
    status = unseal(data, HEARTBEAT, keys)
    _check_node(status.node, node)
    if not -SKEW_S <= (age := now - status.at) <= STALE_S:
        away = f"{span(abs(age))} {'ago' if age > 0 else 'ahead'}"
        raise SealError(
            f"it is dated {away}: its machine's clock is wrong, or an old one was put back"
        )
    return status


def read_ack(data: bytes, node: str, version: int, keys: Iterable[bytes]) -> Ack:
    """Return the ack that lies at a node's place among those of a config version. Raise SealError
    when it is not believed.
    """
    ack = unseal(data, ACK, keys)
    _check_node(ack.node, node)
    if ack.version != version:
        raise SealError("it is for another config version")
    return ack


def _check_node(said: str, node: str) -> None:
    if said != node:
        raise SealError(f"it is one of {said}, put in its place")


def _sealed_part(data: bytes, kind: Kind[T]) -> bytes:
    """Return the last item of a stored message. Raise SealError."""
    if len(data) > kind.most:
        raise SealError(f"it has {len(data):,} bytes, more than {kind.most:,}")
    try:
        parts = _split(data)
    except MALFORMED as error:
        raise SealError("it cannot be read") from error
    try:
        return _decode_bytes(parts[-1])
    except (IndexError, *MALFORMED) as error:
        raise Unsealed("it is not sealed: an older version wrote it, or it is forged") from error
