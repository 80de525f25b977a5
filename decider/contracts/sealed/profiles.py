"""Profiles of apps as they lie in the store: sealed, because a profile says what an app may do.

The stored bytes are the profile, as deciders read it before profiles were sealed, with the sealed
profile behind its fields. Those deciders ignore what stands behind the fields that they know; newer
ones believe nothing but the sealed one. Fields that a newer console appends do no harm to either.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from decider.contracts.config import MALFORMED
from decider.contracts.sealed import codes
from decider.contracts.sealed.codes import SealError
from decider.contracts.store import Profile

# Most bytes of a stored profile. Chosen: several times the longest texts that a profile may hold,
# twice.
MOST_BYTES: Final = 8_192
# At most 16 bytes. The number rises when the meaning of a field changes.
_PURPOSE: Final = b"sluice-profile-1"


# Fields in front of the sealed part: those from before profiles were sealed. It stays behind them,
# where deciders look for it, so newer fields are in the sealed part only.
_PLAIN: Final = 10


class ProfileError(Exception):
    """What the store holds is no profile that the console made."""


_encode = msgspec.msgpack.Encoder().encode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_bytes = msgspec.msgpack.Decoder(bytes).decode
_decode = msgspec.msgpack.Decoder(Profile).decode


def derive_key(token_key: bytes) -> bytes:
    """Return the key of a fleet's profiles."""
    return codes.derive_key(token_key, _PURPOSE)


def mark(key: bytes) -> str:
    """Return a name of a key, by which a store filled with profiles of another one is known, or
    with some that have no time.
    """
    return hashlib.sha256(b"dated" + key).hexdigest()[:16]


def seal(profile: Profile, key: bytes) -> bytes:
    """Return a profile as bytes for the store."""
    sealed = codes.seal(_encode(profile), key)
    return _encode([*msgspec.structs.astuple(profile)[:_PLAIN], sealed])


def unseal(data: bytes, key: bytes) -> Profile:
    """Return the profile that `seal` got, all its values within their ranges. Raise ProfileError
    for anything else.
    """
    if len(data) > MOST_BYTES:
        raise ProfileError(f"a profile has {len(data)} bytes, more than {MOST_BYTES}")
    try:
        sealed = _decode_bytes(_split(data)[_PLAIN])
        return _decode(codes.unseal(sealed, key, MOST_BYTES))
    except IndexError as error:
        raise ProfileError("a profile is not believed: it is not sealed") from error
    except MALFORMED as error:
        raise ProfileError(f"a profile cannot be read: {error}") from error
    except SealError as error:
        raise ProfileError(f"a profile is not believed: {error}") from error
