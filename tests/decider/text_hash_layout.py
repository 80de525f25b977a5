"""Prints digests of what an engine holds and decides; run as a module with the key as argument.

It runs in processes of its own, because the seed of Python's `hash` is fixed when a process starts.
"""

from __future__ import annotations

import hashlib
import sys

import msgspec

from decider.contracts import defaults
from decider.contracts.config import ListEntry
from decider.contracts.requests import CheckRequest, Outcome
from decider.contracts.store import Profile
from decider.engine.engine import Engine

NOW = 1_790_000_000.0


def main(key: bytes) -> None:
    """Print one digest of the tables and one of the answers."""
    engine = Engine("d01", "local", key, capacity=512)
    listed = [ListEntry(verdict="block", kind="app", subject="app_3")]
    engine.apply(msgspec.structs.replace(defaults.config(), lists=listed), None)
    engine.know([Profile(f"app_{k}", "", f"t{k % 7}", k % 3, 0.0) for k in range(100)], NOW)
    asked = [
        CheckRequest(f"app_{k % 400}", "GET", f"/v2/orders/{k % 90}", f"tok{k % 30}", "10.0.0.9")
        for k in range(1_000)
    ]
    answers = [d for q in asked[:200] for d in engine.decide([q], NOW)]
    answers += engine.decide(asked[200:], NOW + 1.0)
    engine.learn([Outcome(q.app, "orders-read", NOW, 429, 5.0) for q in asked], NOW + 2.0)
    tables = hashlib.sha256(b"".join(array.tobytes() for array in engine.state))
    told = hashlib.sha256(
        repr([(d.action, d.stage, d.reason, d.retry_after, d.remaining) for d in answers]).encode()
    )
    print(tables.hexdigest(), told.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1].encode())
