"""The table of known apps on its way: what is in it, in which order, and who may make it."""

from __future__ import annotations

import asyncio
import time

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from control.config import changes
from control.deciders import keys, known_apps, publish
from control.models import App, Tenant
from decider.contracts import defaults, known
from decider.contracts.config import ListEntry
from decider.contracts.store import KNOWN_PART_PREFIX, KNOWN_STREAM
from decider.engine.engine import Engine
from decider.node.known_keeper import KnownKeeper
from tests.control.conftest import DELE

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def apps(first) -> None:
    """Three tenants, each with an app of the free tier and one of the enterprise tier."""
    for name in ("a", "b", "c"):
        tenant = Tenant.objects.create(id=f"ten_{name}", name=name)
        for tier in (0, 3):
            App.objects.create(id=f"app_{name}{tier}", name=name, tenant=tenant, tier=tier)


class Played:
    """A decider played by hand: its engine and its keeper of known apps."""

    def __init__(self, folder, valkey) -> None:
        self.engine = Engine("d01", "local", keys.load_token_key(settings.SLUICE_KEYS), 1024)
        self.engine.apply(defaults.config(), None)
        self.valkey = valkey
        self.keeper = KnownKeeper(
            self.engine, keys.load_public_keys(settings.SLUICE_KEYS), folder / "node"
        )

    async def _part(self, digest: str) -> bytes | None:
        return self.valkey.get(KNOWN_PART_PREFIX + digest)

    def look(self) -> None:
        async def play() -> None:
            for _, fields in self.valkey.xrange(KNOWN_STREAM):
                await self.keeper.offer(fields[b"b"], self._part)

        asyncio.run(play())

    def tiers(self) -> dict[str, int]:
        """Tiers of the apps in its table, by id."""
        from decider.engine.known_apps.table import look_up

        names = list(App.objects.order_by("id").values_list("id", flat=True))
        hashes, table = self.engine.text_hash.many(names), self.engine.known.table
        keys = dict(zip(names, hashes.view(np.uint64), strict=True))
        found = {name: look_up(table, key)[0] for name, key in keys.items()}
        return {name: tier for name, tier in found.items() if tier >= 0}


@pytest.fixture
def decider(tmp_path, valkey) -> Played:
    return Played(tmp_path, valkey)


PAYING = {"app_a3": 3, "app_b3": 3, "app_c3": 3}


def with_rules(*tenants: str) -> None:
    lists = [ListEntry(verdict="block", kind="tenant", subject=name) for name in tenants]
    changes.make_version(
        by=DELE,
        reason="Abuse",
        action="list.add",
        subject="x",
        summary="x",
        edit=lambda c: msgspec.structs.replace(c, lists=lists),
    )


def test_all_paying_apps_are_in_it_and_those_of_tenants_that_a_rule_names(decider) -> None:
    assert known_apps.pending() == "sent a table of 3 known apps"
    decider.look()
    assert decider.tiers() == PAYING
    assert known_apps.pending() == ""
    with_rules("ten_b")
    assert known_apps.pending() == "told deciders of 2 apps of tenants whose rules changed"
    decider.look()
    assert decider.tiers() == PAYING | {"app_b0": 0}
    assert known_apps.pending() == ""
    with_rules("ten_c")
    known_apps.pending()
    decider.look()
    assert decider.tiers() == PAYING | {"app_c0": 0}


def test_an_app_that_is_published_reaches_it(decider) -> None:
    known_apps.publish_all()
    for name, tier in (("app_a0", 2), ("app_a3", 0)):
        App.objects.filter(id=name).update(tier=tier)
    publish.push_profiles(App.objects.filter(tenant_id="ten_a"))
    decider.look()
    assert decider.tiers() == {"app_a0": 2, "app_b3": 3, "app_c3": 3}


def test_a_decider_that_starts_with_the_store_away_has_what_it_kept(
    decider, tmp_path, valkey
) -> None:
    known_apps.publish_all()
    publish.push_profiles(App.objects.filter(id="app_a3"))
    App.objects.filter(id="app_b3").update(tier=1)
    publish.push_profiles(App.objects.filter(id="app_b3"))
    decider.look()
    valkey.flushdb()
    again = Played(tmp_path, valkey)
    again.keeper.start_from_disk()
    assert again.tiers() == {"app_a3": 3, "app_b3": 1, "app_c3": 3}
    assert (again.keeper.version, again.keeper.apps) == (decider.keeper.version, 3)


@pytest.mark.parametrize("file", ["known.bin", "known_changes.bin"])
def test_a_damaged_file_is_counted_and_stops_nothing(decider, tmp_path, valkey, file) -> None:
    known_apps.publish_all()
    publish.push_profiles(App.objects.filter(id="app_a3"))
    decider.look()
    path = tmp_path / "node" / file
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    again = Played(tmp_path, valkey)
    again.keeper.start_from_disk()
    assert again.keeper.rejected == 1
    again.look()
    assert again.tiers() == PAYING


def test_what_is_not_signed_with_our_key_is_ignored_counted_and_replaced(decider, valkey) -> None:
    known_apps.publish_all()
    decider.look()
    mark = decider.engine.text_hash.mark
    forged = known.Snapshot(2**50, 1, mark, [])
    valkey.xadd(KNOWN_STREAM, {"b": known.sign(forged, Ed25519PrivateKey.generate())})
    for _ in range(3):
        decider.look()
    assert decider.tiers() == PAYING
    assert (decider.keeper.rejected, "unknown key" in decider.keeper.last_error) == (1, True)
    assert known_apps.pending() == "sent a table of 3 known apps"
    assert valkey.xlen(KNOWN_STREAM) == 1


def test_a_lost_change_leaves_what_is_held_until_the_next_snapshot(decider, valkey) -> None:
    known_apps.publish_all()
    decider.look()
    for tier in (1, 2):
        App.objects.filter(id="app_a3").update(tier=tier)
        publish.push_profiles(App.objects.filter(id="app_a3"))
    valkey.xdel(KNOWN_STREAM, valkey.xrange(KNOWN_STREAM)[1][0])
    decider.look()
    assert (decider.tiers(), decider.keeper.rejected) == (PAYING, 1)
    known_apps.publish_all()
    decider.look()
    assert decider.tiers() == PAYING | {"app_a3": 2}


def test_a_part_that_is_missing_or_changed_is_noticed_on_both_sides(decider, valkey) -> None:
    known_apps.publish_all()
    (name,) = valkey.keys(KNOWN_PART_PREFIX + "*")
    good = valkey.get(name)
    valkey.set(name, good[:-1] + b"\x02")
    decider.look()
    assert (decider.tiers(), decider.keeper.rejected) == ({}, 1)
    valkey.delete(name)
    assert known_apps.pending() == "sent a table of 3 known apps"
    decider.look()
    assert decider.tiers() == PAYING


def test_hashes_of_another_token_key_are_refused_and_made_anew(decider, valkey) -> None:
    known_apps.publish_all()
    (settings.SLUICE_KEYS / "token.key").write_text("07" * 32)
    other = Played(settings.SLUICE_VAR / "other", valkey)
    other.look()
    assert (other.keeper.version, other.keeper.rejected) == (0, 1)
    assert known_apps.pending() == "sent a table of 3 known apps"
    other.look()
    assert other.tiers() == PAYING


def test_many_changes_or_a_day_make_a_new_snapshot(valkey, monkeypatch) -> None:
    known_apps.publish_all()
    for _ in range(known_apps.MOST_CHANGES):
        publish.push_profiles(App.objects.filter(id="app_a3"))
    assert valkey.xlen(KNOWN_STREAM) == 1 + known_apps.MOST_CHANGES
    assert known_apps.pending() == "sent a table of 3 known apps"
    assert valkey.xlen(KNOWN_STREAM) == 1
    now = time.time()
    monkeypatch.setattr(known_apps.time, "time", lambda: now + known_apps.SNAPSHOT_EVERY_S + 1)
    assert known_apps.pending() == "sent a table of 3 known apps"


def test_an_emptied_store_is_filled_with_the_table_too(decider, valkey) -> None:
    publish.rebuild()
    valkey.flushdb()
    publish.pending()
    decider.look()
    assert decider.tiers() == PAYING


def test_an_older_message_that_is_played_again_changes_nothing(decider, valkey) -> None:
    known_apps.publish_all()
    old = valkey.xrange(KNOWN_STREAM)[0][1][b"b"]
    App.objects.filter(id="app_a3").update(tier=1)
    publish.push_profiles(App.objects.filter(id="app_a3"))
    decider.look()
    assert not asyncio.run(decider.keeper.offer(old, decider._part))
    assert decider.tiers() == PAYING | {"app_a3": 1}
