"""The models that decisions were made with: files named by their digest, checked before they are
used.
"""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from decider.contracts import artifact as artifacts
from decider.contracts.artifact import Artifact, ArtifactError
from decider.scoring.model import Model


def _read_file(digest: str) -> bytes:
    # The digest becomes a file name, so it must not hold a dot or a slash.
    if not digest.isalnum():
        raise ArtifactError(f"{digest[:40]!r} is not a digest, which has letters and digits only")
    try:
        return (settings.SLUICE_MODELS / digest).read_bytes()
    except OSError as error:
        raise ArtifactError(f"artifact {digest[:12]} cannot be read: {error.strerror}") from error


# A file of a digest never changes, so an entry is never stale. Errors are not cached: a file that
# arrives late is found.
@lru_cache(maxsize=8)
def load_artifact(digest: str) -> Artifact:
    """Return an artifact whose digest was checked. Raises ArtifactError when it cannot be used."""
    return artifacts.decode(_read_file(digest), digest)


@lru_cache(maxsize=4)
def load_model(digest: str) -> Model:
    """Return a model ready to score, its golden vectors checked. Raises ArtifactError when it is
    missing or fails a check.
    """
    return Model.load(_read_file(digest), digest)


def forget_cached() -> None:
    """Clear the cached artifacts and models, for tests that change files."""
    load_artifact.cache_clear()
    load_model.cache_clear()
