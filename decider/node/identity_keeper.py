"""The keeper of the files that credentials are read with: it reads them at start and again whenever
one of them changes, and keeps the last good ones.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from decider.contracts.store import IdentityStatus, cut
from decider.identity.credentials import Credentials
from decider.identity.errors import IdentityFileError, Why
from decider.identity.material import files_of, read_material

# Seconds between two looks at the files. Chosen: a key that was taken back is out of use this soon,
# and a look costs microseconds.
LOOK_S = 1.0
# Seconds for which requests that were decided by their address are shown as recent.
RECENT_S = 60.0


class IdentityKeeper:
    """The keeper of one decider's credentials."""

    def __init__(self, path: Path) -> None:
        """Read the files. Raise IdentityFileError, since without them nobody can be told apart."""
        self.path = path
        self.error = ""
        self.rejected = 0
        """Readings that could not be used since the start."""
        self.credentials = Credentials(read_material(path))
        # Empty: the first look reads again, as a file may have changed since it was read.
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._unread_at = (time.monotonic(), 0)
        self._recent_unread = 0

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Read the files again if one of them has changed; keep what is in use if that fails."""
        self._count_recent()
        now = self._stamps_now()
        if now == self._seen:
            return
        self._seen = now
        try:
            # in a thread: a long table takes a second, and decisions must go on
            material = await asyncio.to_thread(read_material, self.path)
        except IdentityFileError as error:
            self.error, self.rejected = str(error), self.rejected + 1
            return
        # The header is part of how requests are parsed, which is set up once.
        if material.settings.header != self.credentials.header:
            self.error = f"{self.path}: a change of `header` needs a restart of the decider"
            self.rejected += 1
            return
        self.error = ""
        self.credentials.replace(material)

    def _stamps_now(self) -> dict[Path, tuple[int, int, int]]:
        return _stamps(files_of(self.path, self.credentials.material.settings))

    def _count_recent(self) -> None:
        now, unread = time.monotonic(), self.credentials.unread
        since, before = self._unread_at
        self._recent_unread = unread - before
        if now - since >= RECENT_S:
            self._unread_at = (now, unread)

    def status(self) -> IdentityStatus:
        """Return what the heartbeat says of credentials."""
        found = self.credentials
        return IdentityStatus(
            cut(self.error), sum(found.refused.values()), found.unread, self._recent_unread
        )

    def metrics(self) -> list[str]:
        """Return the lines of /metrics."""
        found, name = self.credentials, "sluice_credentials_refused_total"
        lines = [f"# TYPE {name} counter"]
        lines += [f'{name}{{why="{why}"}} {found.refused[why]}' for why in Why]
        for name, kind, value in (
            ("sluice_credentials_unread_total", "counter", found.unread),
            ("sluice_identity_files_rejected_total", "counter", self.rejected),
            ("sluice_identity_files_stale", "gauge", int(bool(self.error))),
        ):
            lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        return lines


def _stamps(paths: list[Path]) -> dict[Path, tuple[int, int, int]]:
    """Return what tells of each file whether it has changed: inode, time and size; zeros for one
    that is not there.
    """
    found = {}
    for path in paths:
        try:
            stat = path.stat()
            found[path] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            found[path] = (0, 0, 0)
    return found
