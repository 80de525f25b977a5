"""The shipped configurations of the three gateways, with two deciders of the test's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.gateway import running
from tests.gateway.running import Gateway, until

# Starts a node's decider or a stub of it.
Start = Callable[[Gateway, str], list[str]]
Adapt = Callable[[str], str]


def stubbed(gateway: Gateway, node: str) -> list[str]:
    return running.stub(gateway, node)


def envoy(
    folder: Path, start: Start = stubbed, adapt: Adapt = str
) -> AbstractContextManager[Gateway]:
    return _with_deciders(running.envoy(folder, adapt=adapt), start)


def nginx(
    folder: Path, start: Start = stubbed, adapt: Adapt = str
) -> AbstractContextManager[Gateway]:
    return _with_deciders(running.nginx(folder, adapt=adapt), start)


def caddy(
    folder: Path, start: Start = stubbed, adapt: Adapt = str
) -> AbstractContextManager[Gateway]:
    return _with_deciders(running.caddy(folder, adapt=adapt), start)


@contextmanager
def _with_deciders(started: AbstractContextManager[Gateway], start: Start) -> Iterator[Gateway]:
    with started as gateway:
        for node in ("d01", "d02"):
            gateway.start(node, start(gateway, node))
        for node in ("d01", "d02"):
            until(lambda node=node: gateway.has_decider(node), node)  # type: ignore[misc]
        yield gateway
