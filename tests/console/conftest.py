"""What the console's tests share: an installation, people of each role, deciders played by hand,
and the templates rendered.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.dispatch import receiver
from django.test import Client
from django.test.signals import template_rendered

from console.frame import roles
from console.pages.home import mix
from control.audit.actors import SYSTEM
from control.config import changes
from control.models import App, Tenant
from decider.contracts import config, defaults, store
from decider.store_users.roles import Role
from decisions.store import copy_format, rows
from tests.audited import audited
from tests.console.one_app import APP
from tests.control.played import Played
from tests.servers import store_url
from tests.told import sealed

PASSWORD = "a-password-for-tests"
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RENDERED: set[str] = set()
"""Names of all templates rendered so far in this session, by whatever test."""


@receiver(template_rendered, weak=False)
def _remember(template: object, **_: object) -> None:
    RENDERED.add(str(getattr(template, "name", "")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks back on all the others comes last."""
    items.sort(key=lambda item: item.name == "test_every_template_is_rendered_by_some_test")


@pytest.fixture(autouse=True)
def installation(settings, tmp_path: Path, keys: Path, valkey: redis.Redis) -> Path:
    """An installation's folder with keys, nothing in Valkey, and nothing remembered."""
    settings.SLUICE_VAR = tmp_path
    settings.SLUICE_KEYS = keys
    settings.VALKEY_URL = store_url(Role.CONSOLE)
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher"
    ]  # the real one is slow on purpose
    mix.forget_buckets()
    return tmp_path


@pytest.fixture
def person(db) -> Callable[[str], User]:
    """Makes someone with a role; an empty role is nobody's."""
    roles.ensure()

    def make(role: str) -> User:
        with audited():
            user = User.objects.create_user(
                f"{role or 'nobody'}@example.org",
                password=PASSWORD,
                first_name="Mara",
                last_name="Lindqvist",
            )
            if role:
                user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def signed_in(person) -> Callable[[str], Client]:
    """A browser signed in with a role."""

    def make(role: str) -> Client:
        client = Client()
        client.force_login(person(role), backend="django.contrib.auth.backends.ModelBackend")
        return client

    return make


@pytest.fixture
def publish(keys: Path, valkey: redis.Redis) -> Callable[..., config.Config]:
    """Puts a signed config document into the store; any field may be given."""

    def put(**fields) -> config.Config:
        document = msgspec.structs.replace(defaults.config(7, time.time() - 60), **fields)
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((keys / "config.key").read_text()))
        valkey.set(store.CONFIG_KEY, config.sign(document, key))
        return document

    return put


MODEL = config.ModelRef(name="risk", version=1, digest="ab" * 32)


@pytest.fixture
def beat(valkey: redis.Redis) -> Callable[..., store.NodeStatus]:
    """Does what a decider does once a second; `ago` plays one that stopped."""

    def put(node: str = "d01", *, ago: float = 0.0, **fields) -> store.NodeStatus:
        said = status(node, time.time() - ago, **fields)
        if not ago:
            valkey.set(store.NODE_PREFIX + node, sealed(said), ex=store.NODE_TTL_S)
        valkey.zadd(store.NODES_KEY, {node: said.at})
        return said

    return put


@pytest.fixture
def gateway(valkey: redis.Redis) -> Iterator[Callable[..., None]]:
    """Does what the reader of a gateway's log does once a second."""

    def put(name: str = "edge", **fields) -> None:
        told = store.GatewayStatus(name, time.time(), **fields)
        valkey.hset(store.GATEWAYS_KEY, name, msgspec.msgpack.encode(told))

    yield put
    valkey.delete(store.GATEWAYS_KEY)


def status(node: str, at: float, **fields) -> store.NodeStatus:
    """A heartbeat of a healthy decider at config 7; any field may be given."""
    base = {
        "node": node,
        "region": "local",
        "at": at,
        "started_at": at - 600,
        "config_version": 7,
        "model": MODEL.digest,
        "ml_state": 0,
        "decisions": 0,
        "by_action": [0] * 5,
        "events_sent": 0,
        "events_dropped": 0,
        "apps": 3,
        "latency_p99_us": 900.0,
        "services": [load("orders-read", 0.4)],
    }
    return store.NodeStatus(**(base | fields))


def load(name: str, utilisation: float, **fields) -> store.ServiceStatus:
    base = {
        "name": name,
        "utilisation": utilisation,
        "price": 0.0,
        "latency_ms": 41.0,
        "error_share": 0.01,
        "feedback_age_s": 1.0,
    }
    return store.ServiceStatus(**(base | fields))


@pytest.fixture
def stored(db) -> Callable[[list], None]:
    """Stores decision events as ingest does."""

    def put(events: list) -> None:
        with transaction.atomic():
            rows.copy_events(events, copy_format.Texts())

    return put


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of ours that everyone may enter, with a space in its name."""
    outer = Path(tempfile.mkdtemp(prefix="sluice tests ", dir="/tmp"))
    outer.chmod(0o755)
    yield outer
    shutil.rmtree(outer)


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A real browser; the test is skipped, saying so, where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Playwright's loop runs in this thread; Django would take it for an async context
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def new_tab(chromium, live_server) -> Iterator[Callable]:
    """Gives tabs in which nobody is signed in, 1440 wide and light unless told. What a page throws
    or the CSP stops fails the test.
    """
    contexts, problems = [], []

    def open_new(**more):
        usual = {"color_scheme": "light", "viewport": {"width": 1440, "height": 900}}
        context = chromium.new_context(**(usual | more))
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
        tab = context.new_page()
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on(
            "console",
            lambda said: (
                problems.append(said.text) if "Content Security Policy" in said.text else None
            ),
        )
        return tab

    yield open_new
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def open_tab(new_tab, live_server, person) -> Callable:
    """Opens a path in a tab of its own, signed in with a role."""

    def go(role: str, path: str, **more):
        client = Client()
        client.force_login(person(role), backend="django.contrib.auth.backends.ModelBackend")
        tab = new_tab(**more)
        cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
        tab.context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": live_server.url}]
        )
        tab.goto(live_server.url + path)
        return tab

    return go


@pytest.fixture
def known(installation, settings, tmp_path) -> App:
    """Order sync of Tidewell Retail, in an installation with a first config."""
    settings.SLUICE_MODELS = tmp_path / "models"
    changes.first(by=SYSTEM, reason="A new installation")
    with audited():
        tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
        return App.objects.create(id=APP, name="Order sync", tenant=tenant, tier=1)


@pytest.fixture
def decider(valkey: redis.Redis, keys: Path, beat) -> Iterator[Callable[..., Played]]:
    """Start deciders by name, which run until the test ends."""
    running: list[Played] = []

    def start(node: str = "d01") -> Played:
        running.append(Played(valkey, keys, node))
        beat(node)
        return running[-1]

    yield start
    for one in running:
        one.stop()
