"""The configurations of the two Envoys, the gateway's and the console's: the documented examples,
their marked lines filled in for this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

# The file in the documentation is the one that runs, so the documentation cannot fall behind.
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLE = _EXAMPLES / "gateway" / "envoy.yaml"
# In front of the console.
CONSOLE_EXAMPLE = _EXAMPLES / "console" / "envoy.yaml"
# A value with the mark behind it, in a comment: the example stays valid YAML when copied.
_MARKED = re.compile(
    r"(port_value: |path: |filename: |xff_num_trusted_hops: )[^\s},]+(.*# up: )([a-z0-9-]+)$",
    re.MULTILINE,
)
# Trusted proxies in front of a gateway of this machine. One: the program that plays the traffic
# stands for a proxy, and names the addresses of its clients in x-forwarded-for.
LOCAL_TRUSTED_HOPS = 1


def render_envoy_config(
    places: Mapping[str, int | Path],
    access_log: Path,
    jwks: Path,
    rules: Path,
    trusted_hops: int = LOCAL_TRUSTED_HOPS,
) -> str:
    """Return Envoy's configuration as YAML: the example with its marked lines filled in.

    `places` holds a port, or the path of a socket, by the name in its "# up: NAME" mark. "# up:
    access-log" gets `access_log`, "# up: jwks" the public keys of the clients' tokens, "# up:
    rules" the file of the gateway's agent, and "# up: trusted-hops" the number of proxies in front
    that may name the client's address.

    Raises:
        KeyError: when the example marks a name that is not in `places`.
    """

    values = {
        **places,
        "access-log": access_log,
        "jwks": jwks,
        "rules": rules,
        "trusted-hops": trusted_hops,
    }
    return _fill(EXAMPLE, values)


def render_console_config(port: int, sockets: Mapping[str, Path], trusted_hops: int) -> str:
    """Return the configuration of the Envoy in front of the console as YAML. `sockets` holds the
    path of a socket by the name in its mark.
    """
    return _fill(CONSOLE_EXAMPLE, {"console": port, "trusted-hops": trusted_hops, **sockets})


def _fill(example: Path, values: Mapping[str, int | Path]) -> str:
    """Return an example with its marked lines filled in. Raise KeyError for an unknown mark."""

    def fill(match: re.Match[str]) -> str:
        # as JSON, which YAML includes: a path may hold spaces, quotes and colons
        value = json.dumps(values[match[3]], default=str)
        return f"{match[1]}{value}{match[2]}{match[3]}"

    return _MARKED.sub(fill, example.read_text())
