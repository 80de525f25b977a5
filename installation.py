"""The home of an installation: the folder that holds its environment (`.venv`) and data (`var`).

The home is SLUICE_HOME, or the checkout if that is not set. PostgreSQL refuses to run as root, so
programs that root starts run as another user: SLUICE_USER, or the user `nobody`. If that user may
not read the checkout, for example below a /root of mode 0700, the home is a separate folder below
/var/lib/sluice, because Sluice does not open somebody's folder to others.

This module imports only the standard library: `bootstrap.py` uses it before any library is
installed.
"""

from __future__ import annotations

import contextlib
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
# Where programs of root keep state (hier(7)): others can enter this folder but change nothing.
FOR_ROOT = Path("/var/lib/sluice")
# Packages that `manage.py` does not need. Without them, the copy of the code is made faster.
NOT_CODE = {"tests", "bench"}
# What `manage.py` needs besides our packages. The gateway's configuration is made from `examples`.
BESIDE_PACKAGES = ("templates", "examples", "manage.py", "installation.py", "unprivileged.py")
# Folders that development tools leave in the checkout when it is the home.
CACHES = (".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".import_linter_cache")
# Coverage's data files; parallel test processes add a suffix. `.coverage*` would also match
# `.coveragerc`.
COVERAGE_DATA = (".coverage", ".coverage.*")
# Exit status of a child that could not become the user. Any number above the other ones, 0 to 2,
# would do.
_NOT_THE_USER = 3


class InstallationError(Exception):
    """A problem with the home, its user or its data. The text says in a sentence what to do."""


def home_folder() -> Path:
    """Return the path of the home, which need not exist yet.

    Raises:
        InstallationError: as root, when there is no other user to run as.
    """
    if named := os.environ.get("SLUICE_HOME"):
        return Path(named).expanduser().resolve()
    if os.geteuid() == 0 and not can_read(service_user(), code_files()):
        # one home for each checkout, so that two copies never share their data
        return FOR_ROOT / hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:8]
    return CHECKOUT


def data_folder() -> Path:
    """Return the folder of the data: SLUICE_VAR, or `var` in the home if that is not set.

    Raises:
        InstallationError: as root, when there is no other user to run as.
    """
    return Path(os.environ.get("SLUICE_VAR") or home_folder() / "var").resolve()


def service_user() -> pwd.struct_passwd:
    """Return the user that root's programs run as: SLUICE_USER, or the user `nobody` by default.

    Raises:
        InstallationError: when there is no such user, or the user is root.
    """
    name = os.environ.get("SLUICE_USER") or "nobody"
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise InstallationError(
            f"There is no user {name}; set SLUICE_USER to a user of this machine other than root."
        ) from None
    if found.pw_uid == 0:
        # by number, because root may have other names
        raise InstallationError(
            f"SLUICE_USER is {name}, which is root, and PostgreSQL refuses to run as root; set"
            " SLUICE_USER to another user."
        )
    return found


def code_files() -> Iterator[Path]:
    """Yield every file that `manage.py` needs, except links and hidden files such as `.env`."""
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
    """Return whether the user may read every path. Only root can call this.

    Raises:
        InstallationError: when root may not become the user.
    """
    return holds_as(who, lambda: all(os.access(path, os.R_OK) for path in paths))


def holds_as(who: pwd.struct_passwd, check: Callable[[], bool]) -> bool:
    """Return whether `check` is true in a child process of the user. Only root can call this.

    Only the kernel knows what the modes of all parent folders, access lists and mounts allow
    together, so a process of the user tries it.

    Raises:
        InstallationError: when root may not become the user, as in some containers.
    """
    child = os.fork()
    if child == 0:
        # exit status: 3 could not become the user, 2 `check` raised, 1 it is false, 0 it is true
        status = _NOT_THE_USER
        try:
            become_user(who)
            status = 2
            status = 0 if check() else 1
        finally:
            # not sys.exit: the parent's buffers and exit handlers would run a second time here
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == _NOT_THE_USER:
        raise InstallationError(
            f"Root may not become the user {who.pw_name} here; run Sluice as an ordinary user."
        )
    return status == 0


def become_user(who: pwd.struct_passwd) -> None:
    """Turn this process of root into one of the user, for good.

    Raises:
        OSError: when the kernel refuses.
    """
    # in this order: once the user is changed, the groups no longer can be
    os.initgroups(who.pw_name, who.pw_gid)
    os.setgid(who.pw_gid)
    os.setuid(who.pw_uid)


def claim_home(home: Path) -> None:
    """Make the home folder if there is none, and check that it can be used.

    Raises:
        InstallationError: when the home cannot be written; as root also when other users could
            change the home, or when the user that Sluice runs as may not enter it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        # mkdir succeeds for a folder that exists, even where this user may not write
        writable = os.access(home, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InstallationError(
            f"This user cannot write to {home}; set SLUICE_HOME to a writable folder for the"
            " libraries and the data: SLUICE_HOME=/path/to/folder make run"
        )
    # the checkout needs no check: its owner decides what runs anyway
    if os.geteuid() == 0 and home != CHECKOUT:
        _check_only_root_changes(home)


def _check_only_root_changes(home: Path) -> None:
    for each in (home, *home.parents):
        # lstat and not stat: another user's link could be pointed elsewhere later
        found = each.lstat()
        # in a sticky folder of root's, such as /tmp, others cannot move what root owns
        sticky = each != home and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (found.st_mode & 0o022 and not sticky):
            raise InstallationError(
                f"Other users could change {each}, and so the programs that root runs; set"
                " SLUICE_HOME to a folder that only root can change."
            )
    if not can_read(service_user(), [home]):
        raise InstallationError(
            f"Sluice runs as the user {service_user().pw_name}, who may not enter {home}; set"
            " SLUICE_HOME to a folder that this user may enter, or leave it unset."
        )


def cache_variables(home: Path) -> dict[str, str]:
    """Return the variables that move all tools' caches into the home; {} if it is the checkout."""
    if home == CHECKOUT:
        return {}
    cache = home / "cache"
    return {
        "PYTHONPYCACHEPREFIX": str(cache / "python"),
        "NUMBA_CACHE_DIR": str(cache / "numba"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(cache / "hypothesis"),
        "MYPY_CACHE_DIR": str(cache / "mypy"),
        "RUFF_CACHE_DIR": str(cache / "ruff"),
        # a file and not a folder: parallel test processes write their files beside it
        "COVERAGE_FILE": str(cache / "coverage" / ".coverage"),
        # pytest has no variable for its cache; it splits this one into options as a shell does
        "PYTEST_ADDOPTS": f"-o cache_dir={shlex.quote(str(cache / 'pytest'))}",
    }


def forget_data() -> None:
    """Remove the data, the tools' caches and coverage's data.

    Raises:
        InstallationError: while `manage.py up` uses the data.
    """
    data, home = data_folder(), home_folder()
    if _runs_on(data):
        raise InstallationError(f"Sluice is still running on {data}. Stop it with Ctrl-C first.")
    for path in (data, *(CHECKOUT / name for name in CACHES)):
        shutil.rmtree(path, ignore_errors=True)
    for path in (path for pattern in COVERAGE_DATA for path in CHECKOUT.glob(pattern)):
        # like rmtree above: a file that cannot be removed, as in a read-only checkout, stays
        with contextlib.suppress(OSError):
            path.unlink()
    if home != CHECKOUT:
        shutil.rmtree(home / "cache", ignore_errors=True)


def _runs_on(data: Path) -> bool:
    """Return whether a `manage.py up` uses the data folder."""
    pid = data / "run" / "up.pid"
    # the process id alone may belong to another program by now; a running `up` has the socket too
    if not (data / "run" / "supervisor.sock").is_socket() or not pid.is_file():
        return False
    number = pid.read_text().strip()
    return bool(number) and Path(f"/proc/{number}").exists()


if __name__ == "__main__":
    try:
        forget_data()
    except InstallationError as error:
        sys.exit(f"sluice: {error}")
