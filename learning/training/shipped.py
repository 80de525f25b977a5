"""The model that ships: the first one of every installation, trained once on simulated traffic.

It is kept here, packed by gzip, so that a first start need not wait minutes for a training and
every installation starts with the model that docs/evaluation.md judges. `make model` makes it
again, which a new feature schema asks for.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from decider.contracts.files import write_atomically

PATH = Path(__file__).parent / "resources" / "first-light.gz"


def read() -> bytes:
    """Return the encoded artifact. Raise OSError when it is missing or damaged."""
    try:
        data = gzip.decompress(PATH.read_bytes())
    except (EOFError, zlib.error) as error:
        raise OSError(f"{PATH.name} is damaged: {error}") from error
    if not data:
        raise OSError(f"{PATH.name} is empty")
    return data


def write(data: bytes) -> Path:
    """Make `data`, an encoded artifact, the model that ships, and return where it is kept."""
    # without a time in the header, so that equal models make equal files
    write_atomically(PATH, gzip.compress(data, 9, mtime=0))
    return PATH
