"""Compares what a real Envoy and this reader make of paths and addresses, as long as it is told:

    python -m tests.gateway.fuzz --seconds 3600

It prints its counts every minute and each new kind of disagreement once, and ends with status 1
when it found any. The same seed sends the same requests.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from decider.contracts import defaults
from decider.contracts.normalise.addresses import source_of
from decider.contracts.normalise.paths import MOST_CHARACTERS, path_of
from decider.engine.routing import Router
from decider.engine.text_hash import TextHash
from decider.http.source import forwarded
from learning.traffic.tokens import Signer
from tests.gateway import running
from tests.gateway.running import Gateway, stub, until

ROUTER = Router(defaults.config(), TextHash(bytes(32)))
# Dots before a parameter: Envoy reads them as a dot segment when they are plain, and as text when
# one is encoded, which it then decodes. What it hands on is another path to the next reader: to the
# decider as to the service.
QUIRK = re.compile(r"[/\\](?:\.|%2e){1,2};", re.IGNORECASE)
AMBIGUOUS = re.compile("%(?:2f|5c|00)", re.IGNORECASE)
PEER = "127.0.0.1"
SHOWN_OF_A_KIND = 3
SHOWN_CHARACTERS = 500

PARTS = (
    *("/", "/", "//", ".", "..", "/./", "/../", "%2e", "%2E%2e", "\\", "%2f", "%5C", "%00"),
    *("v2", "v2", "/v2", "orders", "/v2/orders", "/v2/payments", "payments", "search", "auth"),
    *("%70", "%76", "2", "X", "charges", "1", ";", ";x=1", "..;", ":", ":batchGet", "%3A"),
    *("%", "%zz", "%25", "%252e", "%7E", "~", "!", "%21", "{id}", "|", '"', "%01", "%ff", "+"),
    *("?a=/v2/auth", "?", "%3F", "%3b", "..."),
)
BYTES = [chr(byte) for byte in range(0x21, 0x100)]
ADDRESSES = (
    *("203.0.113.9", "6.6.6.6", "2001:db8::9", "2001:DB8:0:0::9", "::1", "::", "0.0.0.1"),
    *("::ffff:203.0.113.9", "::FFFF:cb00:7109", "64:ff9b::203.0.113.9", "2002:cb00:7109::1"),
    *("[2001:db8::9]", "[2001:db8::9]:443", "203.0.113.9:443", "fe80::1%eth0", "fe80::1%25en0"),
    *("unknown", "_hidden", "-", "203.0.113.09", "0x7f.1", "3405803785", "203.0.113", "1.2.3.4.5"),
    *("127.0.0.1", "10.0.0.1", "192.168.0.1", "255.255.255.255", "169.254.1.1", "unix:", "a" * 70),
    *("2001:db8::/64", "203.0.113.0/24", '"203.0.113.9"', "for=203.0.113.9", "", " ", "\t"),
)
BETWEEN = (",", ", ", " ,", "\t,\t", ",,", " ", ";")


class Seen(NamedTuple):
    """What became of a request at Envoy."""

    status: int
    service: str = ""
    """As the decider was told it, empty when it was not asked."""
    path: str = ""
    """As the decider was told it."""


@dataclass
class Client:
    """One kept connection to a gateway, on which any bytes may be sent."""

    port: int
    signer: Signer
    connection: socket.socket | None = None

    def ask(self, app: str, target: str, *fields: str) -> tuple[int, bytes]:
        """Send GET with an app's token, and a target and header fields as they are; return status
        and body.
        """
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), 5)
        token = f"authorization: Bearer {self.signer.token(app)}"
        head = "\r\n".join([f"GET {target} HTTP/1.1", "host: a", token, *fields, "", ""])
        self.connection.sendall(head.encode("latin-1"))
        response = http.client.HTTPResponse(self.connection, method="GET")
        response.begin()
        body = response.read()
        if response.will_close:
            self.close()
        return response.status, body

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def sent(client: Client, target: str) -> Seen:
    """Send a request target; the stub refuses it, and says what it was asked."""
    status, body = client.ask("malformed", target)
    if b'"seen"' not in body:
        return Seen(status)
    told = json.loads(body)
    return Seen(
        status, told["seen"].get("x-sluice-service", ""), told["path"].removeprefix("/v1/check")
    )


def read_as_a_decider(text: str) -> str:
    """Return the reading of bytes that came as a path, as `read_check` has it."""
    return path_of(text.encode("latin-1").decode(errors="replace"))


def path_disagreement(target: str, seen: Seen) -> str:
    """Return how Envoy and the decider read a target differently, "" when they agree."""
    read, plain = read_as_a_decider(target), re.split(r"[?#]", target, maxsplit=1)[0]
    own = ROUTER.service_at(read)
    if AMBIGUOUS.search(plain):
        # only what Envoy drops with a dot segment's parameter may hold one
        passes = seen.service and not QUIRK.search(plain)
        return "an encoded slash, backslash or NUL passes" if read or passes else ""
    if seen.service and not QUIRK.search(plain):
        if read_as_a_decider(seen.path) != read:
            return "the path that Envoy hands on reads differently"
        # too long to be read: the service counts that the gateway names
        if len(plain) <= MOST_CHARACTERS and (own is None or ROUTER.names[own] != seen.service):
            return "another service"
    if seen.status == 404 and not re.search("[;%]", plain) and own is not None:
        return "a service where Envoy has none"
    return ""


def handed_on(client: Client, fields: list[str]) -> tuple[str, str]:
    """Send lists of forwarded addresses; return the source that Envoy names and the list that it
    hands on, both empty when it refuses.
    """
    names = [f"x-forwarded-for: {text}" for text in fields]
    status, body = client.ask("good", "/v2/orders/1", *names)
    told = json.loads(body) if status == 200 else {}
    return told.get("x-sluice-source", ""), told.get("x-forwarded-for", "")


def address_disagreement(named: str, handed: str) -> str:
    """Return how the address that Envoy names differs from the reading of the list that it hands
    on, "" when they agree. Behind one trusted proxy.
    """
    if not (source := source_of(named)):
        return "Envoy names no address"
    # Envoy reads less than we do (no port, no zone) and then names who connected
    return "" if source in {forwarded(1).read(handed), PEER} else "another address than listed"


@dataclass
class Fuzz:
    """What was sent so far, and what was found."""

    random: Random
    counts: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)

    def target(self) -> str:
        """Draw a request target: mostly known pieces, sometimes any bytes."""
        pick = self.random
        start = pick.choice(("/", "/v2/orders/", "/v2/", "", "http://a/", "/v2/auth:"))
        parts = pick.choices(PARTS, k=pick.randint(0, 9))
        for _ in range(pick.choice((0, 0, 0, 1, 3))):
            parts.insert(pick.randint(0, len(parts)), pick.choice(BYTES))
        if pick.random() < 0.01:
            parts.append("a/" * pick.choice((100, 1000, 2000)))
        return start + "".join(parts) or "/"

    def lists(self) -> list[str]:
        """Draw the values of one to three x-forwarded-for fields."""
        pick = self.random

        def entry() -> str:
            text = pick.choice(ADDRESSES)
            if pick.random() < 0.2:
                text = text[: (k := pick.randint(0, len(text)))] + pick.choice(BYTES) + text[k:]
            return text

        def value() -> str:
            entries = [entry() for _ in range(pick.randint(1, 4))]
            return "".join(one + pick.choice(BETWEEN) for one in entries[:-1]) + entries[-1]

        return [value() for _ in range(pick.choice((1, 1, 1, 2, 3)))]

    def step(self, client: Client) -> None:
        """Send one path and one list of addresses, and note what was found."""
        target = self.target()
        seen = sent(client, target)
        self.counts["paths asked" if seen.service else f"paths {seen.status}"] += 1
        self.note(path_disagreement(target, seen), (target, *seen))
        fields = self.lists()
        named, handed = handed_on(client, fields)
        if not named:
            self.counts["addresses refused"] += 1
            return
        self.counts["addresses of the peer" if named == PEER else "addresses of a list"] += 1
        self.note(address_disagreement(named, handed), (fields, named, handed))

    def note(self, kind: str, what: object) -> None:
        if kind:
            self.findings[kind] += 1
            if self.findings[kind] <= SHOWN_OF_A_KIND:
                print(f"{kind}: {what!r}"[:SHOWN_CHARACTERS], flush=True)

    def run(self, gateway: Gateway, seconds: float, now: Callable[[], float] = time.time) -> None:
        """Send requests for `seconds`."""
        end = now() + seconds
        told = now() + 60
        with closing(Client(gateway.ports["gateway"], gateway.signer)) as client:
            while now() < end:
                try:
                    self.step(client)
                except (OSError, http.client.HTTPException) as error:
                    # Envoy may end a connection without an answer
                    self.counts[type(error).__name__] += 1
                    client.close()
                if now() >= told:
                    told += 60
                    print(dict(self.counts), dict(self.findings), flush=True)


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.gateway.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # so that what was started ends as well
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    fuzz = Fuzz(Random(options.seed))
    with (
        tempfile.TemporaryDirectory() as folder,
        running.envoy(Path(folder), trusted_hops=1) as gateway,
    ):
        for node in ("d01", "d02"):
            gateway.start(node, stub(gateway, node))
        until(lambda: running.both_asked(gateway), "both deciders")
        fuzz.run(gateway, options.seconds)
    print(
        f"seed {options.seed}: {dict(fuzz.counts)}; disagreements: {dict(fuzz.findings) or 'none'}"
    )
    sys.exit(1 if fuzz.findings else 0)


if __name__ == "__main__":
    main()
