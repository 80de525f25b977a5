"""Makes `.venv` and installs exactly what the lock says: `python bootstrap.py [--dev]`. Needs
Python 3.11 and nothing else.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
QUIET = ["--quiet", "--disable-pip-version-check"]


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


def check() -> None:
    """Says in a sentence what this machine lacks."""
    for module, package in {"ssl": "OpenSSL", "ctypes": "libffi", "zlib": "zlib"}.items():
        if (
            importlib.util.find_spec(f"_{module}" if module in {"ssl", "ctypes"} else module)
            is None
        ):
            stop(
                f"this Python ({sys.executable}) was built without {package}, so has no {module}."
                " Use another Python 3.11 or newer."
            )
    if shutil.disk_usage(ROOT).free < 3e9:
        stop(
            f"fewer than 3 GB are free where {ROOT} is; the libraries and the data need about that."
            " Free some space first."
        )


def make_venv() -> None:
    """Makes `.venv`, with pip where this Python can."""
    has_pip = importlib.util.find_spec("ensurepip") is not None
    run(
        [sys.executable, "-m", "venv", *([] if has_pip else ["--without-pip"]), VENV],
        f"could not make {VENV}; see above.",
    )


def make_uv(lock: str) -> None:
    """Installs the lock's uv into `.venv`, its hash checked; without ensurepip, by this Python's
    pip or a uv on the path.
    """
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
        if (VENV / "bin" / "pip").exists():
            installer: list[str | Path] = [PYTHON, "-m", "pip", *QUIET]
        elif importlib.util.find_spec("pip"):
            installer = [sys.executable, "-m", "pip", "--python", PYTHON, *QUIET]
        elif shutil.which("uv"):
            installer, arguments = ["uv", "pip"], [*arguments, "--python", str(PYTHON)]
        else:
            stop(
                "this Python has no ensurepip, pip or uv. On Debian or Ubuntu: apt install"
                " python3-venv. Then run make again."
            )
        run(
            [*installer, *arguments],
            "could not install uv; is the network, or your package mirror, reachable? See above.",
        )


def main() -> None:
    check()
    name = "requirements-dev.lock" if "--dev" in sys.argv else "requirements.lock"
    lock = ROOT / name
    if not PYTHON.exists():
        make_venv()
    if not UV.exists():
        make_uv(lock.read_text())
    print(  # noqa: T201
        f"Installing the libraries of {name} into .venv (about half a minute the first time) ...",
        flush=True,
    )
    sync: list[str | Path] = [
        UV,
        "pip",
        "sync",
        "--quiet",
        "--require-hashes",
        "--python",
        PYTHON,
        lock,
    ]
    run(sync, "could not install the libraries; see above.")


if __name__ == "__main__":
    main()
