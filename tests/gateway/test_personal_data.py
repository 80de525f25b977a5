"""What clients write into paths is personal at times. Nothing kept holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from django.db import connection
from psycopg.sql import SQL, Identifier

from decider.contracts import store
from decisions.store import worker
from tests.database import as_owner
from tests.gateway import running
from tests.gateway.real import with_deciders
from tests.gateway.running import Gateway, until

pytestmark = [pytest.mark.parts, pytest.mark.django_db(transaction=True)]
# What might be anybody's, each as one segment of a path.
PERSONAL = (
    "jane.doe@example.com",
    "4111-1111-1111-1111",
    "+49 30 901820-77",
    "Jane Doe, Elm Street 7",
    "sk_live_51HxT9aKzQ0v",
    "please-call-my-wife-back",
)
APP, NAME = "app-personal", b"/v2/orders/of/{email}/card/{email}"


@pytest.fixture
def gateway(tmp_path: Path, valkey: redis.Redis) -> Iterator[Gateway]:
    with with_deciders(tmp_path, running.envoy(tmp_path, trusted_hops=1), ("d01",)) as (found, _):
        yield found


def stored_in(valkey: redis.Redis) -> bytes:
    """All values of the store, one after the other."""
    found = []
    for key in valkey.scan_iter(count=1000):
        found.append(valkey.dump(key) or b"")
        if valkey.type(key) == b"stream":
            found.append(entries(valkey, key))
    return b"\n".join(found)


def entries(valkey: redis.Redis, stream: str | bytes) -> bytes:
    return b"\n".join(value for _, entry in valkey.xrange(stream) for value in entry.values())


def tables() -> bytes:
    """All rows of all tables, as text."""
    found = []
    with as_owner(), connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            cursor.execute(SQL("SELECT t::text FROM {} t").format(Identifier(name)))
            found += [row[0] for row in cursor.fetchall()]
    return "\n".join(found).encode()


def test_nothing_personal_of_a_path_is_kept(
    gateway: Gateway, valkey: redis.Redis, browser, tmp_path: Path
) -> None:
    for text in PERSONAL * 5:
        gateway.get(APP, f"/v2/orders/of/{quote(text)}/card/{quote(text)}")
    for stream in (store.EVENTS_STREAM, store.OUTCOMES_STREAM):
        until(lambda stream=stream: NAME in entries(valkey, stream), stream)
    streams = stored_in(valkey)
    ingest = worker.Worker(valkey, "personal", block_ms=5)
    ingest.join()
    until(lambda: (ingest.step(), worker.waiting(valkey))[1] == 0, "ingest")
    answer = browser("support").get("/lookup.csv", {"f": "1"})
    export = b"".join(answer.streaming_content)
    logs = b"\n".join(path.read_bytes() for path in tmp_path.rglob("*.err"))
    rows = tables()
    for name, found in {"streams": streams, "tables": rows, "export": export}.items():
        assert NAME in found, name
    for text in PERSONAL:
        for spelling in (text, quote(text), quote(text, safe="@+,")):
            for name, found in zip(
                ("streams", "tables", "export", "logs"), (streams, rows, export, logs), strict=True
            ):
                assert spelling.encode() not in found, f"{spelling} in {name}"
