"""HTTP over a Unix socket, for programs that ask a decider or an Envoy of this machine."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path


class UnixConnection(http.client.HTTPConnection):
    """A connection of the standard library's client to the Unix socket at a path."""

    def __init__(self, path: Path, timeout: float) -> None:
        # the name goes into the field Host and leads nowhere
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect. Raise OSError."""
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(self.timeout)
        try:
            line.connect(str(self._path))
        except OSError:
            line.close()
            raise
        self.sock = line
