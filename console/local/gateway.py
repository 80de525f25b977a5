"""The gateway's configuration: the documented example, its marked lines filled in for this
machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

# The file in the documentation is the one that runs, so the documentation cannot fall behind.
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "gateway" / "envoy.yaml"
# A value with the mark behind it, in a comment: the example stays valid YAML when copied.
_MARKED = re.compile(r"(port_value: |path: )[^\s}]+(.*# up: )([a-z0-9-]+)$", re.MULTILINE)


def render_envoy_config(ports: Mapping[str, int], access_log: Path) -> str:
    """Return Envoy's configuration as YAML: the example with its marked lines filled in.

    `ports` holds a port by the name in its "# up: NAME" mark; "# up: access-log" gets `access_log`.

    Raises:
        KeyError: when the example marks a name that is not in `ports`.
    """

    def fill(match: re.Match[str]) -> str:
        # as JSON, which YAML includes: a path may hold spaces, quotes and colons
        value = json.dumps(str(access_log)) if match[3] == "access-log" else str(ports[match[3]])
        return f"{match[1]}{value}{match[2]}{match[3]}"

    return _MARKED.sub(fill, EXAMPLE.read_text())
