"""`manage.py ingest`: stores decision events until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from redis.backoff import NoBackoff
from redis.retry import Retry

from control import disk
from control.database_roles.own_role import DatabaseRoleError, check_role
from control.database_roles.roles import DatabaseRole
from decider.store_users.own_user import StoreUserError, check_user
from decider.store_users.roles import Role
from decisions.store import retention
from decisions.store.worker import Worker


class Command(BaseCommand):
    help = (
        "Stores decision events from Valkey in PostgreSQL, each exactly once. Several may run at"
        " once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--name",
            default=f"{socket.gethostname()}-{os.getpid()}",
            help="this worker's name in the consumer group",
        )

    def handle(self, *, name: str, **options: object) -> None:
        try:
            check_user(settings.VALKEY_URL, Role.INGEST)
            check_role(settings.DATABASE_URL, DatabaseRole.INGEST)
        except (StoreUserError, DatabaseRoleError) as error:
            raise CommandError(str(error)) from error
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        # a first start has no partition yet, and the hourly task may be an hour away
        with contextlib.suppress(DatabaseError):
            retention.make_all_ahead()
        worker = Worker(_client(), name, room=lambda: disk.recent().room)
        self.stdout.write(f"ingest {name} is running")
        worker.run(stop)
        with contextlib.suppress(
            redis.RedisError
        ):  # leaving is a courtesy; a name left behind does no harm
            worker.leave()
        self.stdout.write(f"ingest {name} stopped after {worker.rows} rows, {worker.buried} buried")


def _client() -> redis.Redis:
    # the worker waits and retries by itself; retries in the client would only delay a stop
    return redis.Redis.from_url(
        settings.VALKEY_URL,
        socket_timeout=3,
        socket_connect_timeout=2,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )
