"""Fixtures shared by all rooms. The servers themselves start in `tests.settings`, before Django
reads its settings.
"""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import redis
from django.test import Client

from decider import compile_ahead
from decider.contracts.sealed import outcomes
from tests import template_coverage

if TYPE_CHECKING:
    from learning.training.train import Trained

hypothesis.settings.register_profile(
    "sluice", deadline=None, derandomize=True
)  # neither a clock nor luck decides a test
hypothesis.settings.load_profile("sluice")


def pytest_configure(config: pytest.Config) -> None:
    """Measure the templates where coverage is measured, and compile once for all processes."""
    # until all is collected: hardly anything that is imported goes again
    gc.disable()
    if config.pluginmanager.hasplugin("_cov"):
        template_coverage.start()
        config.add_cleanup(template_coverage.save)
    # Before processes are started: each of them would compile the same code.
    if getattr(config.option, "numprocesses", None) and not compile_ahead.is_compiled_ahead():
        compile_ahead.compile_ahead()


NEED_SERVERS = frozenset(
    {"db", "transactional_db", "django_db_reset_sequences", "live_server", "valkey"}
)
"""Fixtures of PostgreSQL or Valkey; a test that reaches them through any other one counts too."""


def needs_servers(item: pytest.Item) -> bool:
    """Return whether a test needs PostgreSQL, Valkey, Envoy, a decider or a browser."""
    marked = any(item.get_closest_marker(name) for name in ("django_db", "parts", "browser"))
    return marked or not NEED_SERVERS.isdisjoint(getattr(item, "fixturenames", ()))


# A module whose every test needs servers, by the marks that stand over all of it.
_ALL_NEED_SERVERS = re.compile(r"^pytestmark = .*\b(django_db|parts|browser)\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Spare the fast half the modules of which it keeps no test: seconds in each process."""
    if os.environ.get("SLUICE_TESTS") != "fast" or not collection_path.name.startswith("test_"):
        return None
    # None leaves the decision to others
    return True if _ALL_NEED_SERVERS.search(collection_path.read_text()) else None


def keep_order(items: list[pytest.Item]) -> None:
    """Put the tests of each module that is marked `in_order` back into the order of its text."""
    places: dict[object, list[int]] = {}
    for place, item in enumerate(items):
        if item.get_closest_marker("in_order"):
            places.setdefault(item.path, []).append(place)
    for own in places.values():
        for place, test in zip(
            own, sorted((items[k] for k in own), key=_place_in_text), strict=True
        ):
            items[place] = test


def _place_in_text(item: pytest.Item) -> tuple[int, list[int]]:
    """Return where a module defines or imports the function, and the places of its parameters."""
    assert isinstance(item, pytest.Function)
    parameters = getattr(item, "callspec", None)
    place = list(vars(item.module)).index(item.originalname)
    return place, list(parameters.indices.values()) if parameters else []


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays until the end: modules and tests, a million objects
    that each full collection would walk.
    """
    gc.freeze()
    gc.enable()


# last: pytest-randomly and pytest-django order the tests in the same hook
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the part of the tests that SLUICE_TESTS names: "fast"; "slow", which leaves out those
    that take long; "long", which does not. All without it.
    """
    keep_order(items)
    part = os.environ.get("SLUICE_TESTS", "")
    if part in {"fast", "slow", "long"}:
        kept = [item for item in items if _is_of(part, item)]
        config.hook.pytest_deselected(items=[item for item in items if not _is_of(part, item)])
        items[:] = kept


def _is_of(part: str, item: pytest.Item) -> bool:
    if part == "slow" and item.get_closest_marker("long"):
        return False
    return needs_servers(item) == (part != "fast")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> Iterator[None]:
    """The test database, made by the owner; from here on tests are the app in it."""
    from django.db import connection

    from tests import database, servers

    if (server := servers.postgres()) is None:
        yield
        return
    server.hand_over(connection.settings_dict["NAME"])
    with django_db_blocker.unblock():
        database.become(database.BE_APP)
    yield
    with django_db_blocker.unblock():
        database.become(database.BE_OWNER)


@pytest.fixture(scope="session", autouse=True)
def tables_can_be_emptied_between_tests() -> Iterator[None]:
    """The clean-up after a transactional test truncates every table, as only the superuser can; the
    triggers that refuse it rest meanwhile. The superuser also fills in again what migrations do.
    """
    from django.db import transaction
    from django.db.backends.postgresql.operations import DatabaseOperations
    from django.test import TransactionTestCase

    from tests.database import as_superuser

    clean_up = TransactionTestCase._fixture_teardown

    def execute(self: DatabaseOperations, statements: list[str]) -> None:
        with transaction.atomic(using=self.connection.alias), self.connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                cursor.execute(statement)

    def clean_up_as_superuser(self: TransactionTestCase) -> None:
        with as_superuser():
            clean_up(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "execute_sql_flush", execute)
        patch.setattr(TransactionTestCase, "_fixture_teardown", clean_up_as_superuser)
        yield


@pytest.fixture(autouse=True)
def umask_of_a_test_is_its_own() -> Iterator[None]:
    """What a test's commands set would otherwise close the files of all later tests to others."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def rows_of_a_test_are_audited(request: pytest.FixtureRequest) -> Iterator[None]:
    """The database refuses rows that no entry of the audit log came with. A test that is rolled
    back gets one for what it stored by itself; one that commits brings its own (`audited`).
    """
    if "db" not in request.fixturenames and not request.node.get_closest_marker("django_db"):
        yield
        return
    from django.db import connection

    from tests.audited import append_entry

    # first: what is set up before this is torn down after it
    request.getfixturevalue("_django_db_helper")
    yield
    if connection.in_atomic_block and not connection.needs_rollback and connection.is_usable():
        append_entry()


@pytest.fixture(scope="session")
def kept_folder(pytestconfig: pytest.Config) -> Path:
    """The folder of what is kept between runs until a source it depends on changes."""
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("kept")


@pytest.fixture(scope="session")
def kept_training(kept_folder: Path) -> Callable[..., Trained]:
    """Gives small trainings."""
    # Here: it imports compiled code, whose folder `tests.settings` sets first.
    from tests.learning import kept

    return partial(kept.small_training, kept_folder)


@pytest.fixture(scope="session")
def small_training(kept_training: Callable[..., Trained]) -> Trained:
    return kept_training()


@pytest.fixture
def live_server(live_server, transactional_db) -> Iterator:
    """The live server; a test's tables are emptied only when the last request of its pages has
    ended. A request still on its way would hold locks against that, or write rows into the next
    test.
    """
    yield live_server
    last = time.monotonic() + 30
    for thread in threading.enumerate():
        if thread.name.endswith("(process_request_thread)"):
            thread.join(last - time.monotonic())
            assert not thread.is_alive(), (
                "a page is still connected: close its browser context before the test ends"
            )


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    """A client of the real Valkey, its database emptied."""
    client = redis.Redis.from_url(os.environ["VALKEY_URL"])
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def browser(db) -> Callable[[str], Client]:
    """Django's client signed in with a role; with an empty role it may see nothing."""
    from django.contrib.auth.models import Group, User

    from console.frame import roles
    from tests.audited import audited

    roles.ensure()

    def make(role: str = "support") -> Client:
        with audited():
            user = User.objects.create(username=f"{role or 'nobody'}@example.org")
            if role:
                user.groups.add(Group.objects.get(name=role))
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    return make


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with fresh signing keys and the token key, in the layout of var/keys."""
    folder = tmp_path / "keys"
    write_keys(folder)
    return folder


def write_keys(folder: Path) -> None:
    """Writes config.key, config.pub, token.key and outcomes.key as hex."""
    import secrets

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    (folder / "config.key").write_text(key.private_bytes_raw().hex())
    (folder / "config.pub").write_text(key.public_key().public_bytes_raw().hex())
    token_key = secrets.token_bytes(32)
    (folder / "token.key").write_text(token_key.hex())
    (folder / outcomes.KEY_FILE).touch(mode=0o600)
    (folder / outcomes.KEY_FILE).write_text(outcomes.derive_key(token_key).hex())
