"""`python -m decider.identity.mint --secrets FILE APP`: make an API key that names its app."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from decider.identity import api_keys
from decider.identity.errors import IdentityFileError


def main(arguments: list[str] | None = None) -> int:
    """Print a new key on standard output. Return the exit code: 2 when none can be made."""
    parser = argparse.ArgumentParser(
        prog="python -m decider.identity.mint",
        description="Makes an API key. Only whoever has the secrets can make one.",
    )
    parser.add_argument("app", help="id of the app that the key is for")
    parser.add_argument("--secrets", type=Path, required=True, help="as in identity.toml")
    asked = parser.parse_args(arguments)
    try:
        print(api_keys.mint(api_keys.read_secrets(asked.secrets)[0], asked.app))  # noqa: T201
    except (IdentityFileError, ValueError) as error:
        print(f"mint: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
