"""Command that makes the virtual environment and starts a program from it:
`python bootstrap.py [--dev] PROGRAM ...`.

Unless that is done already, it installs exactly the libraries of the lock file into `.venv` in the
installation's home (`installation.py`). `--dev` adds the development tools. The command needs a
supported Python and nothing else.
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
# People need one line of progress here, and no advice to upgrade pip.
QUIET = ["--quiet", "--disable-pip-version-check"]
# Bytes. Chosen: what the libraries and the data of a demo need, rounded up.
NEEDED_BYTES = 3e9
# Libraries that take seconds to compile to bytecode, so they are compiled once, when installed.
# Python keeps no bytecode where PYTHONDONTWRITEBYTECODE is set, as in many containers, or where the
# user may not write: each of a dozen processes would then compile again. lightgbm and shap need no
# settings to be imported, and importing them compiles numpy, scipy, pandas and scikit-learn too.
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
# Modules that a self-compiled Python often lacks. With each: the compiled module to look for (the
# part in Python exists even without it), and the system library that was missing at the build.
NEEDED_MODULES = {
    "ssl": ("_ssl", "OpenSSL"),
    "ctypes": ("_ctypes", "libffi"),
    "zlib": ("zlib", "zlib"),
}


def exit_with_sentence(sentence: str) -> NoReturn:
    """End the program with status 1 and one sentence on standard error."""
    sys.exit(f"sluice: {sentence}")


def run_quietly(command: list[str | Path], on_failure: str) -> None:
    """Run a program. Only if it fails, show the end of its output and exit with `on_failure`."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-SHOWN_OUTPUT:])
        exit_with_sentence(on_failure)


def check_machine(folder: Path) -> None:
    """Exit with a sentence when this Python is unsuitable or the disk of `folder` is too full."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
        exit_with_sentence(
            f"{sys.executable} is Python {sys.version.split()[0]}, but the libraries need"
            f" {oldest} to {newest}. Name another Python: make PYTHON=/path/to/python3"
        )
    for module, (compiled, package) in NEEDED_MODULES.items():
        if importlib.util.find_spec(compiled) is None:
            exit_with_sentence(
                f"this Python ({sys.executable}) was built without {package}, so it has no module"
                f" {module}. Name another Python: make PYTHON=/path/to/python3"
            )
    if shutil.disk_usage(folder).free < NEEDED_BYTES:
        exit_with_sentence(
            f"less than 3 GB is free on the disk of {folder}, and the libraries and the data need"
            " about 3 GB. Free some space, or set SLUICE_HOME to a folder on another disk."
        )


def make_venv(venv: Path) -> None:
    """Make the virtual environment, with pip if this Python has ensurepip."""
    # Debian and Ubuntu leave ensurepip out of python3; venv would fail there without the option
    has_pip = importlib.util.find_spec("ensurepip") is not None
    run_quietly(
        [sys.executable, "-m", "venv", *([] if has_pip else ["--without-pip"]), venv],
        f"could not make the virtual environment {venv}; the output above says why.",
    )


def install_uv(venv: Path, lock: str) -> None:
    """Install uv into the environment, in the version and with the hash that the lock text names.

    The environment's pip installs it. An environment made without ensurepip has no pip, so this
    Python's pip or a uv on the PATH installs it then.
    """
    stanza = re.search(r"^uv==.*(?:\n[ ]+.*)*", lock, re.MULTILINE)
    if stanza is None:
        exit_with_sentence("the lock file names no uv. Run `make lock` to write it again.")
    # silences pip's warning about root. Set as a variable and not as an option, because uv, which
    # may get the same arguments, does not know the option.
    os.environ["PIP_ROOT_USER_ACTION"] = "ignore"
    # pip takes hashes only from a file of requirements, never from the command line
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(stanza[0] + "\n")
        wanted.flush()
        run_quietly(
            _uv_installer(venv, wanted.name),
            "could not install uv; the output above says why. Is your package mirror reachable?",
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
        "this Python has no ensurepip and no pip, and there is no uv on the PATH. On Debian or"
        " Ubuntu, install python3-venv: apt install python3-venv. Then run make again."
    )


def install_lock(venv: Path, lock: Path) -> None:
    """Install exactly the libraries of the lock file into the environment, and compile them.

    Raises:
        InstallationError: when the home cannot be written, or as root when others could change it.
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
        # uv's links share the modes of its cache, which an earlier umask set; copies can be opened
        sync += ["--link-mode", "copy"]
    run_quietly(
        [*sync, "--python", python, lock],
        "could not install the libraries; the output above says why.",
    )
    run_quietly(
        [python, "-c", COMPILE],
        "the libraries are installed but cannot be imported; the output above says why.",
    )
    if os.geteuid() == 0:
        from unprivileged import open_to_all

        open_to_all(venv)


def lock_stamp(lock: Path) -> str:
    """Return the text of `.installed` once the lock's libraries are installed and compiled."""
    return f"{lock.name} {hashlib.sha256(lock.read_bytes()).hexdigest()} compiled\n"


def enter_home() -> Path:
    """Return the home. If it is not the checkout, set SLUICE_HOME and the caches' variables to it.

    Raises:
        InstallationError: when root finds no user to run as, or no home that only root can change.
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
    """Install the libraries if the lock has changed since the last run, then become the program."""
    arguments = sys.argv[1:]
    dev = arguments[:1] == ["--dev"]
    venv = enter_home() / ".venv"
    stamp = venv / ".installed"
    said = stamp.read_text() if stamp.is_file() else ""
    # once installed, the test tools stay: else `make test` and `make run` would each reinstall
    tools = dev or said.startswith("requirements-dev.lock")
    lock = installation.CHECKOUT / ("requirements-dev.lock" if tools else "requirements.lock")
    wanted = lock_stamp(lock)
    if said != wanted or not (venv / "bin" / "python").exists():
        install_lock(venv, lock)
        # written last, so that an interrupted installation is done again
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
