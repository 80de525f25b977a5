"""Makes the environment and starts a program of it: `python bootstrap.py [--dev] PROGRAM ...`.

Installs exactly what the lock says into `.venv` in the installation's home (`installation.py`),
when that is not done yet. Needs a Python of the supported range and nothing else.
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

OLDEST, NEWEST = (3, 11), (3, 14)
"""The Pythons that every locked library has a wheel for."""
QUIET = ["--quiet", "--disable-pip-version-check"]
NEEDED_BYTES = 3e9
"""What the libraries and the data need, about."""


def stop(sentence: str) -> NoReturn:
    """Ends with one sentence."""
    sys.exit(f"sluice: {sentence}")


def run(command: list[str | Path], on_failure: str) -> None:
    """Runs a program, its output kept back unless it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-3000:])
        stop(on_failure)


def check(folder: Path) -> None:
    """Says in a sentence what this machine lacks."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
        stop(
            f"{sys.executable} is Python {sys.version.split()[0]}, but the libraries need"
            f" {oldest} to {newest}. Name another: make PYTHON=/path/to/python3"
        )
    for module, package in {"ssl": "OpenSSL", "ctypes": "libffi", "zlib": "zlib"}.items():
        if (
            importlib.util.find_spec(f"_{module}" if module in {"ssl", "ctypes"} else module)
            is None
        ):
            stop(
                f"this Python ({sys.executable}) was built without {package}, so has no {module}."
                " Name another: make PYTHON=/path/to/python3"
            )
    if shutil.disk_usage(folder).free < NEEDED_BYTES:
        stop(
            f"fewer than 3 GB are free where {folder} is; the libraries and the data need about"
            " that. Free some space, or set SLUICE_HOME elsewhere."
        )


def make_venv(venv: Path) -> None:
    """Makes the environment, with pip where this Python can."""
    has_pip = importlib.util.find_spec("ensurepip") is not None
    run(
        [sys.executable, "-m", "venv", *([] if has_pip else ["--without-pip"]), venv],
        f"could not make {venv}; see above.",
    )


def make_uv(venv: Path, lock: str) -> None:
    """Installs the lock's uv into the environment, its hash checked; without ensurepip, by this
    Python's pip or a uv on the path.
    """
    python = venv / "bin" / "python"
    stanza = re.search(r"^uv==.*(?:\n[ ]+.*)*", lock, re.MULTILINE)
    if stanza is None:
        stop("the lock names no uv. Run `make lock`.")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(stanza[0] + "\n")
        wanted.flush()
        os.environ["PIP_ROOT_USER_ACTION"] = (
            "ignore"  # an option only of `pip install`, and unknown to uv
        )
        arguments = ["install", "--require-hashes", "--no-deps", "-r", wanted.name]
        if (venv / "bin" / "pip").exists():
            installer: list[str | Path] = [python, "-m", "pip", *QUIET]
        elif importlib.util.find_spec("pip"):
            installer = [sys.executable, "-m", "pip", "--python", python, *QUIET]
        elif shutil.which("uv"):
            installer, arguments = ["uv", "pip"], [*arguments, "--python", str(python)]
        else:
            stop(
                "this Python has no ensurepip, pip or uv. On Debian or Ubuntu: apt install"
                " python3-venv. Then run make again."
            )
        run(
            [*installer, *arguments],
            "could not install uv; is the network, or your package mirror, reachable? See above.",
        )


def install(venv: Path, lock: Path) -> None:
    """Has the environment hold what the lock says, and nothing else."""
    folder = venv.parent
    installation.claim(folder)
    check(folder)
    python = venv / "bin" / "python"
    if not python.exists():
        make_venv(venv)
    if not (venv / "bin" / "uv").exists():
        make_uv(venv, lock.read_text())
    print(  # noqa: T201
        f"Installing the libraries of {lock.name} into {venv} (about half a minute the first"
        " time) ...",
        flush=True,
    )
    sync: list[str | Path] = [venv / "bin" / "uv", "pip", "sync", "--quiet", "--require-hashes"]
    if os.geteuid() == 0:
        sync += ["--link-mode", "copy"]  # files of the cache have the modes of another day
    run([*sync, "--python", python, lock], "could not install the libraries; see above.")
    if os.geteuid() == 0:
        from unprivileged import open_to_all

        open_to_all(venv)


def holding(lock: Path) -> str:
    """What an environment that holds what the lock says is marked with."""
    return f"{lock.name} {hashlib.sha256(lock.read_bytes()).hexdigest()}\n"


def main() -> None:
    """Installs where the lock has changed since, and becomes the program."""
    arguments = sys.argv[1:]
    dev = arguments[:1] == ["--dev"]
    folder = installation.folder()
    if os.geteuid() == 0:
        os.umask(0o022)  # another user is to read what root installs
        installation.claim(folder)  # nor does root run what another user put there
    if folder != installation.CHECKOUT:
        sys.stderr.write(f"Sluice's libraries and data are in {folder}.\n")
        os.environ |= {"SLUICE_HOME": str(folder), **installation.caches(folder)}
    venv = folder / ".venv"
    stamp = venv / ".installed"
    said = stamp.read_text() if stamp.is_file() else ""
    # what has the tools too is not taken back to what only runs
    tools = dev or said.startswith("requirements-dev.lock")
    lock = installation.CHECKOUT / ("requirements-dev.lock" if tools else "requirements.lock")
    holds = holding(lock)
    if said != holds or not (venv / "bin" / "python").exists():
        install(venv, lock)
        stamp.write_text(holds)
    program = arguments[int(dev) :]
    if program:
        path = venv / "bin" / program[0]
        os.execv(path, [str(path), *program[1:]])  # noqa: S606 - that is the point


if __name__ == "__main__":
    try:
        main()
    except installation.InstallationError as error:
        stop(str(error))
