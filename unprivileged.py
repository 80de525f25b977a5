"""The restart of root's `manage.py` as an ordinary user (ADR 0017).

First, root copies everything that the command needs to where the user can read it, and gives the
user the data. Then the command starts again as the user. Root writes only copies that root owns,
and no process of root is left that a file of the user could mislead.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import installation
from installation import InstallationError

# Parts of the standard library that no program of ours imports; they are more than half of it.
NOT_COPIED = ("site-packages", "dist-packages", "test", "idlelib", "config-*", "__pycache__")
# Folder in a copied Python for libpython, which a Python built as a shared library needs.
SHARED = "shared"


def enter(arguments: Sequence[str]) -> None:
    """Replace this process of root by the same command, run as the user who owns the data.

    Return if this is not root. `up` first gives root's data to the user. Any other command runs
    as the data's owner, because the running programs could not read a file that root left there;
    return if that owner is root, or if there is no data yet.

    Raises:
        InstallationError: when the user cannot be given what it needs; the text says what to do.
    """
    if os.geteuid() != 0:
        return
    data = installation.data_folder()
    who = _user_of(data, arguments)
    if who is None:
        return
    # the user must be able to read the copies that root makes from here on
    os.umask(0o022)
    folder = installation.home_folder()
    installation.claim_home(folder)
    python = python_for(who, folder)
    readable = installation.can_read(who, installation.code_files())
    source = installation.CHECKOUT if readable else copy_code(folder, who)
    set_environment(who, folder, data)
    if python != Path(sys.executable):
        os.environ |= library_path(python.parents[1])
    installation.become_user(who)
    # only for `up`: relative paths in other commands' arguments start at the current folder
    if arguments[1:2] == ["up"]:
        os.chdir(source)
    # our own program, by its full path
    os.execv(python, [str(python), str(source / "manage.py"), *arguments[1:]])  # noqa: S606


def _user_of(data: Path, arguments: Sequence[str]) -> pwd.struct_passwd | None:
    """Return the user that this command of root must run as; None if root goes on running it."""
    if arguments[1:2] == ["up"]:
        who = installation.service_user()
        hand_over(data, who)
        return who
    # root owns the data, or there is none yet, as before the first `up`: then root stays
    owner = data.stat().st_uid if data.is_dir() else 0
    return pwd.getpwuid(owner) if owner else None


def set_environment(who: pwd.struct_passwd, folder: Path, data: Path) -> None:
    """Set the environment variables for the user, and drop those that name folders of root."""
    os.environ |= {
        "SLUICE_HOME": str(folder),
        "SLUICE_VAR": str(data),
        "PYTHONPYCACHEPREFIX": str(data / "cache" / "python"),
        # libpq and others look into HOME, and the user may not enter root's
        "HOME": str(data),
        "USER": who.pw_name,
        "LOGNAME": who.pw_name,
    }
    # these may name folders of root as well (XDG Base Directory Specification)
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]


def hand_over(data: Path, who: pwd.struct_passwd) -> None:
    """Make the data folder if there is none, and give the user all that root owns in it.

    Raises:
        InstallationError: when the folder belongs to a third user, or the user may not read or
            write it.
    """
    if not data.exists():
        data.mkdir(parents=True, mode=0o700)
    owner = data.stat().st_uid
    if owner not in {0, who.pw_uid}:
        name = pwd.getpwuid(owner).pw_name
        raise InstallationError(
            f"{data} belongs to the user {name}; run Sluice as that user:"
            f" SLUICE_USER={name} make run"
        )
    if owner == 0:
        _give_tree(data, who)
        # last, so that the next run completes an interrupted hand-over
        os.chown(data, who.pw_uid, who.pw_gid)
    if not installation.holds_as(who, lambda: os.access(data, os.R_OK | os.W_OK | os.X_OK)):
        raise InstallationError(
            f"Sluice runs as the user {who.pw_name}, who may not read and write {data}; set"
            " SLUICE_HOME or SLUICE_VAR to a folder where that user may, or leave them unset."
        )


def _give_tree(data: Path, who: pwd.struct_passwd) -> None:
    """Give the user what root owns below the data folder."""
    # by open folder handles: a path could be replaced by a link between check and change
    for path, _, files, handle in os.fwalk(data, topdown=False, follow_symlinks=False):
        # folders of other users stay as they are
        if os.fstat(handle).st_uid != 0:
            continue
        for name in files:
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            # a file with a second hard link may be one of root's elsewhere, such as /etc/shadow
            if found.st_uid == 0 and found.st_nlink == 1:
                os.chown(name, who.pw_uid, who.pw_gid, dir_fd=handle, follow_symlinks=False)
        if Path(path) != data:
            os.fchown(handle, who.pw_uid, who.pw_gid)


def python_for(who: pwd.struct_passwd, folder: Path) -> Path:
    """Return the path of a Python that the user can run with our libraries: of this Python, or of
    a copy in the home if only root may reach this one, such as in root's pyenv.

    Raises:
        InstallationError: when the user cannot read the libraries, or the copy does not work.
    """
    libraries = Path(sysconfig.get_path("purelib"))
    if not installation.can_read(who, [libraries / "django" / "__init__.py"]):
        raise InstallationError(
            f"Sluice runs as the user {who.pw_name}, who may not read {libraries}; start it with"
            " `make run`, which installs the libraries where that user may read them."
        )
    mine = Path(sys.executable)
    if installation.holds_as(
        who, lambda: os.access(mine, os.X_OK) and os.access(os.__file__, os.R_OK)
    ):
        return mine
    return _copied_python(folder, libraries, who)


def _copied_python(folder: Path, libraries: Path, who: pwd.struct_passwd) -> Path:
    copy = folder / ".python"
    program = copy / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    # a change of Python or of the libraries' folder needs a new copy
    made_from = f"{sys.base_prefix}\n{sys.version}\n{libraries}\n"
    stamp = copy / "made-from"
    if not stamp.is_file() or stamp.read_text() != made_from:
        copy_python(copy, program.name, libraries, made_from, who)
    return program


def copy_python(
    target: Path, name: str, libraries: Path, made_from: str, who: pwd.struct_passwd
) -> None:
    """Copy this Python to `target`, and make the copy find the libraries.

    Raises:
        InstallationError: when the copy does not run as the user.
    """
    installation.claim_home(target.parent)
    # beside the target, because a rename works only within one file system
    draft = Path(tempfile.mkdtemp(prefix=".python-", dir=target.parent))
    try:
        _fill_copy(draft, name, libraries)
        (draft / "made-from").write_text(made_from)
        open_to_all(draft)
        _try_copy(draft / "bin" / name, who)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fill_copy(draft: Path, name: str, libraries: Path) -> None:
    """Copy the program, the standard library and the shared libraries into the draft.

    A Python looks for its standard library beside itself, so the copy may lie anywhere
    (https://docs.python.org/3/using/cmdline.html).
    """
    standard = draft / sys.platlibdir / name
    shutil.copytree(Path(os.__file__).parent, standard, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (draft / "bin").mkdir()
    # sys.executable is a link in the environment; typeshed does not know the attribute used here
    shutil.copy(Path(sys._base_executable).resolve(), draft / "bin" / name)  # type: ignore[attr-defined]
    for library in (Path(sys.base_prefix) / "lib").glob("lib*.so*"):
        # libpython has its own folder: LD_LIBRARY_PATH affects every program, and must add no other
        place = draft / (SHARED if library.name.startswith("libpython") else "lib")
        place.mkdir(exist_ok=True)
        shutil.copy(library, place / library.name)
    (standard / "site-packages").mkdir()
    # addsitedir and not the bare path, so that the libraries' own .pth files are read too
    (standard / "site-packages" / "sluice.pth").write_text(
        f"import site; site.addsitedir({str(libraries)!r})\n"
    )


def _try_copy(program: Path, who: pwd.struct_passwd) -> None:
    # ctypes, ssl and zlib need shared libraries that a copy may lack; django shows that ours load
    tried = subprocess.run(
        [program, "-I", "-c", "import ctypes, ssl, zlib, django"],
        user=who.pw_uid,
        group=who.pw_gid,
        extra_groups=[],
        cwd="/",
        env=os.environ | library_path(program.parents[1]),
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        raise InstallationError(
            f"Sluice runs as the user {who.pw_name}, who may not run the Python in"
            f" {sys.base_prefix}, and a copy of it does not work; name a Python that this user may"
            " run: make run PYTHON=/usr/bin/python3"
        )


def library_path(copy: Path) -> dict[str, str]:
    """Return the variable by which a copied Python finds its libpython; {} if it has none.

    The path that is built into the program still names the original's folder.
    """
    before = os.environ.get("LD_LIBRARY_PATH", "")
    paths = [str(copy / SHARED), *([before] if before else [])]
    return {"LD_LIBRARY_PATH": ":".join(paths)} if (copy / SHARED).is_dir() else {}


def copy_code(folder: Path, who: pwd.struct_passwd) -> Path:
    """Bring the copy of our code up to date; return its folder, which only the user may read."""
    target = folder / "code"
    target.mkdir(mode=0o700, exist_ok=True)
    wanted = {path.relative_to(installation.CHECKOUT) for path in installation.code_files()}
    for name in wanted:
        _renew_file(installation.CHECKOUT / name, target / name)
    # reversed, so that a folder comes after what lies in it
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(target) not in wanted:
            path.unlink()
    # root owns the folder, so that the user cannot change what root updates next time
    os.chown(target, 0, who.pw_gid)
    target.chmod(0o750)
    return target


def _renew_file(source: Path, copy: Path) -> None:
    found = source.stat()
    if copy.exists() and _size_and_time(copy.stat()) == _size_and_time(found):
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    draft = copy.with_name(f".{copy.name}.draft")
    shutil.copyfile(source, draft)
    draft.chmod(0o644)
    os.utime(draft, ns=(found.st_atime_ns, found.st_mtime_ns))
    # by renaming, so that a running program reads a whole file, old or new
    draft.replace(copy)


def open_to_all(folder: Path) -> None:
    """Let every user read a folder that we made, whatever modes its files were copied with."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            readable = 0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644
            if mode & readable != readable:
                path.chmod(mode | readable)


def _size_and_time(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns
