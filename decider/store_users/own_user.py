"""Which user a process is in the store, and whether that one may do everything there.

While the store is away at a start nothing is known of that. The process starts all the same, so
that decisions go on, and asks as soon as the store is back.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
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
# Seconds between two tries while the store is away. Chosen: a process that is too powerful goes on
# for no longer than this, and a store that starts bears a question a second from each process.
AGAIN_S: Final = 1.0

log = logging.getLogger("sluice.store_users")


class StoreUserError(Exception):
    """The store knows this process as a user that may do everything. The text says what to set."""


def check_user(
    url: str,
    role: Role,
    environment: Mapping[str, str] = os.environ,
    end: Callable[[], None] | None = None,
) -> None:
    """Raise StoreUserError when `url` leads to a user that may touch every key of the store, unless
    the environment allows it.

    While the store is away nothing is known: then return, ask again until it answers, in a thread,
    and call `end` if the user is such a one. Without `end`, this process gets a SIGTERM, as from
    an operator who stops it; its next start is then refused here.
    """
    if is_allowed(environment) or _is_known(url, role):
        return
    log.warning("Valkey is away: whether its user is the right one is looked at when it is back")
    watch = (url, role, end or _end_process)
    threading.Thread(target=_watch, args=watch, name="store-user", daemon=True).start()


def _is_known(url: str, role: Role) -> bool:
    """Return False while the store is away, and True for a user that may not do everything. Raise
    StoreUserError for one that may.
    """
    client = redis.Redis.from_url(
        url,
        socket_timeout=WITHIN_S,
        socket_connect_timeout=WITHIN_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        user = all_powerful_user(client)
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()
    if user:
        raise StoreUserError(
            f"Valkey knows this process as the user “{user}”, who may do everything there, so"
            " whoever takes over this process could change what all others trust. Run `manage.py"
            f" store_users`, give Valkey what it prints, and set VALKEY_URL to the user"
            f" {user_of(role)}. To go on as it is, set {ALLOW}=allow."
        )
    return True


def _watch(url: str, role: Role, end: Callable[[], None]) -> None:
    """Ask until the store answers; call `end` for a user that may do everything."""
    try:
        while not _is_known(url, role):
            time.sleep(AGAIN_S)
    except StoreUserError as error:
        log.critical("%s This process ends now.", error)
        end()


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def is_allowed(environment: Mapping[str, str]) -> bool:
    """Return whether this process may be any user: when debugging, and when told so by name."""
    return is_debugging(environment) or environment.get(ALLOW, "").strip() == "allow"


def is_debugging(environment: Mapping[str, str]) -> bool:
    """Return whether SLUICE_DEBUG says yes."""
    return environment.get("SLUICE_DEBUG", "").strip().lower() in {"true", "1", "yes", "on"}


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
