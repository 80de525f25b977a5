"""The gateway's configuration: the documented example, its marked lines filled in for this
machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "gateway" / "envoy.yaml"
_MARKED = re.compile(r"(port_value: |path: )[^\s}]+(.*# up: )([a-z0-9-]+)$", re.MULTILINE)


def render(ports: Mapping[str, int], access_log: Path) -> str:
    """Envoy's configuration with `ports` by the names in its "# up:" marks.

    Raises:
        KeyError: when the example marks a name that is not in `ports`.
    """

    def fill(match: re.Match[str]) -> str:
        value = json.dumps(str(access_log)) if match[3] == "access-log" else str(ports[match[3]])
        return f"{match[1]}{value}{match[2]}{match[3]}"

    return _MARKED.sub(fill, EXAMPLE.read_text())
