"""The models that decisions were made with: files named by their digest, checked before they are
used.
"""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from decider.contracts import artifact as artifacts
from decider.contracts.artifact import Artifact, ArtifactError
from decider.scoring.model import Model


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
