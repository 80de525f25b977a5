"""Where numba keeps compiled code: one folder per state of the decider's source.

numba notices when a function's own file changes, but not when one that it inlines did, or a
constant it took from elsewhere. So compiled code is kept under the hash of all sources it comes
from, and a changed policy can never run as its predecessor.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_PREFIX = "compiled-"
_CONSTANTS = {
    "feature_columns.py",
    "features.py",
    "passes_layout.py",
    "signals.py",
    "vocabulary.py",
}
"""Modules without compiled functions whose constants compiled code holds."""


def use_own_folder() -> None:
    """Points NUMBA_CACHE_DIR at this source's folder, below the one it names or `__pycache__`. Call
    before numba is imported.
    """
    here = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(here.glob("*.py")):
        text = source.read_bytes()
        if source.name in _CONSTANTS or b"njit" in text:
            digest.update(text)
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or here / "__pycache__")
    if base.name.startswith(_PREFIX):
        base = base.parent  # inherited from a parent process that did the same
    os.environ["NUMBA_CACHE_DIR"] = str(base / f"{_PREFIX}{digest.hexdigest()}")
