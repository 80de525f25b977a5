"""Which user a process is in the store, and whether that one may do everything there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from decider.store_users.roles import Role
from decider.store_users.rules import user_of

# Variable that lets a process go on as a user that may do everything, when it says "allow".
ALLOW: Final = "SLUICE_VALKEY_ALL_POWERFUL"
# A key that belongs to nobody: only a user of all keys may ask for it.
_NOT_OURS: Final = "not-sluice"
# Seconds. Chosen: a server nearby answers at once, and one that is away must not hold up a start.
WITHIN_S: Final = 1.0


class StoreUserError(Exception):
    """The store knows this process as a user that may do everything. The text says what to set."""


def check_user(url: str, role: Role, environment: Mapping[str, str] = os.environ) -> None:
    """Raise StoreUserError when `url` leads to a user that may touch every key of the store, unless
    the environment allows it. Nothing is known while the store is away: then return.
    """
    if is_allowed(environment):
        return
    client = redis.Redis.from_url(
        url,
        socket_timeout=WITHIN_S,
        socket_connect_timeout=WITHIN_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        user = all_powerful_user(client)
    except (redis.RedisError, OSError):
        return
    finally:
        client.close()
    if user:
        raise StoreUserError(
            f"Valkey knows this process as the user “{user}”, who may do everything there, so"
            " whoever takes over this process could change what all others trust. Run `manage.py"
            f" store_users`, give Valkey what it prints, and set VALKEY_URL to the user"
            f" {user_of(role)}. To go on as it is, set {ALLOW}=allow."
        )


def is_allowed(environment: Mapping[str, str]) -> bool:
    """Return whether this process may be any user: when debugging, and when told so by name."""
    debug = environment.get("SLUICE_DEBUG", "").strip().lower() in {"true", "1", "yes", "on"}
    return debug or environment.get(ALLOW, "").strip() == "allow"


def all_powerful_user(client: redis.Redis) -> str:
    """Return the name of the client's user if it may touch every key, else "". Raise RedisError."""
    # Tried rather than read from the user's rules: those who may not read rules may try.
    try:
        client.exists(_NOT_OURS)
    except redis.exceptions.NoPermissionError:
        return ""
    try:
        name = client.acl_whoami()
    except redis.ResponseError:
        # a server without users, or one that hides them
        return "default"
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
