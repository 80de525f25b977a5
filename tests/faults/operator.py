"""What an operator does to an installation, as text for `manage.py shell`."""

from __future__ import annotations

_CHANGE = """
import msgspec
from control.audit.actors import SYSTEM
from control.config import changes
from decider.contracts import config as documents
from decider.contracts.config import Config, ListEntry, ModelRef, Sampling, Switch

def edit(old: Config) -> Config:
    return {new}

changes.make_version(
    by=SYSTEM, reason="a fault", action="config.test", subject="config", summary="changed it",
    edit=edit,
)
print(changes.current().version)
"""


def change(new: str = "old") -> str:
    """Return the text that makes and publishes the document `new`, an expression of `old`, and
    prints its version.
    """
    return _CHANGE.replace("{new}", new)


# Keeps every decision, so that each one that a client was told of must be stored.
SAMPLE_ALL = change("msgspec.structs.replace(old, sampling=Sampling(admit=1.0, refuse=1.0))")
NEWEST = "from control.config import changes; print(changes.current().version)"


def block(app: str) -> str:
    """Return the text that puts an app onto the block list."""
    entry = f"ListEntry(verdict='block', kind='app', subject={app!r})"
    return change(f"msgspec.structs.replace(old, lists=[*old.lists, {entry}])")


def use_model(digest: str) -> str:
    """Return the text that makes a model live, and has every request ranked by it."""
    tiers = "[msgspec.structs.replace(t, rank_from=0.0) for t in old.tiers]"
    model = f"ModelRef('broken', 1, {digest!r})"
    return change(f"msgspec.structs.replace(old, model={model}, tiers={tiers})")


def set_quota(requests: int) -> str:
    """Return the text that gives every app a daily quota, and nothing else that stops it."""
    plan = f"quota_per_day={requests}, rate=1000, burst=10_000"
    tiers = f"[msgspec.structs.replace(t, {plan}) for t in old.tiers]"
    switches = "[*old.switches, Switch('all_ml')]"
    return change(f"msgspec.structs.replace(old, tiers={tiers}, switches={switches})")


def go_back(version: int) -> str:
    """Return the text that makes what an earlier version said hold again."""
    found = f"ConfigVersion.objects.get(version={version}).payload"
    return "from control.models import ConfigVersion" + change(f"documents.decode(bytes({found}))")


# Signs a person in, and prints the cookie.
SIGN_IN = """
from django.conf import settings
from django.test import Client
from console.frame import roles
from control.audit.actors import SYSTEM
from control.people import accounts, grants
roles.ensure()
person = accounts.find("sre@faults.example")
if person is None:
    person = accounts.make(
        by=SYSTEM, email="sre@faults.example", first="Dele", last="Okafor", reason="A fault"
    )
    grants.give(by=SYSTEM, person=person, role="sre", reason="A fault")
client = Client()
client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
print(settings.SESSION_COOKIE_NAME + "=" + client.cookies[settings.SESSION_COOKIE_NAME].value)
"""
