"""The model that ships: every installation can start with it, and it is the one that was judged."""

from __future__ import annotations

import gzip
import json
import platform
from pathlib import Path

import pytest

from decider.contracts import artifact, features
from decider.scoring.model import Model
from learning.evaluation import tournament
from learning.training import runs, shipped

AGAIN = "it was made for other features or other code: run make model, then make evaluate"


def test_it_is_made_for_the_features_of_this_code() -> None:
    assert artifact.decode(shipped.read()).feature_schema == features.SCHEMA, AGAIN


def test_a_decider_loads_it_and_its_golden_scores_come_out_bit_for_bit() -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs the kind of machine that trained it, x86-64: exp differs elsewhere")
    Model.load(shipped.read())


def test_it_is_the_model_that_the_evaluation_judged() -> None:
    judged = json.loads(Path("docs/evaluation.json").read_text())["model"]
    assert tournament.identify_model(artifact.decode(shipped.read())) == judged, AGAIN


def test_it_was_trained_on_as_many_crowds_as_the_code_says() -> None:
    card = artifact.decode(shipped.read()).card
    assert card.parameters["simulated_seconds"] == pytest.approx(
        sum(run.seconds for run in runs.all_runs(7, 200.0, 1_600))
    )


def test_what_is_written_is_read_again_and_a_damaged_file_is_an_error(
    monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shipped, "PATH", tmp_path / "model.gz")
    shipped.write(b"an artifact")
    assert shipped.read() == b"an artifact"
    for damaged in (b"", b"no gzip", gzip.compress(b"an artifact")[:-9]):
        shipped.PATH.write_bytes(damaged)
        with pytest.raises(OSError, match=r"."):
            shipped.read()
