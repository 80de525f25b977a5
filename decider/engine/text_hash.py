"""Hashes of texts for the engine's tables: SipHash-1-3 under a key that the fleet's deciders share.

A table's key is the hash itself, so a client that could choose two app ids with one hash would
share another app's slot, and one that could fill a row of the table would make it slow. A keyed
hash that nobody outside can compute prevents both; it is the same in all processes with the key,
so two deciders of a fleet agree and what is decided does not depend on how Python was started.
The control plane makes the table of known apps with it (`contracts.known`).

SipHash is by Aumasson and Bernstein (2012), SipHash: a fast short-input PRF. One round a word and
three at the end is what Rust's and CPython's own hash tables use; no hash is ever shown to a
client, so more rounds would protect nothing. It stands here in compiled form, because a call into a
library for each text costs more than the rest of a decision's packing.

The key is derived from `token.key`, which every decider of a fleet holds and no client sees, and
not kept in the config document: older deciders refuse a document with a field they do not know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

# Spare bytes behind the texts: texts are read in whole words, and the last one reaches past their
# end.
SLACK = 16
# Keeps this key apart from others derived from the same `token.key`.
_PURPOSE = b"sluice-tables"
# Likewise for the mark, by which two keys are told apart.
_MARK_PURPOSE = b"sluice-hash-mark"
# The lowest and the highest bit of each byte, by which a zero byte is found.
_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
# SipHash's constants, "somepseudorandomlygeneratedbytes"
_C0, _C1 = np.uint64(0x736F6D6570736575), np.uint64(0x646F72616E646F6D)
_C2, _C3 = np.uint64(0x6C7967656E657261), np.uint64(0x7465646279746573)
# SipHash's mark for the end of the text.
_FINAL = np.uint64(0xFF)

# numba's tools for writing LLVM instructions carry no types
instruction: Callable[[Callable[..., Any]], Any] = intrinsic
cg: Any = cgutils


class Texts(NamedTuple):
    """The texts that compiled code hashes, and the key; held by the arena."""

    buffer: NDArray[np.uint8]
    """Texts in UTF-8, each with a NUL behind it, and SLACK bytes."""
    key: NDArray[np.uint64]
    """(2,)."""


@instruction
def _word(_: Any, buffer: Any, at: Any) -> Any:
    """Return the 8 bytes from buffer[at] on as one uint64, wherever they begin.

    Compiled code calls `_word(buffer, at)`.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        word = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    return types.uint64(buffer, types.int64), generate


@instruction
def _lowest(_: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set in a uint64 other than 0.

    Compiled code calls `_lowest(bits)`.
    """

    def generate(_: Any, builder: ir.IRBuilder, __: Any, args: Any) -> ir.Value:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@njit(cache=True, inline="always")
def _turned(x, by):  # type: ignore[no-untyped-def]
    return (x << np.uint64(by)) | (x >> np.uint64(64 - by))


@njit(cache=True, inline="always")
def _round(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    v0 += v1
    v1 = _turned(v1, 13) ^ v0
    v0 = _turned(v0, 32)
    v2 += v3
    v3 = _turned(v3, 16) ^ v2
    v0 += v3
    v3 = _turned(v3, 21) ^ v0
    v2 += v1
    v1 = _turned(v1, 17) ^ v2
    v2 = _turned(v2, 32)
    return v0, v1, v2, v3


@njit(cache=True, nogil=True)
def hash_next(buffer: Any, at: int, key: Any) -> tuple[np.int64, int]:
    """Return the hash of the text that begins at buffer[at] and ends before the next NUL, 0 for an
    empty one, and where the text after it begins. A whole word is searched for the NUL at once.
    """
    start = at
    v0, v1, v2, v3 = _C0 ^ key[0], _C1 ^ key[1], _C2 ^ key[0], _C3 ^ key[1]
    word = _word(buffer, at)
    # The lowest bit set here belongs to the first zero byte (Mycroft's test; Warren, Hacker's
    # Delight, 6-1).
    ends = (word - _ONES) & ~word & _TOPS
    while ends == 0:
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
        at += 8
        word = _word(buffer, at)
        ends = (word - _ONES) & ~word & _TOPS
    rest = _lowest(ends) >> 3
    at += rest
    if at == start:
        return np.int64(0), at + 1
    word &= (np.uint64(1) << np.uint64(8 * rest)) - np.uint64(1)
    word |= np.uint64(at - start) << np.uint64(56)
    v3 ^= word
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= _FINAL
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return np.int64(v0 ^ v1 ^ v2 ^ v3), at + 1


@njit(cache=True, nogil=True)
def _hash_all(buffer: Any, key: Any, out: Any) -> None:
    """Fill out, int64, with the hashes of as many texts."""
    at = 0
    for i in range(len(out)):
        out[i], at = hash_next(buffer, at, key)


def encode(texts: Sequence[str]) -> bytes:
    """Return texts as `hash_next` reads them: UTF-8, a NUL behind each. A NUL inside a text becomes
    the overlong form C0 80, which is no character's UTF-8, so no two texts become alike.
    """
    found = (text.encode("utf-8", "surrogatepass") for text in texts)
    return b"".join(data.replace(b"\0", b"\xc0\x80") + b"\0" for data in found)


class TextHash:
    """The hash under one fleet's key. It never changes, so threads may share it."""

    def __init__(self, token_key: bytes) -> None:
        """Derive the key for tables from the fleet's `token.key`, 1 to 64 bytes."""
        found = hashlib.blake2b(key=token_key, person=_PURPOSE, digest_size=16).digest()
        self.key: NDArray[np.uint64] = np.frombuffer(found, "<u8").astype(np.uint64)
        self.mark = hashlib.blake2b(key=token_key, person=_MARK_PURPOSE, digest_size=8).digest()
        """8 bytes that tell whether hashes were made with this key, and nothing else about the key.
        """

    def many(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the hashes (n,) of n texts, 0 for empty ones."""
        out = np.empty(len(texts), np.int64)
        data = bytearray(encode(texts) + bytes(SLACK))
        _hash_all(np.frombuffer(data, np.uint8), self.key, out)
        return out

    def one(self, text: str) -> int:
        """Return the hash of a text as a signed number of 64 bits, 0 for an empty one."""
        return int(self.many([text])[0])
