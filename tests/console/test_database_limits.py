"""No process waits for PostgreSQL without end, and who is told to try again is told so plainly."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from django.db import OperationalError, connection, connections, transaction
from django.urls import reverse

from console import celery
from console.frame.log_lines import OwnFaults
from console.local import database, environment, programs, servers
from console.local.database import CONNECT_S, LIMITS, Process
from console.local.postgres.base import ANSWER_S
from console.pages.home import page as home_page
from control import patience
from control.audit import tokens
from control.models import AppNote
from decisions.store import partitions
from tests.console.one_app import APP
from tests.faults.wire import Wires
from tests.pages import shown
from tests.test_architecture import ROOT

LIMITED = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
SHOW = "SELECT name, setting::int FROM pg_settings WHERE name = ANY(%s)"
"""Milliseconds."""
HELD = "Someone else is changing the same thing"
SLOW = "The database took too long"


@pytest.fixture
def as_process(monkeypatch):
    """Be a process of some kind until the test ends."""
    monkeypatch.setattr(database, "_own", Process.CONSOLE)
    options = connection.settings_dict["OPTIONS"]
    yield database.be
    connection.settings_dict["OPTIONS"] = options


@pytest.mark.parametrize("process", list(Process))
@pytest.mark.django_db
def test_each_kind_of_process_has_all_limits_on_the_live_database(process, as_process) -> None:
    as_process(process)
    described, limits = connection.settings_dict, LIMITS[process]
    assert described["OPTIONS"]["connect_timeout"] > 0
    asked = {**described["OPTIONS"], "dbname": described["NAME"], "host": described["HOST"]}
    asked |= {"port": described["PORT"], "user": described["USER"]}
    with psycopg.connect(**asked, password=described["PASSWORD"]) as own:
        found = dict(own.execute(SHOW, [list(LIMITED)]).fetchall())
        ((name,),) = own.execute("SELECT current_setting('application_name')").fetchall()
    wanted = (limits.statement_s, limits.lock_s, limits.idle_s)
    assert [found[name] for name in LIMITED] == [1000 * seconds for seconds in wanted]
    assert name == f"sluice-{process}"
    assert 0 < limits.lock_s < limits.statement_s


@pytest.mark.django_db(transaction=True)
def test_a_kept_connection_to_a_server_that_says_nothing_is_given_up_soon() -> None:
    described = connection.settings_dict
    wires, near = Wires(), servers.free_port()
    wires.lay("console>postgres", near, int(described["PORT"]))
    mend = threading.Timer(ANSWER_S + CONNECT_S + 2.0, wires.mend, ["console>postgres"])
    kept = connection.copy()
    kept.settings_dict = {**described, "PORT": str(near), "CONN_HEALTH_CHECKS": True}
    try:
        with kept.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert kept.is_usable()
        wires.freeze("console>postgres")
        # so that who waits for ever fails here, and does not hang
        mend.start()
        # as at the begin of a request
        kept.close_if_unusable_or_obsolete()
        with pytest.raises(OperationalError), kept.cursor():
            pass
    finally:
        mend.cancel()
        kept.close()
        wires.close()


@pytest.mark.django_db
def test_every_alias_of_this_process_has_them() -> None:
    for alias in connections:
        with connections[alias].cursor() as cursor:
            cursor.execute(SHOW, [list(LIMITED)])
            found = dict(cursor.fetchall())
        assert set(found) == set(LIMITED)
        assert all(found.values())


def test_what_the_address_asks_for_goes_before_them() -> None:
    url = "postgresql://u@h/d?options=-c%20lock_timeout%3D9s&connect_timeout=1"
    found = database.with_limits(environment.parse_database_url(url)["OPTIONS"])
    assert found["connect_timeout"] == "1"
    assert found["options"].endswith(" -c lock_timeout=9s")
    assert "lock_timeout=5s" in found["options"]


def test_every_program_that_gets_a_database_says_what_it_is(settings, tmp_path) -> None:
    ports = dict.fromkeys(settings.SLUICE_PORTS, 1)
    found = programs.worker_programs(tmp_path, ports, "local")
    using = {program.name for program in found if program.environment.get("DATABASE_URL") != ""}
    consoles, workers = {"console", "console-switches"}, {"worker", "explainer", "beat"}
    assert using == consoles | workers | {"ingest"}


@pytest.mark.parametrize(
    ("arguments", "process"),
    [
        (["manage.py", "ingest"], Process.INGEST),
        (["manage.py", "ingest", "--name", "x"], Process.INGEST),
        (["manage.py", "migrate"], Process.COMMAND),
        (["manage.py", "up"], Process.COMMAND),
        (["manage.py"], Process.COMMAND),
    ],
)
def test_a_command_is_known_by_its_name(arguments: list[str], process: Process) -> None:
    assert database.process_of(arguments) is process


def test_a_worker_takes_its_limits_before_its_first_task(as_process) -> None:
    celery.wait_as_a_worker()
    assert "statement_timeout=300s" in connection.settings_dict["OPTIONS"]["options"]


@pytest.mark.django_db
def test_a_command_has_them_in_its_own_process() -> None:
    asks = (
        "from django.db import connection as c; k = c.cursor();"
        " k.execute('SHOW statement_timeout'); print(k.fetchone()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-B", "manage.py", "shell", "--no-imports", "-c", asks],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["1h"], done.stderr


@pytest.mark.django_db
def test_long_work_sets_limits_of_its_own_until_its_transaction_ends() -> None:
    with transaction.atomic():
        patience.set_limits(statement_s=1.5, lock_s=0.25, idle_s=90)
        with connection.cursor() as cursor:
            cursor.execute(SHOW, [list(LIMITED)])
            assert dict(cursor.fetchall()) == dict(zip(LIMITED, (1500, 250, 90_000), strict=True))


# What a page and a call do when the database is held up
# ------------------------------------------------------


@pytest.fixture
def impatient(transactional_db, settings):
    """Connections that wait for hardly anything."""
    options = connection.settings_dict["OPTIONS"]
    was = options["options"]
    options["options"] = f"{was} -c lock_timeout=100ms -c statement_timeout=400ms"
    connection.close()
    settings.DEBUG = False
    yield
    options["options"] = was
    connection.close()


@contextmanager
def held_by_another(statement: str):
    """Keep what a statement takes on another connection."""
    taken, end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                patience.set_limits(statement_s=60, lock_s=60)
                # who may lock every table
                cursor.execute("SET LOCAL ROLE sluice_owner")
                cursor.execute(statement)
                taken.set()
                assert end.wait(60)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(hold)
        try:
            assert taken.wait(30)
            yield
        finally:
            end.set()
        done.result()


LOOKS_CHAIN = "SELECT pg_advisory_xact_lock(x'534C554C'::bigint)"
NOTES = "LOCK TABLE control_appnote IN EXCLUSIVE MODE"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("known", "impatient")
def test_a_page_whose_look_cannot_be_recorded_says_to_try_again(signed_in, caplog) -> None:
    client = signed_in("support")
    client.raise_request_exception = False
    with held_by_another(LOOKS_CHAIN), caplog.at_level(logging.ERROR, "django.request"):
        answer = client.get(reverse("app", args=[APP]))
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert HELD in shown(answer)
    assert "Traceback" not in shown(answer)
    (line,) = [one for one in caplog.records if one.name == "django.request"]
    assert OwnFaults().filter(line)
    assert line.exc_info is None
    assert "lock timeout" in line.getMessage()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("known", "impatient")
def test_a_change_that_is_held_up_is_not_made_and_the_page_says_so(signed_in) -> None:
    client = signed_in("support")
    client.raise_request_exception = False
    with held_by_another(NOTES):
        answer = client.post(reverse("app-note", args=[APP]), {"text": "Expect a burst."})
    assert answer.status_code == 503
    assert HELD in shown(answer)
    assert not AppNote.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("known", "impatient")
@pytest.mark.parametrize("held", [NOTES, LOOKS_CHAIN])
def test_a_call_that_is_held_up_is_a_problem_with_retry_after(client, person, held) -> None:
    text = tokens.create(by=person("support"), days=1, reason="a test")[1]
    client.raise_request_exception = False
    with held_by_another(held):
        answer = client.post(
            reverse("api-app-notes", args=[APP]),
            {"text": "Expect a burst."},
            content_type="application/json",
            headers={"authorization": f"Token {text}"},
        )
        if held == LOOKS_CHAIN:
            answer = client.get(
                reverse("api-app", args=[APP]), headers={"authorization": f"Token {text}"}
            )
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert answer["Content-Type"] == "application/problem+json"
    assert json.loads(answer.content)["detail"].startswith(HELD)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("impatient")
def test_a_query_that_takes_too_long_is_ended_and_said(signed_in, monkeypatch) -> None:
    def slow(*_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")

    client = signed_in("support")
    client.raise_request_exception = False
    monkeypatch.setattr(home_page, "home_page", slow)
    began = time.monotonic()
    answer = client.get(reverse("home"))
    assert time.monotonic() - began < 25
    assert answer.status_code == 503
    assert SLOW in shown(answer)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("impatient")
def test_a_transaction_that_idled_for_too_long_is_ended_and_said(signed_in, monkeypatch) -> None:
    def idle(*_: object) -> None:
        with transaction.atomic():
            patience.set_limits(idle_s=0.05)
            # on another connection: until the server has ended the idle one
            with held_by_another("SELECT pg_sleep(0.3)"), connection.cursor() as cursor:
                cursor.execute("SELECT 1")

    client = signed_in("support")
    client.raise_request_exception = False
    monkeypatch.setattr(home_page, "home_page", idle)
    answer = client.get(reverse("home"))
    assert answer.status_code == 503
    assert SLOW in shown(answer)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("impatient")
def test_partition_work_gives_up_soon_instead_of_holding_up_who_reads(monkeypatch) -> None:
    monkeypatch.setattr(partitions, "LOCK_S", 0.1)
    table = partitions.DECISIONS.table
    with (
        held_by_another(f"LOCK TABLE {table}_default IN ACCESS SHARE MODE"),
        pytest.raises(OperationalError, match="lock timeout"),
    ):
        partitions.create(partitions.DECISIONS, [partitions.date(2031, 7, 7)])
