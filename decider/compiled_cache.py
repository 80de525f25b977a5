"""Where numba keeps compiled code: one folder per state of the decider's source.

numba notices when a function's own file changes. It does not notice a change in a function that it
inlined, or in a constant that it took from another module. So compiled code is kept under a hash
over all sources of the decider, and a changed policy never runs code compiled from the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

_TREE = Path(__file__).resolve().parent
# Folders of older sources that are kept. Chosen: a return to a commit of today then costs no
# compilation, and some 8 MB each do no harm.
KEPT = 8
# Marks a folder as ours: a child process that inherits it in NUMBA_CACHE_DIR takes its parent.
_PREFIX = "compiled-"


def key(tree: Path = _TREE) -> str:
    """Return 16 hex digits that change with the path or the text of any module below `tree`.

    Every module counts, not only those with compiled functions: which constants end up in compiled
    code cannot be told from the text, and a needless compilation costs a minute, a stale one a
    wrong decision.
    """
    # 8 bytes suffice against chance; nobody attacks a local cache through its folder name
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(tree.rglob("*.py")):
        # with the lengths, two files never hash like one file that holds the text of both
        text = source.read_bytes()
        digest.update(f"{source.relative_to(tree).as_posix()}\0{len(text)}\0".encode())
        digest.update(text)
    return digest.hexdigest()


def folder(base: Path) -> Path:
    """Return the folder below `base` for code compiled from today's source."""
    if base.name.startswith(_PREFIX):
        base = base.parent  # inherited from a parent process that did the same
    return base / f"{_PREFIX}{key()}"


def use_own_folder() -> None:
    """Point NUMBA_CACHE_DIR at this source's folder. Call before numba is imported.

    The folder lies below the one that NUMBA_CACHE_DIR names, else below `__pycache__`. Folders of
    older sources beside it are deleted, except the last KEPT.
    """
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or _TREE / "__pycache__")
    own = folder(base)
    with contextlib.suppress(OSError):
        os.utime(own)
    _forget_old(own)
    os.environ["NUMBA_CACHE_DIR"] = str(own)


def _forget_old(own: Path) -> None:
    """Delete the folders of other sources, except the KEPT that were used last."""
    # A process that still runs from a deleted folder compiles again what it has not loaded yet.
    # Errors do no harm: the base may be read-only, or another process may delete at the same time.
    with contextlib.suppress(OSError):
        others = [f for f in own.parent.glob(f"{_PREFIX}*") if f != own]
        for old in sorted(others, key=lambda f: f.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
