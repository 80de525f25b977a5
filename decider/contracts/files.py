"""Writers of files that other processes may read at any time: a file is written whole or not at
all, and flushed to the disk.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, *data: bytes) -> None:
    """Put `data`, one piece after another, at `path` in one step and flush it to the disk. Make
    missing folders.

    A reader sees the old file or the new one, never a part. After a power cut the file is one of
    the two as well: a rename that reaches the disk before the bytes it names would leave an empty
    file. Raises OSError; the old file then stays, and no draft is left.
    """
    write_pieces_atomically(path, data)


def write_pieces_atomically(path: Path, pieces: Iterable[bytes]) -> None:
    """Do what `write_atomically` does with pieces that are made one by one, so that a large file is
    never in memory as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path, pieces, mode=0o666)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def create_atomically(path: Path, data: bytes, *, mode: int) -> bool:
    """Put `data` at `path` with these permission bits, unless a file is there already.

    Return whether this call made the file: of several processes the first one wins. Raises OSError.
    """
    draft = _draft(path, [data], mode=mode)
    try:
        # unlike a rename, a link never replaces what another process made meanwhile
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(path.parent)
    return True


# fallocate(2): give the blocks of a range back and keep the file's size.
_PUNCH_HOLE = 0x02 | 0x01


def free_beginning(file: int, until: int) -> bool:
    """Give the disk the blocks of an open file before byte `until` back, and return whether the
    file system can do that. Others may write at the file's end meanwhile; what is freed reads as
    zeros.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None:
        return False
    offset = ctypes.c_int64
    done = fallocate(ctypes.c_int(file), ctypes.c_int(_PUNCH_HOLE), offset(0), offset(until))
    return bool(done == 0)


def remove_drafts(path: Path) -> None:
    """Remove the drafts that killed writers of `path` left behind. Call it while nobody writes
    `path`.
    """
    for draft in path.parent.glob(_draft_name(path, "*", "*")):
        draft.unlink(missing_ok=True)


def _draft_name(path: Path, process: str, mark: str) -> str:
    return f".{path.name}.{process}.{mark}"


def _draft(path: Path, pieces: Iterable[bytes], *, mode: int) -> Path:
    """Write a flushed file beside `path` under a name that no other writer uses."""
    draft = path.with_name(_draft_name(path, str(os.getpid()), secrets.token_hex(4)))
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            # one by one: other threads run while a piece is written, not while all are joined
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _flush_folder(folder: Path) -> None:
    """Flush a folder's entries: a rename is on the disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
