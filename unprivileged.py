"""The way of root's `manage.py` to another user: put everything that it needs where that user can
read it, hand the data over, and restart the command as the user (ADR 0017).

Root writes only what root owns: the copies. After that no process of root's is left that a file of
the user's could mislead.
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

# Parts of a standard library that no program of ours imports; they are more than half of it.
NOT_COPIED = ("site-packages", "dist-packages", "test", "idlelib", "config-*", "__pycache__")
# Folder of a copied Python for libpython, which holds most of a Python that is built shared.
SHARED = "shared"


def enter(arguments: Sequence[str]) -> None:
    """Start this command again as the user whose data it is, for good; return where root stays.

    `up` hands data of root's over to the user. Any other command runs as the data's owner: a file
    that root left there could not be read by the programs that run.

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
    # a relative path in another command's arguments means the folder it was called from
    if arguments[1:2] == ["up"]:
        os.chdir(source)
    # our own program, by its full path
    os.execv(python, [str(python), str(source / "manage.py"), *arguments[1:]])  # noqa: S606


def _user_of(data: Path, arguments: Sequence[str]) -> pwd.struct_passwd | None:
    """Return whom a command of root's runs as; None where it stays root's."""
    if arguments[1:2] == ["up"]:
        who = installation.service_user()
        hand_over(data, who)
        return who
    # data of root's, or none yet: a command before the first `up` has nobody to become
    owner = data.stat().st_uid if data.is_dir() else 0
    return pwd.getpwuid(owner) if owner else None


def set_environment(who: pwd.struct_passwd, folder: Path, data: Path) -> None:
    """Replace what the environment says of root by what holds for the user."""
    os.environ |= {
        "SLUICE_HOME": str(folder),
        "SLUICE_VAR": str(data),
        "PYTHONPYCACHEPREFIX": str(data / "cache" / "python"),
        # libpq and others look into the home folder, and the user may not enter root's
        "HOME": str(data),
        "USER": who.pw_name,
        "LOGNAME": who.pw_name,
    }
    # these name folders of root's too (XDG Base Directory Specification)
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]


def hand_over(data: Path, who: pwd.struct_passwd) -> None:
    """Make the data folder, or what root owns of an earlier one, the user's.

    Raises:
        InstallationError: when it is somebody else's, or the user may not go there.
    """
    if not data.exists():
        data.mkdir(parents=True, mode=0o700)
    owner = data.stat().st_uid
    if owner not in {0, who.pw_uid}:
        name = pwd.getpwuid(owner).pw_name
        raise InstallationError(
            f"{data} belongs to {name}; run as that user: SLUICE_USER={name} make run"
        )
    if owner == 0:
        _give_tree(data, who)
        # last: a hand-over that was cut short is taken up again
        os.chown(data, who.pw_uid, who.pw_gid)
    if not installation.holds_as(who, lambda: os.access(data, os.R_OK | os.W_OK | os.X_OK)):
        raise InstallationError(
            f"The user {who.pw_name}, whom Sluice runs as, may not enter {data}; set SLUICE_HOME or"
            " SLUICE_VAR to a folder it may, or leave them unset."
        )


def _give_tree(data: Path, who: pwd.struct_passwd) -> None:
    """Give the user what root owns below the data folder."""
    # by open folder handles: a path could be led elsewhere between the check and the change
    for path, _, files, handle in os.fwalk(data, topdown=False, follow_symlinks=False):
        # others' folders are left alone
        if os.fstat(handle).st_uid != 0:
            continue
        for name in files:
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            # a second name may be anybody's way to a file of root's, such as /etc/shadow
            if found.st_uid == 0 and found.st_nlink == 1:
                os.chown(name, who.pw_uid, who.pw_gid, dir_fd=handle, follow_symlinks=False)
        if Path(path) != data:
            os.fchown(handle, who.pw_uid, who.pw_gid)


def python_for(who: pwd.struct_passwd, folder: Path) -> Path:
    """Return a Python that the user can run with our libraries: this one, or a copy of it in the
    home when it lies where only root may go, such as in root's pyenv.

    Raises:
        InstallationError: when the user cannot read the libraries, or the copy does not work.
    """
    libraries = Path(sysconfig.get_path("purelib"))
    if not installation.can_read(who, [libraries / "django" / "__init__.py"]):
        raise InstallationError(
            f"The user {who.pw_name}, whom Sluice runs as, may not read {libraries}; start it with"
            " `make run`, which puts the libraries where it may."
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
    # another Python, or other libraries, make a new copy
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
    # beside the target, because a rename works within one file system alone
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
    # sys.executable is a link of the environment's; typeshed does not list what it points to
    shutil.copy(Path(sys._base_executable).resolve(), draft / "bin" / name)  # type: ignore[attr-defined]
    for library in (Path(sys.base_prefix) / "lib").glob("lib*.so*"):
        # apart, as LD_LIBRARY_PATH is for every program and should name this one library
        place = draft / (SHARED if library.name.startswith("libpython") else "lib")
        place.mkdir(exist_ok=True)
        shutil.copy(library, place / library.name)
    (standard / "site-packages").mkdir()
    # addsitedir and not the bare path: the libraries' own .pth files count too
    (standard / "site-packages" / "sluice.pth").write_text(
        f"import site; site.addsitedir({str(libraries)!r})\n"
    )


def _try_copy(program: Path, who: pwd.struct_passwd) -> None:
    # these modules load the shared libraries that a copy could lack, and django our libraries
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
            f"The user {who.pw_name}, whom Sluice runs as, may not run {sys.base_prefix}, and a"
            " copy of it does not work; name a Python that it may run:"
            " make run PYTHON=/usr/bin/python3"
        )


def library_path(copy: Path) -> dict[str, str]:
    """Return the variable that leads a copied Python to its libpython; empty where it has none.

    The path that is built into the program is the original's.
    """
    before = os.environ.get("LD_LIBRARY_PATH", "")
    paths = [str(copy / SHARED), *([before] if before else [])]
    return {"LD_LIBRARY_PATH": ":".join(paths)} if (copy / SHARED).is_dir() else {}


def copy_code(folder: Path, who: pwd.struct_passwd) -> Path:
    """Bring the copy of our code up to date, for the user's eyes only; return its folder."""
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
    # root's, so that the user cannot change what root copies next time
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
    # a program that runs reads the old one or the new one, whole
    draft.replace(copy)


def open_to_all(folder: Path) -> None:
    """Let everyone read a folder that we made, whatever the modes of what it was made from."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            readable = 0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644
            if mode & readable != readable:
                path.chmod(mode | readable)


def _size_and_time(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns
