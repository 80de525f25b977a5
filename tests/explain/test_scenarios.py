"""The three worlds: bit-equal then, the config of now, another model; and every difference is
traced to what made it.
"""

from __future__ import annotations

import lightgbm as lgb
import pytest
from django.db import connection
from django.utils import timezone
from msgspec import structs

from decider.contracts import artifact as artifacts
from decider.contracts import config as configs
from decider.contracts import features
from decider.contracts.artifact import Calibration
from decider.contracts.config import Config, ListEntry, ModelRef, Override, Switch
from decider.contracts.vocabulary import Action, MlState, Reason
from decider.scoring.model import make_golden
from decisions.models import Decision
from explain.comparison import scenarios
from rollouts.models import ModelVersion
from tests.database import as_owner, without_triggers
from tests.explain import world

pytestmark = pytest.mark.django_db


def publish(document: Config) -> None:
    with without_triggers(), connection.cursor() as cursor:
        columns = "version, payload, signed, made_at, by, reason"
        values = [document.version, configs.encode(document)]
        cursor.execute(
            f"INSERT INTO control_configversion ({columns}) VALUES (%s, %s, '', now(), 'test',"  # noqa: S608
            " 'test')",
            values,
        )


@pytest.fixture
def stored(models, document, store):
    """Stores one decision and reads it back; by default a request refused by risk."""

    def put(**seen) -> Decision:
        rows = world.rows(60, seed=2, missing=False)
        events = (world.decided(row, document=document, **seen) for row in rows)
        event = next(e for e in events if e.action != Action.ADMIT)
        store([event])
        return Decision.objects.get(id=event.id.hex())

    return put


def test_then_is_equal_to_the_bit_and_now_is_the_same_while_nothing_changed(stored) -> None:
    then, now, alone = scenarios.decide_scenarios(stored())
    assert (then.level, then.word) == ("ok", "Replay verified")
    assert "no change" in now.note
    assert now.because == ()
    assert alone.title == "By the fallback limiter alone"


def test_a_changed_tier_line_is_named_with_old_and_new(stored, document) -> None:
    d = stored(ml_state=MlState.SWITCHED_OFF)
    off = [Switch("all_ml")]
    tiers = [
        structs.replace(t, friction=t.friction + 1, harm=9.0, rank_from=0.9) for t in document.tiers
    ]
    publish(structs.replace(document, version=2, switches=off, tiers=tiers))
    now = scenarios.decide_scenarios(d)[1]
    assert now.action == d.action
    assert "without effect here" in now.note
    assert "Standard tier, harm: 1.2 → 9" in now.note


def test_a_difference_is_traced_to_the_one_line_that_makes_it(stored, document) -> None:
    d = stored(seen_tokens=100.0)
    assert d.reason == Reason.RISK_HIGH
    tiers = [structs.replace(t, harm=0.01, friction=20.0, weight=3.0) for t in document.tiers]
    publish(structs.replace(document, version=2, tiers=tiers))
    now = scenarios.decide_scenarios(d)[1]
    assert now.action == Action.ADMIT
    assert len(now.because) >= 1
    assert "Standard tier, " in now.because[0]
    assert "→" in now.because[0]


@pytest.mark.parametrize(
    ("rule", "action", "said"),
    [
        (
            {
                "overrides": [
                    Override(id="o1", kind="app", subject="app_7q2m4kx9", until=9e9, action=0)
                ]
            },
            Action.ADMIT,
            "o1 (admit)",
        ),
        (
            {
                "overrides": [
                    Override(id="o2", kind="tenant", subject="ten_tidewell", until=9e9, action=3)
                ]
            },
            Action.SHED,
            "o2 (shed)",
        ),
        (
            {"lists": [ListEntry(verdict="block", kind="app", subject="app_7q2m4kx9")]},
            Action.BLOCK,
            "block app",
        ),
    ],
)
def test_a_rule_about_the_app_that_is_new_since_is_named(
    stored, document, rule, action, said
) -> None:
    d = stored()
    publish(structs.replace(document, version=2, **rule))
    now = scenarios.decide_scenarios(d)[1]
    if d.action != action:
        assert now.because[0].endswith(f"none → {said}")
    assert now.action == action


def test_a_rule_about_someone_else_or_out_of_force_changes_nothing(stored, document) -> None:
    d = stored()
    gone = Override(id="o1", kind="app", subject="app_7q2m4kx9", until=1.0, action=0)
    other = Override(id="o2", kind="app", subject="app_other", until=9e9, action=0)
    publish(structs.replace(document, version=2, overrides=[gone, other]))
    now = scenarios.decide_scenarios(d)[1]
    assert now.action == d.action
    assert "No line that bears on it has changed" in now.note


def test_a_switch_engaged_since_is_the_reason(stored, document) -> None:
    d = stored(seen_tokens=100.0)
    publish(structs.replace(document, version=2, switches=[Switch("all_ml")]))
    now = scenarios.decide_scenarios(d)[1]
    assert now.action == Action.ADMIT
    assert now.because == ("ML was live → ML was switched off by the switch “All ML”",)


def test_another_registered_model_is_asked_and_named(stored, document) -> None:
    d = stored()
    ModelVersion.objects.create(
        name="risk",
        version=7,
        digest="ab" * 32,
        feature_schema="x",
        card={},
        registered_at=timezone.now(),
        by="test",
    )
    other = next(w for w in scenarios.decide_scenarios(d) if "risk v7" in w.title)
    assert other.action is None  # its file is not here
    assert "cannot be asked" in other.note
    ModelVersion.objects.filter(version=7).update(digest=d.model)
    assert not any(
        "risk v7" in w.title for w in scenarios.decide_scenarios(d)
    )  # it is the live one


def milder(settings, *, seed: int = 0) -> str:
    """Installs another model that sees less risk: the same trees calibrated lower, or trees of
    another seed. Its digest.
    """
    made = artifacts.decode(world.made(), artifacts.digest_of(world.made()))
    risk = made.risk_model
    if seed:
        matrix = world.rows(2_000, seed=seed)
        odd = matrix[:, features.INDEX["abuse_history"]] > 0
        options = {
            "objective": "binary",
            "num_leaves": 7,
            "verbose": -1,
            "num_threads": 1,
            "seed": seed,
            "deterministic": True,
        }
        risk = lgb.train(
            options, lgb.Dataset(matrix, odd, feature_name=list(features.NAMES)), 10
        ).model_to_string()
    low = Calibration(0.9, -9.0)
    golden = make_golden(
        world.rows(20, seed=9), risk, made.value_model, low, made.value_calibration
    )
    data = artifacts.encode(
        structs.replace(made, risk_model=risk, risk_calibration=low, golden=golden)
    )
    digest = artifacts.digest_of(data)
    (settings.SLUICE_MODELS / digest).write_bytes(data)
    return digest


def register(digest: str) -> None:
    card = {"feature_schema": "x", "card": {}, "registered_at": timezone.now(), "by": "test"}
    ModelVersion.objects.create(name="risk", version=7, digest=digest, **card)


@pytest.mark.parametrize(
    ("seed", "said"), [(0, "Same trees, another calibration"), (6, "counts less against it")]
)
def test_a_milder_model_is_named_and_so_is_what_it_sees_otherwise(
    stored, settings, seed, said
) -> None:
    d = stored(seen_tokens=100.0)
    register(milder(settings, seed=seed))
    other = next(w for w in scenarios.decide_scenarios(d) if "risk v7" in w.title)
    assert other.action == Action.ADMIT
    assert other.because[0] == f"Model: {d.model[:8]} → risk v7"
    assert other.because[1].endswith(said)


def test_another_model_is_not_blamed_for_what_a_block_list_entry_did(
    stored, document, settings
) -> None:
    d = stored(seen_tokens=100.0)
    register(milder(settings))
    barred = ListEntry(verdict="block", kind="app", subject="app_7q2m4kx9")
    publish(structs.replace(document, version=2, lists=[barred]))
    other = next(w for w in scenarios.decide_scenarios(d) if "risk v7" in w.title)
    assert other.action == Action.BLOCK
    assert other.because == ("Lists and compliance rules: none → block app",)


def test_another_model_asked_where_ml_was_off_is_traced_to_both(stored, document, settings) -> None:
    d = stored(ml_state=MlState.SWITCHED_OFF)
    register(milder(settings))
    other = next(w for w in scenarios.decide_scenarios(d) if "risk v7" in w.title)
    assert other.action == Action.ADMIT
    assert any(line.startswith("ML was switched off") for line in other.because)


def test_a_model_that_was_live_once_is_not_the_other_one(stored, settings) -> None:
    d = stored()
    register(milder(settings))
    ModelVersion.objects.filter(version=7).update(state="retired")
    assert len(scenarios.decide_scenarios(d)) == 3


def test_a_model_made_live_since_is_the_reason_and_named(stored, document, settings) -> None:
    d = stored(seen_tokens=100.0)
    digest = milder(settings)
    register(digest)
    publish(structs.replace(document, version=2, model=ModelRef("risk", 7, digest)))
    now = scenarios.decide_scenarios(d)[1]
    assert now.action == Action.ADMIT
    assert now.because[0] == f"Live model: {d.model[:8]} → risk v7"


def test_without_a_usable_record_the_worlds_say_so(stored) -> None:
    d = stored()
    with as_owner():
        Decision.objects.filter(id=d.id).update(feature_schema="0123456789abcdef")
    then, now = scenarios.decide_scenarios(Decision.objects.get(id=d.id))
    assert then.word == "Not replayed"
    assert "cannot be decided again" in now.note
