"""Lines of access logs, and where real ones may lie."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
KEY = bytes(range(32))


def real(name: str) -> Path:
    """A real log or table; the test is skipped, saying so, where it is absent."""
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"the real data file {name} is not here (looked in ../shared/data)")
    return path


def table(name: str) -> list[dict[str, str]]:
    with gzip.open(real(name), "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def combined(
    second: int = 0,
    address: str = "198.51.100.7",
    request: str = "GET /v2/orders/17?q=1 HTTP/1.1",
    status: int = 200,
    agent: str = "curl/8",
) -> str:
    when = f"22/Jan/2019:03:{56 + second // 60:02}:{second % 60:02} +0330"
    return f'{address} - - [{when}] "{request}" {status} 512 "-" "{agent}"'
