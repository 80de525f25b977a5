"""A worker takes JSON and nothing else: what would run as it is read is refused unread."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.contrib.testing.worker import start_worker
from kombu import Consumer
from kombu.exceptions import ContentDisallowed

from console.celery import app
from console.local import database
from decider.contracts.store import CELERY_PREFIX
from decider.store_users.roles import Role
from tests.servers import store_url

pytestmark = pytest.mark.parts
ROOT = Path(__file__).parents[2]
QUEUE = CELERY_PREFIX + "celery"


class Touch:
    """A pickle of this makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def message(body: bytes, content_type: str, encoding: str) -> bytes:
    """A task's message as it lies in the queue."""
    task = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": encoding,
            "headers": {"lang": "py", "task": "control.tasks.publish_pending", "id": task},
            "properties": {
                "correlation_id": task,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "celery"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    ).encode()


def bad_messages(made: Path) -> Iterator[bytes]:
    """Messages that make a folder when they are read as what they say they are."""
    body = pickle.dumps(([Touch(made)], {}, {}))
    for name in ("application/x-python-serialize", "pickle"):
        yield message(body, name, "binary")
    yaml = f"!!python/object/apply:os.mkdir ['{made}']".encode()
    yield message(yaml, "application/x-yaml", "utf-8")


def test_a_pickled_task_is_refused_without_being_read(valkey: redis.Redis, tmp_path: Path) -> None:
    made, refused = tmp_path / "made", []

    def look(body: object, found) -> None:
        raise AssertionError(f"a body was read: {body!r}")

    def refuse(found, error: Exception) -> None:
        refused.append(type(error))
        found.reject()

    bad = list(bad_messages(made))
    valkey.lpush(QUEUE, *bad)
    with app.connection_for_read() as connection:
        consumer = app.amqp.TaskConsumer(connection.default_channel, on_decode_error=refuse)
        assert isinstance(consumer, Consumer)
        consumer.register_callback(look)
        with consumer:
            for _ in bad:
                connection.drain_events(timeout=5)
    assert refused == [ContentDisallowed] * len(bad)
    assert not made.exists()


@pytest.mark.django_db(transaction=True)
def test_a_worker_goes_on_after_pickled_tasks(
    valkey: redis.Redis, tmp_path: Path, monkeypatch
) -> None:
    made, done, ended = tmp_path / "made", [], threading.Event()
    # a worker in this process must not give the tests its limits
    said_to_be: list[database.Process] = []
    monkeypatch.setattr(database, "be", said_to_be.append)

    @app.task(name="tests.note", shared=False)
    def note(what: str) -> None:
        done.append(what)
        ended.set()

    valkey.lpush(QUEUE, *bad_messages(made))
    try:
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
            note.delay("json")
            assert ended.wait(30)
    finally:
        app.tasks.pop("tests.note")
    assert done == ["json"]
    assert said_to_be == [database.Process.WORKER]
    assert not made.exists()
    assert valkey.llen(QUEUE) == 0


def test_the_console_puts_tasks_into_the_queue_and_takes_none_out(valkey: redis.Redis) -> None:
    with app.connection_for_write(url=store_url(Role.CONSOLE)) as connection:
        app.send_task("explain.tasks.explain_one", ["id"], connection=connection, retry=False)
        app.send_task("console.tasks.tell_found_wrong", connection=connection, retry=False)
    client = redis.Redis.from_url(store_url(Role.CONSOLE))
    for queue in (f"{QUEUE}-explain", QUEUE):
        assert valkey.llen(queue) == 1
        for command in (("BRPOP", queue, "1"), ("LRANGE", queue, "0", "1"), ("RPOP", queue)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
    client.close()


@pytest.mark.parametrize("program", ["worker", "console", "ingest"])
def test_a_program_that_may_do_everything_in_valkey_does_not_start(program: str) -> None:
    """Each of those that Django sets up ends with the sentence."""
    commands = {
        "worker": "-m celery -A console worker --pool solo --without-gossip --without-mingle",
        "console": "-m gunicorn console.wsgi --bind 127.0.0.1:0 --no-control-socket",
        "ingest": "manage.py ingest",
    }
    surroundings = {**os.environ, "DJANGO_SETTINGS_MODULE": "console.settings"}
    del surroundings["SLUICE_DEBUG"]
    done = subprocess.run(
        [sys.executable, *commands[program].split()],
        cwd=ROOT,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode not in (0, None)
    assert "who may do everything there" in done.stderr + done.stdout


def test_everything_celery_writes_or_reads_is_json() -> None:
    conf = app.conf
    kinds = (conf.task_serializer, conf.result_serializer, conf.event_serializer)
    assert kinds == ("json", "json", "json")
    assert list(conf.accept_content) == list(conf.result_accept_content) == ["json"]
    # commands to workers come the same way, and could stop them
    assert conf.worker_enable_remote_control is False
