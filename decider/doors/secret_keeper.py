"""The keeper of the secrets that open a decider's TCP addresses: it reads their files at start and
again whenever one changes, and keeps the last good ones.
"""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path

from decider.doors.guard import Guard

# Characters of a secret: 32 of base64 hold more than 128 bits, which nobody guesses.
SHORTEST, LONGEST = 32, 256
# Secrets of a file. Two, while one replaces the other; as many again for two kinds of gateways.
MOST = 4
# Bytes of a file. Chosen: as many secrets as it may hold, with room for blank lines.
MOST_BYTES = 4_096
_secret = re.compile(rf"[!-~]{{{SHORTEST},{LONGEST}}}".encode()).fullmatch

log = logging.getLogger("sluice.decider")


class SecretFileError(Exception):
    """A file of secrets cannot be used. The text says why."""


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """Return the secrets in a file, one in each line. Raise SecretFileError."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SecretFileError(f"{path} cannot be read ({error.strerror})") from error
    if mode & 0o007:
        raise SecretFileError(f"{path} can be read by everybody; set its mode to 0600")
    found = tuple(line.strip() for line in data.splitlines() if line.strip())
    if len(data) > MOST_BYTES or not 1 <= len(found) <= MOST or not all(map(_secret, found)):
        raise SecretFileError(
            f"{path} must hold 1 to {MOST} lines, each a secret of {SHORTEST} to {LONGEST} visible"
            " ASCII characters"
        )
    return found


class SecretKeeper:
    """The keeper of one decider's guard."""

    def __init__(self, secret: Path, metrics_token: Path | None = None) -> None:
        """Read the files. Raise SecretFileError."""
        self._secret, self._token = secret, metrics_token
        self._seen = self._stamps()
        self.guard = Guard(*self._read())

    def look(self) -> None:
        """Read the files again if one has changed; keep what is in use if that fails."""
        if (now := self._stamps()) == self._seen:
            return
        self._seen = now
        try:
            self.guard.replace(*self._read())
        except SecretFileError as error:
            log.error("the secrets in use are kept: %s", error)
        else:
            log.info("the secrets were read again")

    def _read(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return read_secrets(self._secret), read_secrets(self._token) if self._token else ()

    def _stamps(self) -> list[tuple[int, int, int]]:
        found = []
        for path in (self._secret, self._token):
            try:
                known = path.stat() if path else None
            except OSError:
                known = None
            found.append((known.st_ino, known.st_size, known.st_mtime_ns) if known else (0, 0, 0))
        return found
