"""Where a decider listens: Unix sockets, which only its own user may open, and TCP addresses."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple

# What an address of a Unix socket begins with.
UNIX = "unix:"
# Bytes of a Unix socket's path (unix(7)).
_PATH_MAX = 107
# The highest TCP port.
_PORT_MAX = 65_535


class Address(NamedTuple):
    """One address: the path of a Unix socket, or host and port."""

    path: Path | None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{UNIX}{self.path}" if self.path else f"{self.host}:{self.port}"


def read_address(text: str) -> Address:
    """Return the address that is written as unix:PATH or HOST:PORT. Raise ValueError."""
    if text.startswith(UNIX):
        path = Path(text.removeprefix(UNIX))
        if not path.name or len(os.fsencode(path)) > _PATH_MAX:
            raise ValueError(f"the path of a socket has 1 to {_PATH_MAX} bytes: {text}")
        return Address(path)
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port[:6]) <= _PORT_MAX):
        raise ValueError(f"neither unix:PATH nor HOST:PORT: {text}")
    return Address(None, host.strip("[]"), int(port))


def bind(path: Path) -> socket.socket:
    """Return a socket at `path` that only this user may open. Raise OSError, also when another
    process listens there.
    """
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX)
    # before the mode could be changed, others could already connect
    mask = os.umask(0o177)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(mask)
    return bound


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that has ended. Raise OSError when one still listens there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
                return
    raise OSError(f"{path} is in use")
