"""Publish what people decided to the deciders: signed documents, models and app profiles in Valkey.

Valkey may be emptied at any time. `rebuild` fills it again from PostgreSQL and the model files, and
`pending` does so by itself. An older document never replaces a newer one, however many processes
publish at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from pathlib import Path

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from control import patience
from control.deciders import keys, known_apps
from control.deciders.valkey import answering, raw_bytes
from control.errors import ControlError
from control.models import App, ConfigVersion
from decider.contracts import artifact
from decider.contracts import config as document
from decider.contracts.config import Config, ConfigError, ModelRef, version_text
from decider.contracts.sealed import profiles
from decider.contracts.store import (
    CONFIG_CHANNEL,
    CONFIG_KEY,
    FILLED_KEY,
    MODEL_PREFIX,
    PROFILE_PREFIX,
    PROFILES_CHANNEL,
)

log = logging.getLogger(__name__)

# Profiles sent in one pipeline: few round trips, and some hundred kilobytes in memory.
PROFILE_BATCH = 1000
# Tries to replace the document. Chosen: changes wait for each other in PostgreSQL, so a second try
# is rare; twenty failures mean that something else keeps writing.
CAS_TRIES = 20

# The document that this process pushed last, with its version. Mostly the store still holds it,
# and then its signature need not be verified while deciders wait for the next one.
_pushed: list[tuple[bytes, int]] = []


def push_version(row: ConfigVersion) -> bool:
    """Publish a version, its model first, and record when. Return False when the store already
    holds a newer one. Raise StoreUnavailable when Valkey does not answer.
    """
    config = document.decode(bytes(row.payload))
    push_model(config)
    # after the model: a decider that reads the document looks for its model at once
    pushed = push(bytes(row.signed), config.version)
    if pushed:
        with transaction.atomic():
            # a crash that forgets this has the same document pushed again, which changes nothing
            patience.commit_without_waiting()
            ConfigVersion.objects.filter(version=row.version, published_at=None).update(
                published_at=timezone.now()
            )
    return pushed


def push(signed: bytes, version: int) -> bool:
    """Write a signed document to the store and tell the deciders. Return False when the store holds
    a newer document, or another one of this version. Raise StoreUnavailable; ControlError when the
    store changed at each of CAS_TRIES tries.
    """
    with answering() as valkey:
        put = valkey.register_script(_put_script())
        for _ in range(CAS_TRIES):
            seen = raw_bytes(valkey.get(CONFIG_KEY) or b"")
            if seen != signed and _version_of(seen) >= version:
                return False
            # compare and set: the script writes only while the store still holds what we looked at
            if put(keys=[CONFIG_KEY], args=[seen, signed, CONFIG_CHANNEL]):
                _pushed[:] = [(signed, version)]
                return True
    raise ControlError(
        f"Config {version_text(version)} could not be published: something else changed the"
        " document in Valkey"
        f" during each of {CAS_TRIES} tries. Find out what writes to {CONFIG_KEY}."
    )


def held() -> tuple[Config, bytes] | None:
    """Return the document in the store, decoded and as bytes; None when there is none or it is not
    signed with our key. Raise StoreUnavailable.
    """
    with answering() as valkey:
        data = raw_bytes(valkey.get(CONFIG_KEY) or b"")
    config = _trusted(data)
    return (config, data) if config else None


def push_model(config: Config) -> None:
    """Make sure that the store holds the live model's artifact. Log a missing file: deciders then
    fall back, and report it. Raise StoreUnavailable.
    """
    if config.model is None:
        return
    key = MODEL_PREFIX + config.model.digest
    with answering() as valkey:
        # the key names the content, so what is there need not be sent again
        if not valkey.exists(key) and (data := _model_file(config.model)) is not None:
            valkey.set(key, data)


def _model_file(model: ModelRef) -> bytes | None:
    """Return a registered artifact's bytes. Log a missing or wrong file and return None."""
    try:
        data = model_path(model.digest).read_bytes()
    except OSError as error:
        log.error("the live model %s %d cannot be read: %s", model.name, model.version, error)
        return None
    if artifact.digest_of(data) != model.digest:
        log.error(
            "the file of the live model %s %d is not what was registered", model.name, model.version
        )
        return None
    return data


def model_path(digest: str) -> Path:
    """Return the path at which a registered artifact is stored."""
    return settings.SLUICE_MODELS / digest


def push_profiles(apps: Iterable[App]) -> int:
    """Publish the profiles of these apps, PROFILE_BATCH in one pipeline, and update their entries
    in the table of known apps. Return how many profiles were published. Raise StoreUnavailable.
    """
    rows, count = iter(apps), 0
    while batch := list(islice(rows, PROFILE_BATCH)):
        count += _send_profiles(batch, _database_time())
        known_apps.tell(batch)
    return count


def push_many(apps: Iterable[App], advance: Callable[[int], object] | None = None) -> int:
    """Publish the profiles of these apps, however many, and return how many. Deciders get changes
    of the table of known apps, or the whole table where these are many. `advance` gets the number
    of apps after each step. Raise StoreUnavailable.
    """
    rows, count = iter(apps), 0
    few: list[App] = []
    while batch := list(islice(rows, PROFILE_BATCH)):
        count += _send_profiles(batch, _database_time())
        if count <= known_apps.MOST_NAMED:
            few += batch
        if advance is not None:
            advance(len(batch))
    if count > known_apps.MOST_NAMED:
        known_apps.publish_all()
    else:
        known_apps.tell(few)
    return count


def _send_profiles(apps: Iterable[App], read_at: float) -> int:
    """Publish profiles of apps as they were read then (unix seconds, the database's). A decider
    that holds a later one keeps it.
    """
    rows, count, key = iter(apps), 0, _profile_key()
    while batch := list(islice(rows, PROFILE_BATCH)):
        with answering() as valkey, valkey.pipeline(transaction=False) as pipe:
            for app in batch:
                profile = msgspec.structs.replace(app.profile, sealed_at=read_at)
                data = profiles.seal(profile, key)
                pipe.set(PROFILE_PREFIX + app.id, data)
                pipe.publish(PROFILES_CHANNEL, data)
            pipe.execute()
        count += len(batch)
    return count


def rebuild() -> int:
    """Fill an emptied store: the newest document with its model, the table of known apps, and every
    profile. Return the number of profiles. Raise StoreUnavailable.
    """
    newest = ConfigVersion.objects.order_by("-version").first()
    if newest is not None:
        push_version(newest)
    # the table first: deciders then know the paying apps while profiles are still being sent
    known_apps.publish_all()
    # the time before the apps are read: what changes meanwhile is later
    read_at = _database_time()
    count = _send_profiles(App.objects.iterator(chunk_size=PROFILE_BATCH), read_at)
    with answering() as valkey:
        # set last: while it is missing or another key's, `pending` fills the store again
        valkey.set(FILLED_KEY, profiles.mark(_profile_key()))
    return count


def pending() -> str:
    """Bring the store up to what is committed. Return what was done in a few words, "" when there
    was nothing to do. Raise StoreUnavailable.
    """
    newest = ConfigVersion.objects.order_by("-version").first()
    if newest is None:
        return ""
    with answering() as valkey:
        filled = raw_bytes(valkey.get(FILLED_KEY) or b"")
    if filled != profiles.mark(_profile_key()).encode():
        return f"filled the store: config {version_text(newest.version)}, {rebuild()} profiles"
    now = held()
    if newest.published_at is None or now is None or now[0].version < newest.version:
        return f"published config {version_text(newest.version)}" if push_version(newest) else ""
    # the document is there, but its model may have been evicted
    push_model(now[0])
    return ""


def _database_time() -> float:
    """Return the time by the clock that all consoles share, unix seconds."""
    with connection.cursor() as cursor:
        # not now(), which stands still within a transaction
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        (seconds,) = cursor.fetchone()
    return float(seconds)


def _profile_key() -> bytes:
    return profiles.derive_key(keys.load_token_key(settings.SLUICE_KEYS))


def _version_of(data: bytes) -> int:
    """Return the version of a document from the store; 0 for one that is not ours."""
    for signed, version in _pushed:
        if data == signed:
            return version
    config = _trusted(data)
    return config.version if config else 0


def _trusted(data: bytes) -> Config | None:
    """Return a document signed with our key; None for anything else, which may be overwritten."""
    if not data:
        return None
    try:
        return document.verify(data, keys.load_public_keys(settings.SLUICE_KEYS))
    except ConfigError as error:
        log.error("the config document in Valkey is invalid or not signed with our key: %s", error)
        return None


@cache
def _put_script() -> str:
    return (Path(__file__).parent / "resources" / "put_config.lua").read_text(encoding="ascii")
