"""A disk in memory for all parts of an installation, which a test can leave without a free byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from control import disk

# Bytes of the disk, which takes memory only for what is written. Chosen: twice what must be left
# for every decision to be stored and no old day to be dropped.
SIZE = 2 * disk.DROP_DAYS_AT
# Bytes of a page of memory, in which it is made, and of a step that fills it.
PAGE = 1 << 12
# Seconds in which it is made as small as what it holds. Chosen: a try takes milliseconds, and fails
# only if a part writes meanwhile.
SHRINK_WITHIN_S = 5.0


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Put a disk of its own in the place of the folder, where that is allowed."""
    may = os.geteuid() == 0 and shutil.which("mount")
    kind = ["-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", str(folder)]
    done = may and subprocess.run(["mount", *kind], capture_output=True, check=False)
    try:
        if shutil.disk_usage(folder).free < disk.NO_ADMITS_AT:
            pytest.skip(f"{folder} has no room for decisions, so none would be stored")
        yield
    finally:
        if done and done.returncode == 0:
            # lazily: an orphan of a killed part may still hold a file
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no byte free on the disk while the body runs."""
    if not folder.is_mount():
        pytest.skip("only root can mount a small disk here, to fill it")
    ballast = folder / "ballast"
    try:
        _shrink(folder)
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        yield
    finally:
        _resize(folder, SIZE)
        ballast.unlink()


def _shrink(folder: Path) -> None:
    last = time.monotonic() + SHRINK_WITHIN_S
    # 0 would mean as large as one likes
    while not _resize(folder, shutil.disk_usage(folder).used + PAGE):
        assert time.monotonic() < last, f"{folder} does not become smaller"


def _resize(folder: Path, size: int) -> bool:
    """Make the disk so many bytes large; False when it holds more."""
    options = f"remount,size={size}"
    done = subprocess.run(["mount", "-o", options, str(folder)], capture_output=True, check=False)
    return done.returncode == 0
