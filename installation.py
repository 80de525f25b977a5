"""Where an installation lives: the folder of its environment (`.venv`) and its data (`var`), called
its home. Needs nothing but Python, as `bootstrap.py` asks before any library is there.

The home is SLUICE_HOME, else the checkout. PostgreSQL refuses to run as root, so what root starts
runs as another user (SLUICE_USER, else nobody). Where that user may not read the checkout, as under
a /root of mode 0700, the home is a folder of its own below /var/lib/sluice, because opening
somebody's folder to others is not ours to do.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent
FOR_ROOT = Path("/var/lib/sluice")
"""Root's own place for state (hier(7)): other users can enter it and change nothing in it."""
NOT_CODE = {"tests", "bench"}
"""Packages that `manage.py` does not need."""
BESIDE_PACKAGES = ("templates", "examples", "manage.py", "installation.py", "unprivileged.py")
CACHES = (".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".import_linter_cache")


class InstallationError(Exception):
    """There is no home to be had; the text is one sentence that says what to set."""


def folder() -> Path:
    """Return the home.

    Raises:
        InstallationError: when root's programs cannot be run as another user.
    """
    if named := os.environ.get("SLUICE_HOME"):
        return Path(named).expanduser().resolve()
    if os.geteuid() == 0 and not can_read(user(), code()):
        # one home for each checkout, so that two copies never share their data
        return FOR_ROOT / hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:8]
    return CHECKOUT


def var() -> Path:
    """Return the folder of the data: SLUICE_VAR, else `var` in the home.

    Raises:
        InstallationError: as `folder` does.
    """
    return Path(os.environ.get("SLUICE_VAR") or folder() / "var").resolve()


def user() -> pwd.struct_passwd:
    """Return the user that root's programs run as: SLUICE_USER, else nobody.

    Raises:
        InstallationError: when there is no such user, or it is root again.
    """
    name = os.environ.get("SLUICE_USER") or "nobody"
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise InstallationError(
            f"There is no user {name}; set SLUICE_USER to one that Sluice may run as."
        ) from None
    if found.pw_uid == 0:
        raise InstallationError("SLUICE_USER may not be root: PostgreSQL refuses to run as root.")
    return found


def code() -> Iterator[Path]:
    """Yield every file that `manage.py` needs: no link, and nothing hidden, such as `.env`."""
    tops = [CHECKOUT / name for name in BESIDE_PACKAGES]
    tops += [init.parent for init in CHECKOUT.glob("*/__init__.py")]
    for top in tops:
        if top.name in NOT_CODE or top.name.startswith("."):
            continue
        for path in [top] if top.is_file() else top.rglob("*"):
            hidden = any(
                part.startswith(".") or part == "__pycache__"
                for part in path.relative_to(CHECKOUT).parts
            )
            if not hidden and path.is_file() and not path.is_symlink():
                yield path


def can_read(who: pwd.struct_passwd, paths: Iterable[Path]) -> bool:
    """Whether the user may read every path. Call as root."""
    return true_as(who, lambda: all(os.access(path, os.R_OK) for path in paths))


def true_as(who: pwd.struct_passwd, check: Callable[[], bool]) -> bool:
    """Return what `check` says in a child process that has become the user. Call as root: only the
    kernel knows what ancestors, access lists and mounts allow together.

    Raises:
        InstallationError: when root may not become the user, as in some containers.
    """
    child = os.fork()
    if child == 0:
        status = 3
        try:
            become(who)
            status = 2
            status = 0 if check() else 1
        finally:
            os._exit(status)  # nothing of the parent's is to be cleaned up twice
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 3:
        raise InstallationError(
            f"This root may not become the user {who.pw_name}; run Sluice as an ordinary user."
        )
    return status == 0


def become(who: pwd.struct_passwd) -> None:
    """Give up root for good.

    Raises:
        OSError: when the kernel refuses.
    """
    os.initgroups(who.pw_name, who.pw_gid)
    os.setgid(who.pw_gid)
    os.setuid(who.pw_uid)


def claim(home: Path) -> None:
    """Make the home if there is none.

    Raises:
        InstallationError: when it cannot be written, or as root when others could change what lies
            in it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InstallationError(
            f"{home} cannot be written; set SLUICE_HOME to a folder that can, for the libraries and"
            " the data: SLUICE_HOME=/path/to/folder make run"
        )
    if os.geteuid() != 0 or home == CHECKOUT:
        return  # who owns the checkout already decides what runs
    for each in (home, *home.parents):
        found = each.lstat()
        # in a sticky folder such as /tmp nobody can move what root owns
        sticky = each != home and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (found.st_mode & 0o022 and not sticky):
            raise InstallationError(
                f"Other users could change {each}, and with it what root runs; set SLUICE_HOME to a"
                " folder of root's."
            )
    if not can_read(user(), [home]):
        raise InstallationError(
            f"The user {user().pw_name}, whom Sluice runs as, may not enter {home}; set SLUICE_HOME"
            " to a folder it may, or leave it unset."
        )


def caches(home: Path) -> dict[str, str]:
    """Return the variables that keep every cache out of a checkout that is not the home."""
    if home == CHECKOUT:
        return {}
    cache = home / "cache"
    return {
        "PYTHONPYCACHEPREFIX": str(cache / "python"),
        "NUMBA_CACHE_DIR": str(cache / "numba"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(cache / "hypothesis"),
        "MYPY_CACHE_DIR": str(cache / "mypy"),
        "RUFF_CACHE_DIR": str(cache / "ruff"),
        "PYTEST_ADDOPTS": f"-o cache_dir={shlex.quote(str(cache / 'pytest'))}",
    }


def forget() -> None:
    """Remove the data and the tools' caches.

    Raises:
        InstallationError: when `manage.py up` runs on the data.
    """
    data, home = var(), folder()
    pid = data / "run" / "up.pid"
    # the socket tells a running one from a process that has the number of an old one
    if (data / "run" / "supervisor.sock").is_socket() and Path(
        f"/proc/{pid.read_text().strip() or 'none'}" if pid.is_file() else "/proc/none"
    ).exists():
        raise InstallationError("It is still running. Stop it with Ctrl-C first.")
    for path in (data, *(CHECKOUT / name for name in CACHES)):
        shutil.rmtree(path, ignore_errors=True)
    if home != CHECKOUT:
        shutil.rmtree(home / "cache", ignore_errors=True)


if __name__ == "__main__":
    try:
        forget()
    except InstallationError as error:
        sys.exit(f"sluice: {error}")
