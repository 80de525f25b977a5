from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec
import pytest
from django.conf import settings

from control.deciders import keys, publish
from control.models import App, Tenant
from control.switches import switches
from decider.contracts import artifact, config, defaults
from decider.contracts.sealed import profiles
from decider.contracts.store import (
    CONFIG_CHANNEL,
    CONFIG_KEY,
    FILLED_KEY,
    MODEL_PREFIX,
    PROFILE_PREFIX,
    PROFILES_CHANNEL,
)
from tests.control.conftest import DELE

pytestmark = pytest.mark.django_db


def signed(version: int, **fields) -> bytes:
    document = msgspec.structs.replace(defaults.config(version, 1.0), **fields)
    return config.sign(document, keys.load_signing_key(settings.SLUICE_KEYS))


def test_an_older_version_never_replaces_a_newer_one_however_many_publish_at_once(
    published,
) -> None:
    versions = list(range(1, 41))
    random.Random(7).shuffle(versions)
    documents = {version: signed(version) for version in versions}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: publish.push(documents[version], version), versions))
    assert published().version == 40
    assert publish.push(documents[39], 39) is False
    assert published().version == 40


def test_another_document_of_the_same_version_is_not_swapped_in(published) -> None:
    assert publish.push(signed(3), 3)
    assert publish.push(signed(3, nodes=99), 3) is False
    assert published().nodes == 8


def test_publishing_the_same_document_again_tells_the_deciders_again(valkey) -> None:
    with valkey.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(CONFIG_CHANNEL)
        heard.get_message(timeout=1)
        document = signed(1)
        assert publish.push(document, 1)
        assert publish.push(document, 1)
        messages = [m["data"] for m in (heard.get_message(timeout=1) for _ in range(2)) if m]
    assert messages == [document, document]


def test_replacing_what_this_process_pushed_verifies_no_signature(published, monkeypatch) -> None:
    assert publish.push(signed(1), 1)
    with monkeypatch.context() as patch:
        patch.setattr(config, "verify", None)
        assert publish.push(signed(2), 2)
        assert publish.push(signed(1), 1) is False
    assert published().version == 2


def test_a_newer_document_of_another_process_is_verified_and_kept(valkey, published) -> None:
    assert publish.push(signed(1), 1)
    valkey.set(CONFIG_KEY, signed(9))
    assert publish.push(signed(2), 2) is False
    assert published().version == 9


@pytest.mark.parametrize("rubbish", [b"\x00rubbish", b"", b"\x93\xc4\x01x\xc4\x01y\xa1z"])
def test_a_document_in_the_store_that_is_not_ours_is_overwritten(
    valkey, published, rubbish: bytes
) -> None:
    valkey.set(CONFIG_KEY, rubbish)
    assert publish.held() is None
    assert publish.push(signed(1), 1)
    assert published().version == 1


def test_a_profile_reaches_the_store_and_the_channel(valkey) -> None:
    tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
    app = App.objects.create(
        id="app_7q2m4kx9",
        name="Order sync",
        tenant=tenant,
        tier=1,
        verified=True,
        cohort_prior=0.02,
    )
    with valkey.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(PROFILES_CHANNEL)
        heard.get_message(timeout=1)
        assert publish.push_profiles([app]) == 1
        assert heard.get_message(timeout=1)["data"] == valkey.get(PROFILE_PREFIX + app.id)
    data = valkey.get(PROFILE_PREFIX + app.id)
    profile = profiles.unseal(data, publish._profile_key())
    assert abs(time.time() - profile.sealed_at) < 60
    assert msgspec.structs.replace(profile, sealed_at=0.0) == app.profile
    # as deciders read it before profiles were sealed
    plain = msgspec.structs.astuple(app.profile)[:10]
    assert msgspec.msgpack.decode(data, type=tuple)[:10] == plain
    publish.push_profiles([app])
    again = profiles.unseal(valkey.get(PROFILE_PREFIX + app.id), publish._profile_key())
    assert again.sealed_at > profile.sealed_at
    assert (profile.tenant, profile.tier, profile.verified) == ("ten_tidewell", 1, True)


def test_profiles_sealed_with_another_key_are_sent_again(first, valkey, keys) -> None:
    tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
    app = App.objects.create(id="app_7q2m4kx9", name="Order sync", tenant=tenant, tier=1)
    assert "filled the store" in publish.pending()
    assert publish.pending() == ""
    (keys / "token.key").write_text("ab" * 32)
    assert "filled the store" in publish.pending()
    data = valkey.get(PROFILE_PREFIX + app.id)
    assert profiles.unseal(data, profiles.derive_key(b"\xab" * 32)).app == app.id
    # as a console filled it before profiles were sealed
    valkey.set(FILLED_KEY, 1)
    assert "filled the store" in publish.pending()


def test_an_app_from_before_1970_is_told_as_of_then(first) -> None:
    tenant = Tenant.objects.create(id="ten_tidewell", name="Tidewell Retail")
    app = App(id="app_old", name="Old", tenant=tenant, tier=1)
    app.created_at = datetime(1960, 1, 1, tzinfo=UTC)
    key = publish._profile_key()
    assert profiles.unseal(profiles.seal(app.profile, key), key).created_at == 0.0


def test_an_emptied_store_is_noticed_and_filled_again_with_config_model_and_profiles(
    first, valkey, published
) -> None:
    tenant = Tenant.objects.create(id="ten_a", name="A")
    App.objects.bulk_create(
        App(id=f"app_{k}", name=f"App {k}", tenant=tenant, tier=0) for k in range(2500)
    )
    data = b"a model"
    digest = artifact.digest_of(data)
    publish.model_path(digest).parent.mkdir()
    publish.model_path(digest).write_bytes(data)
    from control.config import changes

    changes.make_version(
        by=DELE,
        reason="A model",
        action="model.make_live",
        subject="risk",
        summary="x",
        edit=lambda c: msgspec.structs.replace(c, model=config.ModelRef("risk", 1, digest)),
    )
    valkey.flushdb()
    assert publish.pending() == "filled the store: config 2, 2500 profiles"
    assert (
        published().version,
        valkey.get(MODEL_PREFIX + digest),
        len(valkey.keys(PROFILE_PREFIX + "*")),
    ) == (2, data, 2500)
    assert publish.pending() == ""
    valkey.delete(CONFIG_KEY, MODEL_PREFIX + digest)
    assert publish.pending() == "published config 2"
    assert valkey.exists(MODEL_PREFIX + digest)


def test_a_model_file_that_is_not_what_was_registered_is_not_published(
    first, valkey, caplog
) -> None:
    digest = "ab" * 32
    publish.model_path(digest).parent.mkdir()
    publish.model_path(digest).write_bytes(b"something else")
    publish.push_model(
        msgspec.structs.replace(defaults.config(1, 1.0), model=config.ModelRef("risk", 1, digest))
    )
    assert not valkey.exists(MODEL_PREFIX + digest)
    assert "not what was registered" in caplog.text


def test_a_switch_flip_reaches_a_subscribed_decider_within_the_commit(
    first, valkey, django_capture_on_commit_callbacks
) -> None:
    with valkey.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(CONFIG_CHANNEL)
        heard.get_message(timeout=1)
        with django_capture_on_commit_callbacks(execute=True):
            switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
        message = heard.get_message(timeout=1)
    document = config.verify(message["data"], keys.load_public_keys(settings.SLUICE_KEYS))
    assert [s.name for s in document.switches] == ["all_ml"]
