"""Files are written whole or not at all, and reach the disk before they are named."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from decider.contracts import files
from decider.contracts.files import create_atomically, write_atomically


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert left_in(path.parent) == ["config.bin"]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path, size, seen = tmp_path / "model", 200_000, set()
    write_atomically(path, b"a" * size)
    ended = threading.Event()

    def write() -> None:
        for turn in range(60):
            write_atomically(path, (b"a", b"b")[turn % 2] * size)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        data = path.read_bytes()
        seen.add((len(data), len(set(data))))
    writer.join()
    assert seen == {(size, 1)}


def test_bytes_and_folder_are_flushed_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    flush, replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        kind = os.fstat(handle).st_mode
        order.append("folder" if stat.S_ISDIR(kind) else "bytes")
        flush(handle)

    def rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    write_atomically(tmp_path / "place", b"1 2\n")
    assert order == ["bytes", "rename", "folder"]


def test_when_the_disk_is_full_the_old_file_stays_and_no_draft_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.bin"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert (path.read_bytes(), left_in(tmp_path)) == (b"old", ["config.bin"])


def test_of_many_that_create_a_file_one_wins_and_its_mode_is_kept(tmp_path: Path) -> None:
    path, start = tmp_path / "token.key", threading.Barrier(8)
    made: dict[int, bool] = {}

    def create(k: int) -> None:
        start.wait()
        made[k] = create_atomically(path, b"%d" % k, mode=0o600)

    threads = [threading.Thread(target=create, args=[k]) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [k for k, won in made.items() if won]
    assert path.read_bytes() == b"%d" % winner
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left_in(tmp_path) == ["token.key"]
