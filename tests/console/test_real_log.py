"""A real shop's log through the engine, and its worst client explained on the page in words its
owner would understand.

The log is not part of the product: where the folder with real data is absent, this is skipped and
says so.
"""

from __future__ import annotations

import html
import re
import uuid
from pathlib import Path

import pytest
from django.conf import settings as site
from django.utils.html import strip_tags

from decider.contracts import event
from decider.contracts.config import ModelRef
from decider.engine.engine import Engine
from decider.scoring.model import Model
from explain.shap import backlog
from learning.logs import playback
from tests.explain.conftest import keep_version
from tests.pages import shown

LOG = (
    Path(site.BASE_DIR).parent
    / "shared"
    / "data"
    / "zanbil_shop_access_2019-01-22_first10018.log.gz"
)
KEY = b"k" * 32
# No address begins with a zero; the figures along a chart's axis, read one after the other, do.
ADDRESS = r"(?<![\d.])[1-9]\d*\.\d+\.\d+\.\d+"

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not LOG.is_file(), reason="the folder with real data is absent"),
]


@pytest.fixture
def worst(settings, tmp_path, publish, stored, small_training) -> str:
    """Replays the log with a model trained on simulated traffic; gives the first refusal of the
    client that was refused most.
    """
    made = small_training.data
    model, settings.SLUICE_MODELS = Model.load(made), tmp_path / "models"
    settings.SLUICE_MODELS.mkdir()
    (settings.SLUICE_MODELS / model.digest).write_bytes(made)
    config = publish(model=ModelRef(name="risk", version=1, digest=model.digest))
    engine, published = (
        Engine(node=playback.NODE, region="local", token_key=KEY, capacity=8192, keep_all=True),
        [],
    )
    engine.apply(config, model)
    summary = playback.OfflineReplay(engine, published.append, lambda apps: []).run([LOG], KEY)
    stored([e for data in published for e in event.decode_batch(data).events])
    keep_version(config)
    worst = max(summary.refused.values(), key=lambda refused: refused.count).decision
    # what a replay decided is explained when somebody opens it
    backlog.explain_decision(uuid.UUID(worst.removeprefix("dec_")))
    return worst


def test_the_worst_client_is_explained_in_words_its_owner_understands(worst, signed_in) -> None:
    page = shown(signed_in("support").get(f"/decisions/{worst}"))
    text = re.sub(r"\s+", " ", html.unescape(strip_tags(page)))
    assert re.search(r"anon_[0-9a-f]+ was (asked to wait|asked to batch|blocked|turned away)", text)
    assert "Replay verified" in text
    assert re.search(r"Admit (at no more than|after waiting)", text)
    reply = html.unescape(re.search(r'id="say-text">(.*?)</p>', page, re.S)[1])
    assert (
        "Your allowance at this time is a burst of 50 requests, refilled at 5 a second, and it was"
        " used up." in reply
    )
    assert "spread your requests over time" in reply
    assert reply.endswith(f"Reference: {worst}")
    assert not re.search(
        r"risk|score|model|tier|triage|peer|headroom|\b0\.\d", reply.replace(worst, "")
    )
    assert not re.search(ADDRESS, text), "an address of the log is shown"
