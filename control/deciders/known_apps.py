"""Publish the table of known apps: all apps above the free tier, and all apps of tenants that the
config document names in a rule.

The stream in the store begins with a signed snapshot; signed changes follow it. Code that changes
apps calls `tell` with them. `pending` follows the config document, and sends a new snapshot when
the stream is missing, long, old, or made with another token key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import redis
from django.conf import settings
from django.db.models import Q

from control.deciders import keys
from control.deciders.valkey import answering, raw_bytes
from control.errors import ControlError
from control.models import App, ConfigVersion
from decider.contracts import config as document
from decider.contracts import known
from decider.contracts.known import CHANGES_ENTRIES, Changes, Entries, KnownError, Message, Snapshot
from decider.contracts.store import KNOWN_PART_PREFIX, KNOWN_PART_TTL_S, KNOWN_STREAM
from decider.engine.known_apps.table import REMOVED, KnownAppsError, build
from decider.engine.text_hash import TextHash

log = logging.getLogger(__name__)

# Apps read from the database at once: some megabytes.
READ_ROWS = 20_000
# Messages of changes after which a new snapshot is sent. Chosen: a decider that starts reads them
# all within a second.
MOST_CHANGES = 60
# Seconds after which a new snapshot is sent in any case. Chosen: a change that bypassed `tell`, for
# example by hand in the database, takes effect within a day.
SNAPSHOT_EVERY_S = 86_400.0
# When the tenants whose rules changed have more apps than this, a snapshot is sent instead of
# changes. Chosen: changes then take at most half of the messages that may follow a snapshot.
MOST_NAMED = CHANGES_ENTRIES * MOST_CHANGES // 2
# Tries to add a message. Chosen: two publishers at once are rare; twenty failures mean that
# something else keeps writing.
CAS_TRIES = 20

# An app's id, its tenant's id, and its tier.
AppRow = tuple[str, str, int]


class _Newest(NamedTuple):
    """The newest message in the stream."""

    id: str
    """Its id in the stream, "" when the stream is empty."""
    message: Message | None
    """None when the stream is empty or the message is not signed with our key."""


def publish_all() -> int:
    """Send a snapshot of all known apps. Return how many apps it holds. Raise StoreUnavailable."""
    version = ConfigVersion.objects.order_by("-version").values_list("version", flat=True).first()
    text_hash = _text_hash()
    entries = _all_entries(text_hash, named_tenants(version or 0))
    parts = known.split(entries)
    with answering() as valkey:
        for digest, data in parts.items():
            # before the snapshot: a decider that reads it asks for its parts at once
            valkey.set(KNOWN_PART_PREFIX + digest, data)

    def made(newest: _Newest) -> Message:
        number = _next_version(newest)
        return Snapshot(number, version or 0, text_hash.mark, list(parts))

    _add(made)
    _let_expire(set(parts))
    return len(entries[0])


def tell(apps: Iterable[App]) -> None:
    """Send the present tier and tenant of these apps to the deciders. Send nothing when no table
    was sent yet: the next `pending` sends the whole table. Raise StoreUnavailable.
    """
    newest = _newest()
    if newest.message is not None:
        rows = ((app.id, app.tenant_id, app.tier) for app in apps)
        _send(rows, newest.message.config_version)


def pending() -> str:
    """Bring the table up to the config document, and send a new snapshot where one is due. Return
    what was done in a few words, "" when there was nothing to do. Raise StoreUnavailable.
    """
    version = ConfigVersion.objects.order_by("-version").values_list("version", flat=True).first()
    if version is None:
        return ""
    message = _newest().message
    if message is None or _is_snapshot_due(message):
        return f"sent a table of {publish_all():,} known apps"
    if version == message.config_version:
        return ""
    if not (changed := named_tenants(version) ^ named_tenants(message.config_version)):
        return ""
    found = App.objects.filter(tenant_id__in=changed).order_by("id")
    rows = list(found.values_list("id", "tenant_id", "tier")[: MOST_NAMED + 1])
    if len(rows) > MOST_NAMED or not rows:
        return f"sent a table of {publish_all():,} known apps"
    _send(rows, version)
    return f"told deciders of {len(rows):,} apps of tenants whose rules changed"


def named_tenants(version: int) -> frozenset[str]:
    """Return the tenants that a config version names in a list or an override."""
    row = ConfigVersion.objects.filter(version=version).first()
    if row is None:
        return frozenset()
    config = document.decode(bytes(row.payload))
    rules = [(entry.kind, entry.subject) for entry in config.lists]
    rules += [(override.kind, override.subject) for override in config.overrides]
    return frozenset(subject for kind, subject in rules if kind == "tenant")


def _is_snapshot_due(message: Message) -> bool:
    """Return whether the stream is long, old, made with another token key, or lacks parts."""
    if message.mark != _text_hash().mark:
        return True
    if isinstance(message, Changes) and message.since >= MOST_CHANGES:
        return True
    with answering() as valkey:
        oldest = valkey.xrange(KNOWN_STREAM, count=1)
        snapshot = _trusted(oldest[0][1]) if oldest else None
        if not isinstance(snapshot, Snapshot):
            return True
        if time.time() - snapshot.version / 1e3 > SNAPSHOT_EVERY_S:
            return True
        names = [KNOWN_PART_PREFIX + digest for digest in snapshot.parts]
        return bool(names) and int(valkey.exists(*names)) < len(set(names))


def _all_entries(text_hash: TextHash, named: frozenset[str]) -> Entries:
    rows = App.objects.filter(Q(tier__gt=0) | Q(tenant_id__in=named)).order_by()
    found = rows.values_list("id", "tenant_id", "tier").iterator(chunk_size=READ_ROWS)
    parts: list[Entries] = [_hashed(text_hash, [])]
    while batch := list(islice(found, READ_ROWS)):
        parts.append(_hashed(text_hash, batch))
    try:
        table = build(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    except KnownAppsError as error:
        raise ControlError(f"The table of known apps cannot be made: {error}.") from error
    return table.key, table.tenant, table.tier


def _hashed(text_hash: TextHash, rows: Sequence[AppRow]) -> Entries:
    return (
        text_hash.many([app for app, _, _ in rows]).view(np.uint64),
        text_hash.many([tenant for _, tenant, _ in rows]),
        np.array([tier for _, _, tier in rows], np.uint8),
    )


def _send(rows: Iterable[AppRow], version: int) -> None:
    """Send the present tier and tenant of these apps, at most CHANGES_ENTRIES in one message. The
    table drops free apps whose tenant config `version` does not name.
    """
    text_hash, named, left = _text_hash(), named_tenants(version), iter(rows)
    while batch := list(islice(left, CHANGES_ENTRIES)):
        told = [
            (app, tenant, tier if tier or tenant in named else REMOVED)
            for app, tenant, tier in batch
        ]
        data = known.pack(_hashed(text_hash, told))

        def made(newest: _Newest, data: bytes = data) -> Message | None:
            before = newest.message
            # the table is gone or has another token key by now: `pending` sends the whole table
            if before is None or before.mark != text_hash.mark:
                return None
            since = before.since + 1 if isinstance(before, Changes) else 1
            number = _next_version(newest)
            return Changes(number, before.version, version, text_hash.mark, since, data)

        _add(made)


def _add(made: Callable[[_Newest], Message | None]) -> None:
    """Add the message that `made` returns for the newest one; add nothing for None. Call `made`
    again when another publisher was faster. Raise ControlError after CAS_TRIES tries.
    """
    key = keys.load_signing_key(settings.SLUICE_KEYS)
    with answering() as valkey:
        put = valkey.register_script(_put_script())
        for _ in range(CAS_TRIES):
            newest = _read_newest(valkey)
            if (message := made(newest)) is None:
                return
            signed, whole = known.sign(message, key), isinstance(message, Snapshot)
            flag = "1" if whole else "0"
            if put(keys=[KNOWN_STREAM], args=[newest.id, f"{message.version}-0", signed, flag]):
                return
    raise ControlError(
        f"The known apps could not be published: something else changed the stream in Valkey during"
        f" each of {CAS_TRIES} tries. Find out what writes to {KNOWN_STREAM}."
    )


def _next_version(newest: _Newest) -> int:
    before = newest.message.version if newest.message else 0
    return max(int(time.time() * 1e3), before + 1)


def _newest() -> _Newest:
    with answering() as valkey:
        return _read_newest(valkey)


def _read_newest(valkey: redis.Redis) -> _Newest:
    found = valkey.xrevrange(KNOWN_STREAM, count=1)
    if not found:
        return _Newest("", None)
    name, fields = found[0]
    return _Newest(raw_bytes(name).decode("ascii"), _trusted(fields))


def _trusted(fields: object) -> Message | None:
    """Return the message in an entry of the stream; None when it is not signed with our key."""
    data = fields.get(b"b", b"") if isinstance(fields, dict) else b""
    try:
        return known.verify(data, keys.load_public_keys(settings.SLUICE_KEYS))
    except KnownError as error:
        log.error("the known apps in Valkey are invalid or not signed with our key: %s", error)
        return None


def _let_expire(kept: set[str]) -> None:
    """Let the parts that are not in `kept` expire: no snapshot names them any more."""
    with answering() as valkey:
        for name in valkey.scan_iter(KNOWN_PART_PREFIX + "*", count=1000):
            if raw_bytes(name).decode("ascii").removeprefix(KNOWN_PART_PREFIX) not in kept:
                valkey.expire(name, KNOWN_PART_TTL_S)


def _text_hash() -> TextHash:
    return TextHash(keys.load_token_key(settings.SLUICE_KEYS))


@cache
def _put_script() -> str:
    return (Path(__file__).parent / "resources" / "put_known.lua").read_text(encoding="ascii")
