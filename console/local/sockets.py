"""Where the Unix sockets of one installation lie: in its data folder or, where that path is too
long for a socket, in a folder of this user's below the one for temporary files.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

# Bytes of a socket's path: the kernel takes 107 (unix(7)), and supervisord adds a dot and its
# process id of up to 7 digits before it renames the socket.
PATH_MAX = 99
# Characters of a digest that keep the installations of a machine apart.
_DIGEST = 16


def socket_path(var: Path, name: str) -> Path:
    """Return the path of an installation's socket, in a folder that only this user may enter.

    Raises:
        ImproperlyConfigured: when that folder belongs to somebody else.
    """
    path = var / "run" / f"{name}.sock"
    if len(os.fsencode(path)) <= PATH_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(var)).hexdigest()[:_DIGEST]
    folder = Path(tempfile.gettempdir()) / f"sluice-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # anybody could have made it first: then they could listen there in our place
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ImproperlyConfigured(
            f"{folder}, the folder of this installation's sockets, belongs to somebody else or is"
            " open to others. Remove it, or set SLUICE_VAR to a folder with a shorter path."
        )
    return folder / f"{name}.sock"
