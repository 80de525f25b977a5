"""Where an installation lives: the folder of its environment (`.venv`) and its data (`var`), called
its home. Needs nothing but Python, as `bootstrap.py` asks before any library is there.

The home is SLUICE_HOME, else the checkout. PostgreSQL refuses to run as root, so what root starts
runs as another user (SLUICE_USER, else nobody). Where that user may not read the checkout, as under
a /root of mode 0700, the home is a folder of its own below /var/lib/sluice, because opening
somebody's folder to others is not ours to do.
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
# Root's own place for state (hier(7)): other users can enter it and change nothing in it.
FOR_ROOT = Path("/var/lib/sluice")
# `manage.py` does not need these packages, and a smaller copy is made sooner.
NOT_CODE = {"tests", "bench"}
# What `manage.py` needs beside our packages: the gateway's configuration is made from an example.
BESIDE_PACKAGES = ("templates", "examples", "manage.py", "installation.py", "unprivileged.py")
# What the tools leave in a checkout that is its own home.
CACHES = (".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".import_linter_cache")
# Coverage's data: test processes in parallel add a suffix. Not `.coverage*`, which would take a
# `.coveragerc` along.
COVERAGE_DATA = (".coverage", ".coverage.*")
# Exit status of a child that could not become the user. Any number above the others' would do.
_NOT_THE_USER = 3


class InstallationError(Exception):
    """There is no home to be had; the text is one sentence that says what to set."""


def home_folder() -> Path:
    """Return the home.

    Raises:
        InstallationError: when root's programs cannot be run as another user.
    """
    if named := os.environ.get("SLUICE_HOME"):
        return Path(named).expanduser().resolve()
    if os.geteuid() == 0 and not can_read(service_user(), code_files()):
        # one home for each checkout, so that two copies never share their data
        return FOR_ROOT / hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:8]
    return CHECKOUT


def data_folder() -> Path:
    """Return the folder of the data: SLUICE_VAR, else `var` in the home.

    Raises:
        InstallationError: when `home_folder` does.
    """
    return Path(os.environ.get("SLUICE_VAR") or home_folder() / "var").resolve()


def service_user() -> pwd.struct_passwd:
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
        # by number, because root may have a second name
        raise InstallationError("SLUICE_USER may not be root: PostgreSQL refuses to run as root.")
    return found


def code_files() -> Iterator[Path]:
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
    """Return whether the user may read every path. Call as root.

    Raises:
        InstallationError: when root may not become the user.
    """
    return holds_as(who, lambda: all(os.access(path, os.R_OK) for path in paths))


def holds_as(who: pwd.struct_passwd, check: Callable[[], bool]) -> bool:
    """Return whether `check` holds in a child process that has become the user. Call as root.

    Only the kernel knows what the modes of all parent folders, access lists and mounts allow
    together, so it is asked instead of the modes.

    Raises:
        InstallationError: when root may not become the user, as in some containers.
    """
    child = os.fork()
    if child == 0:
        # the exit status says how far the child came: not the user, no answer, no, or yes
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
            f"This root may not become the user {who.pw_name}; run Sluice as an ordinary user."
        )
    return status == 0


def become_user(who: pwd.struct_passwd) -> None:
    """Give up root for good.

    Raises:
        OSError: when the kernel refuses.
    """
    # in this order: once the user is changed, the groups no longer can be
    os.initgroups(who.pw_name, who.pw_gid)
    os.setgid(who.pw_gid)
    os.setuid(who.pw_uid)


def claim_home(home: Path) -> None:
    """Make the home if there is none.

    Raises:
        InstallationError: when it cannot be written, or as root when others could change what lies
            in it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        # making a folder that is there succeeds even where nothing can be written
        writable = os.access(home, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InstallationError(
            f"{home} cannot be written; set SLUICE_HOME to a folder that can, for the libraries and"
            " the data: SLUICE_HOME=/path/to/folder make run"
        )
    # who owns the checkout already decides what runs
    if os.geteuid() == 0 and home != CHECKOUT:
        _check_only_root_changes(home)


def _check_only_root_changes(home: Path) -> None:
    for each in (home, *home.parents):
        # lstat: a link in another user's hand could be led elsewhere later
        found = each.lstat()
        # in a sticky folder such as /tmp nobody can move what root owns
        sticky = each != home and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (found.st_mode & 0o022 and not sticky):
            raise InstallationError(
                f"Other users could change {each}, and with it what root runs; set SLUICE_HOME to a"
                " folder of root's."
            )
    if not can_read(service_user(), [home]):
        raise InstallationError(
            f"The user {service_user().pw_name}, whom Sluice runs as, may not enter {home}; set"
            " SLUICE_HOME to a folder it may, or leave it unset."
        )


def cache_variables(home: Path) -> dict[str, str]:
    """Return the variables that keep every tool's cache out of a checkout that is not the home."""
    if home == CHECKOUT:
        return {}
    cache = home / "cache"
    return {
        "PYTHONPYCACHEPREFIX": str(cache / "python"),
        "NUMBA_CACHE_DIR": str(cache / "numba"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(cache / "hypothesis"),
        "MYPY_CACHE_DIR": str(cache / "mypy"),
        "RUFF_CACHE_DIR": str(cache / "ruff"),
        # a file and not a folder: test processes in parallel write theirs beside it
        "COVERAGE_FILE": str(cache / "coverage" / ".coverage"),
        # pytest knows no variable for its cache; it reads its options from this one as a shell does
        "PYTEST_ADDOPTS": f"-o cache_dir={shlex.quote(str(cache / 'pytest'))}",
    }


def forget_data() -> None:
    """Remove the data, the tools' caches and coverage's data.

    Raises:
        InstallationError: when `manage.py up` runs on the data.
    """
    data, home = data_folder(), home_folder()
    if _runs_on(data):
        raise InstallationError("It is still running. Stop it with Ctrl-C first.")
    for path in (data, *(CHECKOUT / name for name in CACHES)):
        shutil.rmtree(path, ignore_errors=True)
    for path in (path for pattern in COVERAGE_DATA for path in CHECKOUT.glob(pattern)):
        # as above: what cannot be removed, as in a read-only checkout, stays
        with contextlib.suppress(OSError):
            path.unlink()
    if home != CHECKOUT:
        shutil.rmtree(home / "cache", ignore_errors=True)


def _runs_on(data: Path) -> bool:
    """Return whether a `manage.py up` uses the data folder."""
    pid = data / "run" / "up.pid"
    # the socket tells a running one from a process that has the number of an old one
    if not (data / "run" / "supervisor.sock").is_socket() or not pid.is_file():
        return False
    number = pid.read_text().strip()
    return bool(number) and Path(f"/proc/{number}").exists()


if __name__ == "__main__":
    try:
        forget_data()
    except InstallationError as error:
        sys.exit(f"sluice: {error}")
