"""Every registered feature is measured: written once for each request, and never left over."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts import feature_columns, features
from decider.contracts.features import FEATURES, N_FEATURES, NAMES
from decider.engine import features_of as measure
from decider.engine.known_apps import table as known_apps
from decider.engine.memory import app_state as counters
from decider.engine.routing import SIGN_IN

SCHEMA = "033822f90dd047a1"
"""The hash that today's models and stored decisions carry."""


class Recording:
    """Takes the place of a feature vector and notes each write."""

    def __init__(self) -> None:
        self.writes: list[int] = []

    def __setitem__(self, column: int, value: float) -> None:
        self.writes.append(column)

    def __getitem__(self, column: int) -> float:
        raise AssertionError("the kernel reads what it writes")


# Each of these takes other branches of the kernel: how long after the last request it measures (0
# to several windows), how many requests came, and what is known of the app.
CASES = {
    "gap_s": st.sampled_from([0.0, 0.5, 30.0, 61.0, 119.0, 121.0, 7_200.0, 1e6]),
    "requests": st.integers(0, 4),
    "answers": st.integers(0, 2),
    "created_day": st.sampled_from([0.0, 20_000.0]),
    "active_minutes": st.sampled_from([0.0, 100.0, 1_000.0]),
}


def asked(
    requests: int, answers: int, created_day: float, active_minutes: float
) -> tuple[counters.State, float]:
    """A state of one app, and when it was last seen (unix seconds)."""
    state, now = counters.allocate(1), 1_763_476_327.0
    unknown = np.zeros(counters.N_PROFILE, np.float32)
    unknown[counters.P_CREATED_DAY] = created_day
    counters.place(state, np.uint64(7), now, unknown, known_apps.empty())
    one = np.uint64(1)
    for k in range(requests):
        counters.observe(state, 0, now + k, one, one, one, one, 1.0, 2.0, SIGN_IN, k)
        state.clock[0, counters.LAST] = now + k
    for _ in range(answers):
        counters.note_answer(state, 0, now + requests, 404, 0.5)
    state.clock[0, counters.ACTIVE_MINUTES] = active_minutes
    state.counts[0, counters.PACE_HOURS] = state.counts[0, counters.PACE_DAYS] = 0.25
    return state, now + requests


def given_cases(test: object) -> object:
    return settings(max_examples=150, deadline=None, derandomize=True)(given(**CASES)(test))


def run(kernel: object, state: counters.State, now: float, out: object) -> None:
    service, address = np.array([0.5, 1.0, 0.0]), np.array([1.0, 1.0, 0.2])
    usual = np.array([0.5, 0.0]) if int(now) % 2 else np.array([0.0, 0.5])
    kernel(state, 0, now, now, 1.0, 2.0, 0.1, service, 0.1, address, usual, out)  # type: ignore[operator]


def assert_written_once(kernel: object, **case: float) -> None:
    """Run the kernel as plain Python on a vector that notes its writes."""
    gap_s = case.pop("gap_s")
    state, last = asked(**case)  # type: ignore[arg-type]
    seen = Recording()
    run(kernel, state, last + gap_s, seen)
    times = Counter(seen.writes)
    told = {name: times[k] for k, name in enumerate(NAMES) if times[k] != 1}
    assert not told, f"written other than once: {told}"


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """The module's kernels without the compiler."""
    return uncompiled(inspect.getsource(measure))


def uncompiled(source: str) -> ModuleType:
    """Load the source of `features_of` as plain Python: its own decorators are dropped."""
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    module = ModuleType("features_uncompiled")
    module.__package__ = "decider"
    exec(compile(tree, "measure", "exec"), module.__dict__)  # noqa: S102 - our own source
    return module


@pytest.mark.parametrize("column", range(N_FEATURES), ids=NAMES)
def test_a_feature_has_the_column_of_its_place_in_the_table(column: int) -> None:
    assert getattr(feature_columns, NAMES[column].upper()) == column


@pytest.mark.parametrize("name", ["RATE_2S", "rate_1s", "Rate_1s", "__path__"])
def test_a_name_of_no_feature_is_an_error(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(feature_columns, name)


def test_the_feature_schema_is_the_one_that_models_and_decisions_carry() -> None:
    assert features.SCHEMA == SCHEMA


def test_each_feature_is_written_once_for_each_request(plain: ModuleType) -> None:
    @given_cases
    def check(**case: float) -> None:
        assert_written_once(plain.features_of, **case)

    check()  # type: ignore[operator]


def test_no_feature_keeps_the_value_of_the_request_before() -> None:
    """The compiled kernel, on rows that hold other values before."""

    @given_cases
    def check(gap_s: float, **case: float) -> None:
        state, last = asked(**case)  # type: ignore[arg-type]
        rows = [np.full(N_FEATURES, k, np.float32) for k in (np.nan, -12345.0, 98765.0)]
        for row in rows:
            run(measure.features_of, state, last + gap_s, row)
        kept = [n for k, n in enumerate(NAMES) if len({row[k].tobytes() for row in rows}) > 1]
        assert not kept, f"kept from the request before: {kept}"
        assert np.isfinite(rows[0]).all()

    check()  # type: ignore[operator]


MUTATIONS = {
    "a write removed": ("out[f.TENANT_SHARE] = tenant_share", "pass"),
    "a write doubled": (
        "out[f.TENANT_SHARE] = tenant_share",
        "out[f.TENANT_SHARE] = tenant_share\n    out[f.TENANT_SHARE] = tenant_share",
    ),
    "a write skipped at times": (
        "out[f.TENANT_SHARE] = tenant_share",
        "if count[slot, C_ANSWERS] > 0.0:\n        out[f.TENANT_SHARE] = tenant_share",
    ),
    "another column written": (
        "out[f.TENANT_SHARE] = tenant_share",
        "out[f.HOUR_OF_WEEK] = tenant_share",
    ),
    "an early return that forgets one": (
        "out[f.ENDPOINT_ENTROPY_60S] = 0.0",
        "pass",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_check_of_writes_fails_when_the_kernel_has_a_fault(name: str) -> None:
    right, wrong = MUTATIONS[name]
    source = inspect.getsource(measure)
    assert source.count(right) == 1
    broken = uncompiled(source.replace(right, wrong))

    @given_cases
    def check(**case: float) -> None:
        assert_written_once(broken.features_of, **case)

    with pytest.raises(AssertionError, match="written other than once"):
        check()  # type: ignore[operator]


@pytest.mark.parametrize("feature", [f for f in FEATURES if "_error_share_" in f.name])
def test_a_share_of_answers_is_said_to_be_one_of_answers(feature) -> None:
    """A reader takes "41% of its payments were declined" for a share of the payments."""
    assert feature.unit == "share"
    for sentence in (feature.high, feature.low):
        assert re.search(r"answers\b", sentence), sentence
