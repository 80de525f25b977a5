"""Models and config documents that decisions were made with, found again by digest and version.

The rooms that keep them stand above this one: artifacts are files named by their digest, and config versions are reached
through Django's app registry.
"""

from __future__ import annotations

from functools import lru_cache

from django.apps import apps
from django.conf import settings

from decider import artifact as artifacts
from decider import config as configs
from decider.artifact import Artifact, ArtifactError
from decider.config import Config, ConfigError
from decider.models import Model


def _bytes_of(digest: str) -> bytes:
    if not digest.isalnum():
        raise ArtifactError(f"{digest[:40]!r} is not a digest")
    try:
        return (settings.SLUICE_MODELS / digest).read_bytes()
    except OSError as error:
        raise ArtifactError(f"the artifact {digest[:12]} is not here: {error.strerror}") from error


@lru_cache(maxsize=8)
def artifact(digest: str) -> Artifact:
    """An artifact, its digest checked. Raises ArtifactError."""
    return artifacts.decode(_bytes_of(digest), digest)


@lru_cache(maxsize=4)
def model(digest: str) -> Model:
    """A model ready to score, its golden vectors checked. Raises ArtifactError."""
    return Model.load(_bytes_of(digest), digest)


def forget() -> None:
    """Drops what is remembered of artifacts: for tests that change files."""
    artifact.cache_clear()
    model.cache_clear()


@lru_cache(maxsize=32)
def _decoded(payload: bytes) -> Config:
    return configs.decode(payload)


def config(version: int) -> Config | None:
    """A config document by its version; None when it is not kept, or was made for another feature schema."""
    row = apps.get_model("control", "ConfigVersion").objects.filter(version=version).only("payload").first()
    return _usable(bytes(row.payload)) if row else None


def newest_config() -> Config | None:
    """The newest config document."""
    row = apps.get_model("control", "ConfigVersion").objects.order_by("-version").only("payload").first()
    return _usable(bytes(row.payload)) if row else None


def _usable(payload: bytes) -> Config | None:
    try:
        return _decoded(payload)
    except ConfigError:
        return None
