from __future__ import annotations

import io

import msgspec
import pytest
from django.core.management import call_command
from django.db import DatabaseError, transaction

from control.audit import chain
from control.audit.actors import SYSTEM
from control.config import changes
from control.deciders import publish
from control.errors import Refused
from control.models import AuditEntry
from decider.contracts import artifact
from decider.contracts.config import ModelRef
from decider.contracts.store import MODEL_PREFIX
from learning.training import shipped, train
from rollouts import registry
from rollouts.models import ModelVersion

pytestmark = pytest.mark.usefixtures("installation")
WHY = "A better one"


def test_a_registered_model_is_kept_under_its_digest_and_audited(artifact_bytes) -> None:
    row = registry.register(artifact_bytes, by=SYSTEM, reason=WHY)
    assert publish.model_path(row.digest).read_bytes() == artifact_bytes
    assert (row.version, row.state, row.card["rows"] > 0) == (1, "registered", True)
    assert AuditEntry.objects.first().action == "model.register"
    assert registry.register(artifact_bytes, by=SYSTEM, reason=WHY) == row
    assert chain.verify().broken is None


def test_making_a_model_live_puts_it_into_the_config_and_the_store(
    artifact_bytes, valkey, django_capture_on_commit_callbacks
) -> None:
    row = registry.register(artifact_bytes, by=SYSTEM, reason=WHY)
    with django_capture_on_commit_callbacks(execute=True):
        registry.make_live(row, by=SYSTEM, reason=WHY)
    assert changes.current().model == ModelRef(row.name, 1, row.digest)
    assert valkey.get(MODEL_PREFIX + row.digest) == artifact_bytes
    assert registry.live() == row
    with pytest.raises(Refused, match="live already"):
        registry.make_live(row, by=SYSTEM, reason=WHY)


def test_the_next_live_model_retires_the_one_before(artifact_bytes) -> None:
    first = registry.register(artifact_bytes, by=SYSTEM, reason=WHY)
    changed = artifact.decode(artifact_bytes)
    card = msgspec.structs.replace(changed.card, title="Another")
    second = registry.register(
        artifact.encode(msgspec.structs.replace(changed, card=card)), by=SYSTEM, reason=WHY
    )
    registry.make_live(first, by=SYSTEM, reason=WHY)
    registry.make_live(second, by=SYSTEM, reason=WHY)
    first.refresh_from_db()
    assert (first.state, registry.live().version) == ("retired", 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"feature_schema": "another"}, "made for feature schema another"),
        ({"risk_model": "tree\nnonsense"}, "risk model"),
        ({"name": "x", "format": 2}, "format 2"),
    ],
)
def test_a_model_that_deciders_would_refuse_is_refused(artifact_bytes, change, says) -> None:
    data = artifact.encode(msgspec.structs.replace(artifact.decode(artifact_bytes), **change))
    with pytest.raises(Refused, match=says):
        registry.register(data, by=SYSTEM, reason=WHY)
    assert not ModelVersion.objects.exists()


def test_a_model_whose_golden_vectors_disagree_is_refused(artifact_bytes) -> None:
    made = artifact.decode(artifact_bytes)
    golden = msgspec.structs.replace(
        made.golden, raw_risk=[made.golden.raw_risk[0] + 1e-12, *made.golden.raw_risk[1:]]
    )
    with pytest.raises(Refused, match="golden"):
        registry.register(
            artifact.encode(msgspec.structs.replace(made, golden=golden)), by=SYSTEM, reason=WHY
        )


@pytest.mark.parametrize("data", [b"", b"\x00" * 50, b"not a model"])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="may not be used"):
        registry.register(data, by=SYSTEM, reason=WHY)


def test_a_file_changed_on_disk_may_not_go_live(artifact_bytes) -> None:
    row = registry.register(artifact_bytes, by=SYSTEM, reason=WHY)
    publish.model_path(row.digest).write_bytes(artifact_bytes + b"x")
    with pytest.raises(Refused, match="has changed since it was registered"):
        registry.make_live(row, by=SYSTEM, reason=WHY)
    publish.model_path(row.digest).unlink()
    with pytest.raises(Refused, match="cannot be read"):
        registry.make_live(row, by=SYSTEM, reason=WHY)
    registry.register(artifact_bytes, by=SYSTEM, reason=WHY)
    registry.make_live(row, by=SYSTEM, reason=WHY)


def test_the_database_allows_one_live_model(artifact_bytes) -> None:
    row = registry.register(artifact_bytes, by=SYSTEM, reason=WHY)
    registry.make_live(row, by=SYSTEM, reason=WHY)
    with pytest.raises(DatabaseError, match="one_live_model"), transaction.atomic():
        ModelVersion.objects.create(
            name="x",
            version=1,
            digest="a" * 64,
            feature_schema="x",
            card={},
            state="live",
            registered_at=row.registered_at,
            live_since=row.registered_at,
        )


def test_the_model_that_ships_is_made_live_once_by_the_system(artifact_bytes, monkeypatch) -> None:
    monkeypatch.setattr(shipped, "read", lambda: artifact_bytes)
    monkeypatch.setattr(train, "train", None)
    out = io.StringIO()
    call_command("first_model", stdout=out)
    call_command("first_model", stdout=out)
    assert "v1 is live. On held-out apps its risk AUC is" in out.getvalue()
    assert "is live already" in out.getvalue()
    assert AuditEntry.objects.filter(action="model.make_live", actor="System").count() == 1


@pytest.mark.parametrize("data", [b"no artifact", None])
def test_where_the_model_that_ships_cannot_be_used_one_is_trained(
    data, artifact_bytes, monkeypatch, tmp_path
) -> None:
    asked = []

    def quick(seed, **options):
        asked.append(options["by"])
        return train.Trained(
            artifact_bytes, artifact.digest_of(artifact_bytes), artifact.decode(artifact_bytes)
        )

    monkeypatch.setattr(train, "train", quick)
    monkeypatch.setattr(shipped, "PATH", tmp_path / "first-light.gz")
    if data is not None:
        shipped.write(data)
    out, err = io.StringIO(), io.StringIO()
    call_command("first_model", stdout=out, stderr=err)
    assert asked == ["System"]
    assert "cannot be used here" in err.getvalue()
    assert " is live. " in out.getvalue()
