"""Receipts, which a refused client may show to support. A receipt is sealed: nobody can change it,
and only the installation can read it.

A receipt is base64url text (RFC 4648, section 5, no padding) of: version (1 byte), key id (4),
decision id (16), and a sealed part under ChaCha20-Poly1305 (RFC 8439). The nonce is the last 12
bytes of the decision id, so no nonce is used twice. The seal also authenticates version, key id and
decision id. The sealed part holds time, action, stage, machine reason, wait, config version,
digests of model and app, and reason codes. A receipt holds no app id, no credential and no score.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from decider.contracts.vocabulary import Action, Reason, Stage

HEADER = "sluice-receipt"
# Characters of a receipt at most. Chosen: it travels in a response header and gets pasted into
# support forms; most receipts have under 150.
MAX_TEXT = 300
# Model: the 12 hex digits by which the console shows a model. App: 64 bits, so that no two of a
# million apps share a pseudonym (odds below 1 in 10 million).
MODEL_BYTES, APP_BYTES = 6, 8
# The form of the bytes that follow. Raise it with every change of _HEAD or _REST: the console then
# says that it does not know the form, and does not misread old receipts.
_VERSION = 1
_HEAD = struct.Struct(">B4s16s")
_REST = struct.Struct(f">dBBBIQ{MODEL_BYTES}s{APP_BYTES}s")
# Length of a Poly1305 tag (RFC 8439, section 2.5).
_TAG_BYTES = 16
# Bytes of all reason codes together, with a space between two. This is what MAX_TEXT leaves: 4
# characters of base64 carry 3 bytes. Codes that do not fit are left out, the weakest first.
MAX_CODES = MAX_TEXT * 3 // 4 - _HEAD.size - _REST.size - _TAG_BYTES
# Stands first among the codes of a receipt that has them from an earlier refusal.
EARLIER = "EARLIER"
# The most seconds that the field of 4 bytes can hold (`I` in _REST). A longer wait is cut, not an
# error: a receipt must never stop a refusal.
_MAX_WAIT = 2**32 - 1

Kind = Literal["malformed", "unknown_key", "forged"]


class ReceiptError(Exception):
    """A text that is not a valid receipt.

    `kind`: malformed (it does not have the form of a receipt), unknown_key (its key is not among
    those given: it is of another installation, or too old), forged (it was changed after it was
    sealed).
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind: Kind = kind


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The contents of a receipt."""

    decision: bytes
    """UUIDv7, 16 bytes."""
    at: float
    """Time of the decision, unix seconds."""
    action: Action
    stage: Stage
    reason: Reason
    retry_after: int
    """Whole seconds, rounded up; 0 when a retry will not help."""
    config_version: int
    model: str
    """First 12 hex digits of the live model's digest; empty when there was none."""
    app: str
    """`pseudonym` of the app."""
    codes: tuple[str, ...]
    """Reason codes, strongest first; empty when no model was asked, or when the budget for
    explaining was spent and no earlier refusal of the app was explained.
    """
    earlier: bool = False
    """The codes are those of a refusal of the same app, by the same machine reason and model, up to
    `client.EARLIER_S` before: the budget was spent.
    """


class Key:
    """A key for receipts, derived from an installation's token key. Raises ValueError for a token
    key of over 64 bytes.
    """

    def __init__(self, token_key: bytes) -> None:
        # Two keys, so that whoever learns how apps are hashed cannot make receipts.
        secret = _derived(token_key, b"seal")
        self._cipher = ChaCha20Poly1305(secret)
        self._app_key = _derived(token_key, b"app")
        # A keyed hash, because the id is readable in every receipt and must not give the key away.
        self.id = hashlib.blake2b(b"id", key=secret, digest_size=4).digest()

    def pseudonym(self, app: str) -> str:
        """Return 16 hex digits that stand for an app. They are the same in all its receipts, and
        nobody can compute them without the key.
        """
        return hashlib.blake2b(
            app.encode("utf-8", "surrogatepass"), key=self._app_key, digest_size=APP_BYTES
        ).hexdigest()

    def seal(self, receipt: Receipt) -> str:
        """Return the text of a receipt: at most MAX_TEXT characters of A-Z a-z 0-9 - _."""
        rest = _REST.pack(
            receipt.at,
            receipt.action,
            receipt.stage,
            receipt.reason,
            min(receipt.retry_after, _MAX_WAIT),
            receipt.config_version,
            bytes.fromhex(receipt.model),
            bytes.fromhex(receipt.app),
        ) + _fitting((EARLIER, *receipt.codes) if receipt.earlier else receipt.codes)
        head = _HEAD.pack(_VERSION, self.id, receipt.decision)
        return _text(head + self._cipher.encrypt(receipt.decision[4:], rest, head))

    def open(self, head: bytes, decision: bytes, sealed: bytes) -> bytes:
        """Return the contents of the sealed part. Raise InvalidTag when it or `head` was
        changed.
        """
        return self._cipher.decrypt(decision[4:], sealed, head)


def _derived(token_key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(
        purpose, key=token_key, person=b"sluice-receipt", digest_size=32
    ).digest()


def _fitting(codes: Sequence[str]) -> bytes:
    found = " ".join(codes).encode("ascii")
    # One byte more than fits, so that a space just after a whole code still ends that code.
    return found if len(found) <= MAX_CODES else found[: MAX_CODES + 1].rpartition(b" ")[0]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def keys_of(token_keys: Iterable[bytes]) -> dict[bytes, Key]:
    """Return keys by id, for `open_sealed`. `token_keys`: the present one, and older ones whose
    receipts should still open.
    """
    return {key.id: key for key in map(Key, token_keys)}


def key_of(text: str, keys: Mapping[bytes, Key]) -> Key:
    """Return the key that sealed a receipt; its `pseudonym` names the app. `text` must have passed
    `open_sealed`.
    """
    _, key_id, _ = _HEAD.unpack(_raw(text.strip())[: _HEAD.size])
    return keys[key_id]


def open_sealed(text: str, keys: Mapping[bytes, Key]) -> Receipt:
    """Return the contents of a receipt. Spaces around `text` are ignored. Raise ReceiptError when
    it is malformed, sealed with a key not in `keys`, or changed.
    """
    raw = _raw(text.strip())
    head = raw[: _HEAD.size]
    version, key_id, decision = _HEAD.unpack(head)
    if version != _VERSION:
        raise ReceiptError(
            "malformed", f"This receipt has format {version}, which this console does not know."
        )
    if (key := keys.get(key_id)) is None:
        raise ReceiptError(
            "unknown_key",
            "This receipt was not made with a key of this installation, or is too old.",
        )
    try:
        rest = key.open(head, decision, raw[_HEAD.size :])
    except InvalidTag:
        raise ReceiptError(
            "forged",
            "This receipt was changed after it was made, so nothing in it can be relied on.",
        ) from None
    return _read(decision, rest)


def _raw(text: str) -> bytes:
    # The length comes first: a pasted text of any size must not be decoded.
    if len(text) > MAX_TEXT:
        raise ReceiptError(
            "malformed",
            f"This is not a receipt: it has {len(text)} characters, and a receipt has at most"
            f" {MAX_TEXT}.",
        )
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ReceiptError(
            "malformed",
            "This is not a receipt: it holds characters that no receipt has, or a part is missing.",
        ) from None
    # Encoding it again must give the same text. base64 ignores the unused bits at the end, so
    # without this a receipt could be changed there and still open.
    if len(raw) < _HEAD.size + _REST.size + _TAG_BYTES or _text(raw) != text:
        raise ReceiptError("malformed", "This is not a receipt, or a part of it is missing.")
    return raw


def _read(decision: bytes, rest: bytes) -> Receipt:
    at, action, stage, reason, wait, version, model, app = _REST.unpack_from(rest)
    codes = tuple(rest[_REST.size :].decode("ascii").split())
    try:
        words = Action(action), Stage(stage), Reason(reason)
    except ValueError:
        raise ReceiptError(
            "malformed", "This receipt uses words that are newer than this console."
        ) from None
    earlier = codes[:1] == (EARLIER,)
    known = model.hex() if any(model) else ""
    return Receipt(
        decision, at, *words, wait, version, known, app.hex(), codes[earlier:], earlier=earlier
    )
