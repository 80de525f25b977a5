"""Command that makes the environment and starts a program of it:
`python bootstrap.py [--dev] PROGRAM ...`.

It installs exactly what the lock says into `.venv` in the installation's home (`installation.py`),
when that is not done yet. It needs a Python of the supported range and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import installation

# Every locked library has a wheel for these Pythons; elsewhere pip would try to compile it.
OLDEST, NEWEST = (3, 11), (3, 14)
# A person waits for one line of progress, not for pip's advice to renew itself.
QUIET = ["--quiet", "--disable-pip-version-check"]
# Bytes. Chosen: what the libraries and the data of a demo need, rounded up.
NEEDED_BYTES = 3e9
# Libraries that take seconds to compile. Python keeps what it compiled beside the source, but not
# under PYTHONDONTWRITEBYTECODE, as in many containers, nor for a user who may not write there: then
# each of a dozen processes would compile them again. The first two need no settings to be imported,
# and bring numpy, scipy, pandas and scikit-learn along.
IMPORTED_AT_INSTALL = "lightgbm, shap"
COMPILED_AT_INSTALL = ("celery", "django", "kombu", "rest_framework")
COMPILE = f"""\
import compileall, importlib.util, sys
sys.dont_write_bytecode = False
import {IMPORTED_AT_INSTALL}
for name in {COMPILED_AT_INSTALL}:
    compileall.compile_dir(importlib.util.find_spec(name).submodule_search_locations[0], quiet=1)
"""
# Characters. Chosen: the end of an installer's output names the failure; a screen holds this much.
SHOWN_OUTPUT = 3000
# Modules that a Python built by hand often lacks, each with the module to look for (the compiled
# half: the other is there without it) and the system library that was missing when it was built.
NEEDED_MODULES = {
    "ssl": ("_ssl", "OpenSSL"),
    "ctypes": ("_ctypes", "libffi"),
    "zlib": ("zlib", "zlib"),
}


def exit_with_sentence(sentence: str) -> NoReturn:
    """End the program with status 1 and one sentence on standard error."""
    sys.exit(f"sluice: {sentence}")


def run_quietly(command: list[str | Path], on_failure: str) -> None:
    """Run a program; show its output, and exit with `on_failure`, only when it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-SHOWN_OUTPUT:])
        exit_with_sentence(on_failure)


def check_machine(folder: Path) -> None:
    """Exit with a sentence when this Python or the disk of `folder` cannot hold an installation."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
        exit_with_sentence(
            f"{sys.executable} is Python {sys.version.split()[0]}, but the libraries need"
            f" {oldest} to {newest}. Name another: make PYTHON=/path/to/python3"
        )
    for module, (compiled, package) in NEEDED_MODULES.items():
        if importlib.util.find_spec(compiled) is None:
            exit_with_sentence(
                f"this Python ({sys.executable}) was built without {package}, so has no {module}."
                " Name another: make PYTHON=/path/to/python3"
            )
    if shutil.disk_usage(folder).free < NEEDED_BYTES:
        exit_with_sentence(
            f"fewer than 3 GB are free where {folder} is; the libraries and the data need about"
            " that. Free some space, or set SLUICE_HOME elsewhere."
        )


def make_venv(venv: Path) -> None:
    """Make the environment, with pip where this Python can."""
    # Debian and Ubuntu leave ensurepip out of python3; venv would fail there without the option
    has_pip = importlib.util.find_spec("ensurepip") is not None
    run_quietly(
        [sys.executable, "-m", "venv", *([] if has_pip else ["--without-pip"]), venv],
        f"could not make {venv}; see above.",
    )


def install_uv(venv: Path, lock: str) -> None:
    """Install the uv that the text of the lock names into the environment, and check its hash.

    The environment's pip does it; where there is no ensurepip, this Python's pip or a uv on the
    path does.
    """
    stanza = re.search(r"^uv==.*(?:\n[ ]+.*)*", lock, re.MULTILINE)
    if stanza is None:
        exit_with_sentence("the lock names no uv. Run `make lock`.")
    # pip warns of a root user. The option exists for `pip install` alone and uv does not know it,
    # so the variable says it.
    os.environ["PIP_ROOT_USER_ACTION"] = "ignore"
    # pip takes hashes only from a file of requirements, never from the command line
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(stanza[0] + "\n")
        wanted.flush()
        run_quietly(
            _uv_installer(venv, wanted.name),
            "could not install uv; is the network, or your package mirror, reachable? See above.",
        )


def _uv_installer(venv: Path, wanted: str) -> list[str | Path]:
    python = venv / "bin" / "python"
    arguments = ["install", "--require-hashes", "--no-deps", "-r", wanted]
    if (venv / "bin" / "pip").exists():
        return [python, "-m", "pip", *QUIET, *arguments]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "--python", python, *QUIET, *arguments]
    if shutil.which("uv"):
        return ["uv", "pip", *arguments, "--python", python]
    exit_with_sentence(
        "this Python has no ensurepip, pip or uv. On Debian or Ubuntu: apt install"
        " python3-venv. Then run make again."
    )


def install_lock(venv: Path, lock: Path) -> None:
    """Make the environment hold what the lock says, and nothing else.

    Raises:
        InstallationError: when the home cannot be written or trusted.
    """
    folder = venv.parent
    installation.claim_home(folder)
    check_machine(folder)
    python = venv / "bin" / "python"
    if not python.exists():
        make_venv(venv)
    if not (venv / "bin" / "uv").exists():
        install_uv(venv, lock.read_text())
    print(  # noqa: T201
        f"Installing the libraries of {lock.name} into {venv} (about a minute the first time) ...",
        flush=True,
    )
    sync: list[str | Path] = [venv / "bin" / "uv", "pip", "sync", "--quiet", "--require-hashes"]
    if os.geteuid() == 0:
        # uv links files of its cache, whose modes an earlier umask set; copies are ours to open
        sync += ["--link-mode", "copy"]
    run_quietly([*sync, "--python", python, lock], "could not install the libraries; see above.")
    run_quietly(
        [python, "-c", COMPILE], "the libraries are installed and cannot be used; see above."
    )
    if os.geteuid() == 0:
        from unprivileged import open_to_all

        open_to_all(venv)


def lock_stamp(lock: Path) -> str:
    """Return the text that marks an environment as holding what the lock says, compiled."""
    return f"{lock.name} {hashlib.sha256(lock.read_bytes()).hexdigest()} compiled\n"


def enter_home() -> Path:
    """Return the home, after pointing the environment's variables at it.

    Raises:
        InstallationError: when there is no home to be had.
    """
    folder = installation.home_folder()
    if os.geteuid() == 0:
        # another user must be able to read what root installs
        os.umask(0o022)
        # root must not run what another user put there, so this comes before any use of the home
        installation.claim_home(folder)
    if folder != installation.CHECKOUT:
        sys.stderr.write(f"Sluice's libraries and data are in {folder}.\n")
        os.environ |= {"SLUICE_HOME": str(folder), **installation.cache_variables(folder)}
    return folder


def main() -> None:
    """Install where the lock has changed since the last time, then become the program."""
    arguments = sys.argv[1:]
    dev = arguments[:1] == ["--dev"]
    venv = enter_home() / ".venv"
    stamp = venv / ".installed"
    said = stamp.read_text() if stamp.is_file() else ""
    # `make run` after `make test` keeps the test tools: two locks in turn would install each time
    tools = dev or said.startswith("requirements-dev.lock")
    lock = installation.CHECKOUT / ("requirements-dev.lock" if tools else "requirements.lock")
    wanted = lock_stamp(lock)
    if said != wanted or not (venv / "bin" / "python").exists():
        install_lock(venv, lock)
        # last: an installation that was cut short is done again
        stamp.write_text(wanted)
    program = arguments[int(dev) :]
    if program:
        path = venv / "bin" / program[0]
        # this process becomes the program, so that signals to make's child reach it
        os.execv(path, [str(path), *program[1:]])  # noqa: S606


if __name__ == "__main__":
    try:
        main()
    except installation.InstallationError as error:
        exit_with_sentence(str(error))
