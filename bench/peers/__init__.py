"""Peers that Sluice is compared with. They run in an environment of their own, because the product
does not depend on them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOME = ROOT / ".bench-venv"
PYTHON = HOME / "bin" / "python"
PINS = HERE.parent / "peers.txt"
_INSTALLED = HOME / "peers.txt"


def install() -> str | None:
    """Make the environment, or renew it when the pins have changed. Return an error, or None."""
    if _INSTALLED.is_file() and _INSTALLED.read_bytes() == PINS.read_bytes():
        return None
    uv = str(Path(sys.executable).parent / "uv")
    make = [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(HOME)]
    fill = [uv, "pip", "sync", "--quiet", "--python", str(PYTHON), str(PINS)]
    for command in (make, fill):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"the peers could not be installed: {done.stderr.strip()[-500:]}"
    _INSTALLED.write_bytes(PINS.read_bytes())
    return None


def command(script: str, *arguments: str) -> list[str]:
    """Return the command line of a peer's script."""
    return [str(PYTHON), str(HERE / script), *arguments]
