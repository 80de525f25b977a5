"""The client of the config store, Valkey, with timeouts short enough for a web request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from control.errors import StoreUnavailable

# Seconds. Chosen: a person who flips a switch waits for this; a healthy server answers in well
# under a millisecond.
TIMEOUT_S = 2.0


def client() -> redis.Redis:
    """Return the client of `VALKEY_URL`, one connection pool per process and address."""
    return _client(settings.VALKEY_URL)


@lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    # One retry without waiting: a pooled connection that a restarted server has dropped is opened
    # again.
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[redis.ConnectionError],
    )


@contextmanager
def answering() -> Iterator[redis.Redis]:
    """Yield the client. Raise StoreUnavailable for an error of the connection or the server."""
    try:
        yield client()
    except redis.RedisError as error:
        raise StoreUnavailable(f"Valkey does not answer ({error}).") from error


def raw_bytes(value: object) -> bytes:
    """Return a value from Valkey, typed as bytes. This client decodes nothing, but the types of
    redis-py also cover clients that do.
    """
    assert isinstance(value, bytes)
    return value
