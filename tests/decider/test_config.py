"""A config document that is not one is refused with a sentence, whatever its bytes."""

import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts import config, defaults

KEY = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"k")
GOOD = config.sign(defaults.config(7, time.time()), KEY)
TRUSTED = {msgspec.msgpack.decode(GOOD, type=config.Signed).key_id: KEY.public_key()}


def signed(payload: bytes) -> bytes:
    made = msgspec.msgpack.decode(GOOD, type=config.Signed)
    return msgspec.msgpack.encode(
        msgspec.structs.replace(made, payload=payload, signature=KEY.sign(payload))
    )


def test_a_document_that_was_signed_is_read_back() -> None:
    assert config.verify(GOOD, TRUSTED).version == 7


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xa3\xff\xfe\xfd",
        b"\x91" * 5_000,
        b"\xc1",
        msgspec.msgpack.encode({"version": "7"}),
        GOOD,
    ],
    ids=["empty", "not UTF-8", "nested", "reserved", "typed wrong", "signed twice"],
)
def test_what_was_signed_and_is_no_document_is_refused(payload: bytes) -> None:
    with pytest.raises(config.ConfigError, match="malformed config document"):
        config.verify(signed(payload), TRUSTED)


@given(
    st.binary(max_size=200)
    | st.integers(0, len(GOOD) - 1).map(lambda k: GOOD[:k] + bytes([GOOD[k] ^ 1]) + GOOD[k + 1 :])
)
def test_no_byte_can_be_changed(data: bytes) -> None:
    with pytest.raises(config.ConfigError):
        config.verify(data, TRUSTED)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], False),
        ([None], True),
        ([1_000.5], True),
        ([1_000.0], False),  # a switch ends at its `until`, not after it
        ([999.0], False),
        ([999.0, None], True),
        ([2_000.0, 999.0], True),
    ],
)
def test_a_switch_is_engaged_until_its_latest_end(ends: list[float | None], expected: bool) -> None:
    document = msgspec.structs.replace(
        defaults.config(7, 0.0), switches=[config.Switch(config.ALL_ML, end) for end in ends]
    )
    assert config.engaged(document, config.ALL_ML, 1_000.0) is expected
    assert bool(config.in_force(document.switches, 1_000.0)) is expected
    assert not config.engaged(document, config.OBSERVE_ONLY, 1_000.0)
