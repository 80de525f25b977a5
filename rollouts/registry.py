"""Registering model artifacts and making one of them live."""

from __future__ import annotations

from pathlib import Path

import msgspec
from django.db.models import Max
from django.utils import timezone

from control import locks
from control.approvals.models import Request
from control.audit import chain
from control.audit.actors import Actor
from control.config import changes, parts
from control.deciders import publish
from control.errors import ControlError, Refused
from control.locks import Lock
from control.models import ConfigVersion
from decider.contracts.artifact import Artifact, ArtifactError, digest_of
from decider.contracts.config import ModelRef
from decider.contracts.files import write_atomically
from decider.scoring.model import Model
from rollouts.models import ModelVersion


def register(data: bytes, *, by: Actor, reason: str) -> ModelVersion:
    """Store an artifact as the next version of its name and return that version. When the artifact
    is registered already, return its version.

    It is checked as a decider would check it: digest, form, feature schema, golden vectors. Raise
    Refused when a check fails or the reason is empty, ControlError when it cannot be written.
    """
    artifact, digest = check(data), digest_of(data)
    reason = chain.check_reason(reason)
    # even when it is registered already: the file may have been lost since. Before the transaction,
    # as a slow disk must hold nobody up
    _keep(publish.model_path(digest), data)
    with chain.changing():
        locks.hold(Lock.MODELS)
        if (there := ModelVersion.objects.filter(digest=digest).first()) is not None:
            return there
        row = _create_version(artifact, digest, by)
        chain.append(
            by=by,
            reason=reason,
            action="model.register",
            subject=str(row),
            summary=f"registered the model {row}",
            after={"digest": digest, "feature_schema": artifact.feature_schema},
        )
    return row


def _create_version(artifact: Artifact, digest: str, by: Actor) -> ModelVersion:
    """Store the next version of the artifact's name and return it. Call it under the models' lock,
    so that two artifacts cannot get the same number.
    """
    named = ModelVersion.objects.filter(name=artifact.name)
    last = named.aggregate(last=Max("version"))["last"] or 0
    return ModelVersion.objects.create(
        name=artifact.name,
        version=last + 1,
        digest=digest,
        feature_schema=artifact.feature_schema,
        card=msgspec.to_builtins(artifact.card),
        registered_at=timezone.now(),
        by=by.name,
    )


def check(data: bytes) -> Artifact:
    """Return the artifact after all checks that a decider makes. Raise Refused, which says what is
    wrong, when one fails.
    """
    try:
        return Model.load(data, digest_of(data)).artifact
    except ArtifactError as error:
        raise Refused(f"This model may not be used: {error}.") from error


def apply_request(row: Request) -> ConfigVersion:
    """Make the model live that an approved request names. Raise Refused when it is not approved, or
    not possible any more.
    """
    (found,) = parts.read_payload(row.payload)
    model = ModelVersion.objects.filter(digest=found.after["digest"]).first()
    if model is None:
        raise Refused(f"There is no model {row.subject} any more.")
    return make_live(model, by=Actor.of(row.requested_by), reason=row.reason, request=row)


def make_live(
    model: ModelVersion, *, by: Actor, reason: str, request: Request | None = None
) -> ConfigVersion:
    """Make a registered version the live one, for all apps, and return the new config version.
    Raise Refused when the model's file is gone or changed, or the model is live already, and
    NeedsSecondPerson without an approved `request` where it takes one.
    """
    document = changes.current()
    ref = ModelRef(
        model.name,
        model.version,
        model.digest,
        # set only where it differs: deciders that read only config format 1 refuse this field
        "" if model.feature_schema == document.feature_schema else model.feature_schema,
    )
    # check before anything changes: without the right file, deciders would use the fallback limiter
    _check_file(model)
    if live() == model and document.model == ref:
        raise Refused(f"{model} is live already.")
    before = live()
    # the row changes in the config's transaction, so row and config cannot disagree about what is
    # live
    return changes.make_version(
        by=by,
        reason=reason,
        action="model.make_live",
        subject=str(model),
        summary=f"made the model {model} live",
        edit=lambda config: msgspec.structs.replace(config, model=ref),
        before={"model": str(before) if before else None},
        after={"model": str(model), "digest": model.digest},
        within=lambda row, _: _move(model, row),
        request=request,
    )


def live() -> ModelVersion | None:
    """Return the live version; None when there is none."""
    return ModelVersion.objects.filter(state=ModelVersion.State.LIVE).first()


def _move(model: ModelVersion, version: ConfigVersion) -> None:
    """Make a version the only live one, in the transaction of the config that names it."""
    states = ModelVersion.State
    # retire the old version first: the database allows only one live version
    ModelVersion.objects.filter(state=states.LIVE).exclude(pk=model.pk).update(state=states.RETIRED)
    ModelVersion.objects.filter(pk=model.pk).update(state=states.LIVE, live_since=version.made_at)


def _check_file(model: ModelVersion) -> None:
    try:
        data = publish.model_path(model.digest).read_bytes()
    except OSError as error:
        raise Refused(f"The file of {model} cannot be read: {error.strerror or error}.") from error
    # the signed config names the digest, and deciders refuse any other bytes
    if digest_of(data) != model.digest:
        raise Refused(
            f"The file of {model} has changed since it was registered. Register the original again."
        )
    check(data)


def _keep(path: Path, data: bytes) -> None:
    """Write a file in one step, so that deciders never read half an artifact. Replace a file whose
    content does not fit its name. Raise ControlError when the file cannot be written.
    """
    if path.exists() and digest_of(path.read_bytes()) == path.name:
        return
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ControlError(
            f"The model cannot be written to {path.parent}: {error.strerror or error}."
        ) from error
