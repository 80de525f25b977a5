"""The policy of one app, line by line, with the version that set each line."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.config import changes
from control.policies import effective
from control.policies.effective import Subject
from decider.contracts import defaults
from decider.contracts.config import (
    ActionWeights,
    Config,
    ListEntry,
    ModelRef,
    Override,
    Switch,
    TenantPolicy,
    TierPolicy,
    UnknownApps,
)
from decider.contracts.units import plan_figure
from decider.contracts.vocabulary import Action
from decider.whatif.plan import plan_of
from tests.control.conftest import DELE

pytestmark = pytest.mark.django_db
NOW = time.time()
ABOUT = Subject("app_1", "ten_1", "Tidewell Retail", 1, ("orders-read",))


def change(**fields) -> int:
    """Makes a config version with other fields."""
    row = changes.make_version(
        by=DELE,
        reason="A test",
        action="test.change",
        subject="config",
        summary="changed something",
        edit=lambda c: msgspec.structs.replace(c, **fields),
    )
    return row.version


def lines(about: Subject = ABOUT, now: float = NOW) -> dict[str, effective.PolicyLine]:
    return {line.name: line for line in effective.lines(changes.current(), about, now)}


def test_without_anything_special_the_tier_says_everything(first) -> None:
    found = lines()
    assert {
        "Tier",
        "Refill",
        "Burst",
        "Headroom",
        "Headroom for",
        "Daily quota",
        "False throttles",
        "Asks the model",
        "Fair share",
        "Model",
        "Capacity",
        "Wrong block",
        "Abuse let in",
        "ML weighs admit",
        "ML weighs defer",
        "ML weighs batch",
        "ML weighs shed",
        "ML weighs block",
        "Time for the model",
    } == set(found)
    assert (found["Refill"].value, found["Refill"].source, found["Refill"].version.number) == (
        "15 requests a second",
        "Standard tier",
        1,
    )
    assert found["Capacity"].source == "Service orders-read"
    assert found["Tier"].version is None


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        (1, "once spent, ML refuses no more, unless its service is far short of room"),
        (3, "once spent, ML refuses no more"),
    ],
)
def test_what_a_spent_budget_means_is_said_as_the_policy_has_it(
    first, tier: int, words: str
) -> None:
    assert lines(Subject("app_1", "", "", tier))["False throttles"].value.endswith(words)


def test_each_line_names_the_version_that_set_it(first) -> None:
    tiers = [
        msgspec.structs.replace(t, burst=400) if k == 1 else t for k, t in enumerate(defaults.TIERS)
    ]
    second = change(tiers=tiers)
    third = change(tenants=[TenantPolicy("ten_1", 3.0)])
    change(switches=[Switch("observe_only", NOW + 60)])
    change(switches=[])
    found = lines()
    assert (found["Burst"].value, found["Burst"].version.number) == (
        "400 requests",
        second,
    )
    assert (found["Fair share"].source, found["Fair share"].version.number) == (
        "Tenant Tidewell Retail",
        third,
    )
    assert found["Refill"].version.number == 1
    assert found["Refill"].version.exactly


def test_a_value_that_went_and_came_back_was_set_when_it_came_back(first) -> None:
    change(sampling=msgspec.structs.replace(changes.current().sampling, admit=0.1))
    change(unknown_tier=2)
    back = change(unknown_tier=0)
    assert lines(Subject("stranger", "", "", None))["Tier"].version.number == back


def test_an_override_is_told_with_its_end_and_hides_the_tier(first) -> None:
    version = change(
        overrides=[
            Override(
                id="ovr_1", kind="app", subject="app_1", until=NOW + 3_600, multiplier=2.0, action=0
            )
        ]
    )
    found = lines()
    assert (found["Action"].value, found["Action"].until) == ("Always admit", NOW + 3_600)
    assert found["Refill"].value == "30 requests a second"
    assert found["Refill"].source == "Override ovr_1, 2 × Standard tier"
    assert found["Refill"].version.number == found["Action"].version.number == version
    (mine,) = effective.overrides(changes.current(), "app_1", "ten_1", NOW)
    assert effective.effect(mine) == "always admit, 2 times rate and burst"


def test_one_that_has_expired_holds_no_longer(first) -> None:
    end = NOW + 3_600
    change(overrides=[Override(id="ovr_1", kind="app", subject="app_1", until=end, multiplier=2.0)])
    assert lines()["Refill"].source != "Standard tier"
    assert lines(now=end)["Refill"].source == "Standard tier"
    assert effective.overrides(changes.current(), "app_1", "ten_1", end) == []


def test_lists_and_compliance_come_first(first) -> None:
    entries = [
        ListEntry(verdict="allow", kind="app", subject="app_1"),
        ListEntry(verdict="compliance", kind="tenant", subject="ten_1"),
        ListEntry(verdict="block", kind="app", subject="app_1", until=NOW + 3_600),
        ListEntry(verdict="block", kind="app", subject="another"),
    ]
    version = change(lists=entries, switches=[Switch("all_ml")])
    found = effective.lines(changes.current(), ABOUT, NOW)
    assert [line.name for line in found[:4]] == [
        "ML ranking",
        "Compliance",
        "Block list",
        "Allow list",
    ]
    assert {line.version.number for line in found[:4]} == {version}


def test_the_model_line_names_the_live_model(first) -> None:
    version = change(model=ModelRef("risk", 3, "ab" * 32))
    assert (lines()["Model"].value, lines()["Model"].version.number) == ("risk 3", version)


def test_beyond_what_is_read_it_says_before(first, monkeypatch) -> None:
    monkeypatch.setattr(effective, "FURTHEST", 2)
    for tier in (1, 2, 3):
        change(unknown_tier=tier)
    found = lines()["Refill"].version
    assert (found.number, found.exactly) == (3, False)


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        ("plan", "each has the plan"),
        ("share", "share 100 requests"),
        ("refuse", "none is"),
    ],
)
def test_an_unknown_app_is_told_how_unknown_apps_are_treated(first, treatment, words) -> None:
    version = change(unknown_apps=UnknownApps(treatment=treatment, burst=900.0))
    line = lines(Subject("stranger", "", "", None))["Unknown apps"]
    assert words in line.value
    assert line.version.number == version
    assert "Unknown apps" not in lines()


def other_than(value: float | str) -> float | str:
    if isinstance(value, str):  # who has the headroom
        return "all"
    return value / 2 if value else 0.5


def differing(before: dict[str, effective.PolicyLine], version: int) -> list[str]:
    """Names of the lines that read otherwise than before, and are set by this version."""
    return [
        n
        for n, line in lines().items()
        if line.value != before[n].value and line.version and line.version.number == version
    ]


@pytest.mark.parametrize(
    "field",
    # only deciders of older versions go by it
    [f for f in TierPolicy.__struct_fields__ if f != "error_budget_per_hour"],
)
def test_every_value_of_a_tier_has_a_line_that_tells_it_and_who_set_it(first, field: str) -> None:
    before, other = (
        lines(),
        msgspec.structs.replace(
            defaults.TIERS[1], **{field: other_than(getattr(defaults.TIERS[1], field))}
        ),
    )
    version = change(tiers=[other if k == 1 else t for k, t in enumerate(defaults.TIERS)])
    assert len(differing(before, version)) == 1


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("field", ActionWeights.__struct_fields__)
def test_every_weight_of_an_action_has_a_line(first, field: str, action: Action) -> None:
    before, row = lines(), list(getattr(ActionWeights(), field))
    row[action] = other_than(row[action])
    version = change(actions=ActionWeights(**{field: tuple(row)}))
    assert differing(before, version) == [f"ML weighs {action.word}"]


def test_the_time_for_the_model_has_a_line(first) -> None:
    before = lines()
    assert differing(before, change(ml_time_limit_ms=12.5)) == ["Time for the model"]
    assert lines()["Time for the model"].value.startswith("12.5 ms")


def test_no_part_of_a_document_is_left_out_without_a_reason() -> None:
    told = {
        "tiers",
        "services",
        "switches",
        "model",
        "tenants",
        "overrides",
        "lists",
        "actions",
        "ml_time_limit_ms",
        "unknown_tier",
        "unknown_apps",
    }
    of_the_document = {"version", "feature_schema", "issued_at", "format"}
    no_part_of_an_answer = {
        "sampling",
        "nodes",
    }  # what is kept of decisions, and how a quota is shared among deciders
    assert set(Config.__struct_fields__) == told | of_the_document | no_part_of_an_answer


@given(
    tier=st.integers(0, 3),
    multiplier=st.sampled_from([0.5, 1.0, 4.0]),
    kind=st.sampled_from(["app", "tenant"]),
    subject=st.sampled_from(["app_1", "ten_1", "other"]),
    left=st.floats(-10, 10),
)
def test_the_lines_say_what_the_plan_is(
    tier: int, multiplier: float, kind: str, subject: str, left: float
) -> None:
    o = Override(id="o", kind=kind, subject=subject, until=NOW + left, multiplier=multiplier)
    document: Config = msgspec.structs.replace(defaults.config(1), overrides=[o])
    about = Subject("app_1", "ten_1", "T", tier)
    found = {line.name: line for line in effective.lines(document, about, NOW)}
    plan = plan_of(document, app="app_1", tenant="ten_1", tier=tier, now=NOW)
    assert found["Refill"].value == f"{plan_figure(plan.rate)} requests a second"
    assert found["Burst"].value.startswith(f"{plan_figure(plan.burst)} requests")
