"""Outcomes as they lie in their stream: an entry has them in field `b`, and their seal in `s`.

The program beside a gateway makes the seal, with a key of its own that follows from `token.key`:
who has it can tell deciders of outcomes and do nothing else. The seal names who sent an entry,
when, and as which of its run, so that none counts twice. Deciders of before read the field `b`
alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from decider.contracts.config import MALFORMED, Moment
from decider.contracts.sealed import codes
from decider.contracts.sealed.codes import SealError

# The name of the key's file beside the others.
KEY_FILE: Final = "outcomes.key"
# The fields of an entry, as the store names them.
BODY: Final = b"b"
SEAL: Final = b"s"
# Seconds between the sending of an entry and its coming into the store. Chosen: the sender gives
# the store 2 s, and clocks of two machines may differ by some seconds.
LATE_S: Final = 15.0
# Runs that a decider remembers. Chosen: far above the gateways of a region; what a run that is
# forgotten sent is too old to be taken again.
MOST_RUNS: Final = 1_024
# Bytes of a seal. Chosen: several times the longest.
_MOST_SEAL: Final = 1_024
# Bytes of a run's name. Chosen: chance makes no two alike.
_RUN_BYTES: Final = 8
# Bytes of a key, those of BLAKE2b's digest in `codes.derive_key`.
_KEY_BYTES: Final = 32
# At most 16 bytes. The number rises when the meaning of a field changes.
_PURPOSE: Final = b"sluice-outcome-1"


class KeyFileError(Exception):
    """The file of the key cannot be used. The text says why."""


class Sending(msgspec.Struct, array_like=True, frozen=True):
    """What the seal says of an entry."""

    sender: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of the gateway."""
    run: Annotated[bytes, Meta(min_length=1, max_length=_RUN_BYTES)]
    """Name of the sending program's run: two programs may go by one gateway's name."""
    number: Annotated[int, Meta(ge=1, le=2**53)]
    """Counts the entries of the run."""
    at: Moment
    """Unix seconds of the sending."""
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """SHA-256 of the outcomes' bytes."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sending).decode


def derive_key(token_key: bytes) -> bytes:
    """Return the key of a fleet's outcomes."""
    return codes.derive_key(token_key, _PURPOSE)


def read_key(path: Path) -> bytes:
    """Return the key in a file of hexadecimal text. Raise KeyFileError."""
    try:
        if path.stat().st_mode & 0o007:
            raise KeyFileError(f"{path} can be read by everybody; set its mode to 0600")
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise KeyFileError(f"{path} is not hexadecimal text") from error
    if len(key) != _KEY_BYTES:
        raise KeyFileError(f"{path} holds {len(key)} bytes, not {_KEY_BYTES}")
    return key


class Sealer:
    """The maker of one sender's seals."""

    def __init__(self, key: bytes, sender: str) -> None:
        """Begin a run of `sender` (1 to 128 characters)."""
        self._key, self._sender, self._number = key, sender, 0
        self._run = secrets.token_bytes(_RUN_BYTES)

    def seal(self, body: bytes, now: float) -> bytes:
        """Return the seal of outcomes that are sent at `now` (unix seconds)."""
        self._number += 1
        digest = hashlib.sha256(body).digest()
        said = Sending(self._sender, self._run, self._number, now, digest)
        return codes.seal(_encode(said), self._key)


class Checker:
    """The reader of seals, which takes each entry once."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._newest: dict[bytes, int] = {}
        """By run, the number of the last entry that was taken."""

    def check(self, body: bytes, seal: bytes, arrived_at: float) -> None:
        """Raise SealError for outcomes that no gateway's program of this fleet has just sent.
        `arrived_at`: unix seconds at which they came into the store, by its clock.
        """
        try:
            said = _decode(codes.unseal(seal, self._key, _MOST_SEAL))
        except MALFORMED as error:
            raise SealError(f"their seal cannot be read: {error}") from error
        if not hmac.compare_digest(said.digest, hashlib.sha256(body).digest()):
            raise SealError("their seal is of other outcomes")
        if abs(arrived_at - said.at) > LATE_S:
            raise SealError(
                f"{said.sender} sent them {arrived_at - said.at:,.0f} s before they came: a clock"
                " is wrong, or old ones were put back"
            )
        if said.number <= self._newest.get(said.run, 0):
            raise SealError(f"{said.sender} sent them before, and they were taken")
        self._note(said)

    def _note(self, said: Sending) -> None:
        # the one heard of last stands last; what is forgotten was silent for longest
        self._newest.pop(said.run, None)
        self._newest[said.run] = said.number
        if len(self._newest) > MOST_RUNS:
            del self._newest[next(iter(self._newest))]
