"""Small trainings that tests share. One takes seconds, so it is kept on disk for as long as nothing
changes that it depends on.
"""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

from decider.contracts import artifact
from decider.contracts.files import write_atomically
from learning.training import train

ROOT = Path(__file__).resolve().parents[2]
# All that a training depends on: its own sources, the decider's, and the versions of the libraries.
_DEPENDS_ON = ("decider", "learning", "requirements-dev.lock")


def small_training(folder: Path, seconds: float = 70.0, apps: int = 500) -> train.Trained:
    """Return a training of these runs, from `folder` if the same sources made it.

    Processes take turns.
    """
    size = f"-{seconds:g}s-{apps}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / f"{sources_key()}{size}"
        if not path.is_file():
            made = train.train(seed=3, seconds=seconds, apps=apps, workers=0)
            for older in folder.glob(f"*{size}"):
                older.unlink()
            write_atomically(path, made.data)
    data = path.read_bytes()
    return train.Trained(data, artifact.digest_of(data), artifact.decode(data))


def sources_key() -> str:
    """Return 16 hex digits that change with any source that a training depends on."""
    digest = hashlib.blake2b(digest_size=8)
    for name in _DEPENDS_ON:
        place = ROOT / name
        for source in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            text = source.read_bytes()
            digest.update(f"{source.relative_to(ROOT).as_posix()}\0{len(text)}\0".encode())
            digest.update(text)
    return digest.hexdigest()
