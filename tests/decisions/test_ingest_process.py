"""The ingest process itself: killed without warning it loses and doubles nothing, told to stop it
finishes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.db import connection

from control.database_roles.roles import DatabaseRole
from decider.contracts import store
from decider.contracts.event import encode_batch
from decider.store_users.roles import Role
from decisions.models import BuriedEvent, Decision, IngestedBatch
from decisions.store import worker
from tests.decisions.factory import batch, event
from tests.servers import database_url, store_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.parts]


def start(name: str) -> subprocess.Popen[bytes]:
    """`manage.py ingest` on the test database."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(DatabaseRole.INGEST, connection.settings_dict["NAME"]),
        "VALKEY_URL": store_url(Role.INGEST),
        "DJANGO_SETTINGS_MODULE": "console.settings",
    }
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "ingest", "--name", name]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def sessions(name: str) -> int:
    """How many sessions of the test database say that they are of this kind of process."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            [name],
        )
        return cursor.fetchone()[0]


def until(true, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_killed_again_and_again_it_stores_every_event_once(valkey: redis.Redis) -> None:
    stop, sent = threading.Event(), []

    def send() -> None:
        client = redis.Redis.from_url(os.environ["VALKEY_URL"])
        while not stop.is_set():
            one = batch([event() for _ in range(40)])
            client.xadd(store.EVENTS_STREAM, {"b": encode_batch(one)})
            sent.append([e.id for e in one.events])
            time.sleep(0.002)
        client.close()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for k in range(2):
            stored = IngestedBatch.objects.count()
            process = start(f"killed-{k}")
            until(lambda seen=stored: IngestedBatch.objects.count() > seen)
            time.sleep(random.random() * 0.1)
            process.kill()
            process.communicate()
    finally:
        stop.set()
        sender.join()
    last = worker.Worker(valkey, "last", claim_idle_ms=0, block_ms=5)
    until(lambda: (last.step(), worker.waiting(valkey))[1] == 0)
    ids = [i for one in sent for i in one]
    assert Decision.objects.count() == len(ids)
    assert {d.bytes for d in Decision.objects.values_list("id", flat=True)} == set(ids)
    assert not BuriedEvent.objects.exists()


def test_told_to_stop_it_leaves_the_group_and_says_what_it_did(valkey: redis.Redis) -> None:
    valkey.xadd(store.EVENTS_STREAM, {"b": encode_batch(batch([event(), event()]))})
    process = start("polite")
    until(lambda: Decision.objects.count() == 2)
    # its sessions have the limits of an ingest and not those of whoever started it
    assert sessions("sluice-ingest") == 1
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"stopped after 2 rows, 0 buried" in said
    assert valkey.xinfo_consumers(store.EVENTS_STREAM, store.EVENTS_GROUP) == []
