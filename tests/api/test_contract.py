"""The API keeps to its own document, whatever it is asked and whoever asks: every operation, with
what that allows.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator

import pytest
import schemathesis
from django.contrib.auth.models import Group
from django.core import signals
from django.db import close_old_connections
from django.test import Client
from django.urls import resolve
from hypothesis import HealthCheck, given, settings
from rest_framework.throttling import SimpleRateThrottle
from schemathesis import GenerationMode
from schemathesis.generation.meta import CoverageScenario
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from console.frame import roles
from console.wsgi import application
from control.audit import tokens
from tests.decisions.factory import event

EXAMPLES = 20
ALIKE = 2
"""Cases of one kind about one parameter that are asked; the generator has many where a parameter is
an enumeration.
"""


def _call(case, operation, text: str = "", but: tuple = (), **how) -> object:
    headers = how.pop("headers", {"Authorization": f"Token {text}"})
    return case.call_and_validate(
        headers=headers, excluded_checks=[*_not_for(operation), *but], **how
    )


@pytest.fixture
def document_of_the_api(person, store, keys, valkey, settings, monkeypatch):
    """Its schema, called as someone who may do all that a machine may, with a few decisions to
    find.
    """
    for each in (signals.request_started, signals.request_finished):
        each.disconnect(
            close_old_connections
        )  # as Django's own test client does: the test's transaction must stay open
    monkeypatch.setattr(
        SimpleRateThrottle,
        "THROTTLE_RATES",
        dict.fromkeys(SimpleRateThrottle.THROTTLE_RATES, "1000000/min"),
    )
    settings.SLUICE_KEYS = keys
    store([event() for _ in range(3)])
    anyone = person()
    anyone.groups.set(Group.objects.all())
    _, text = tokens.create(by=anyone, days=1, reason="a test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        address, head = "/api/v1/schema?format=json", {"Authorization": f"Token {text}"}
        schema = schemathesis.openapi.from_wsgi(address, application, headers=head)
    yield schema, text
    for each in (signals.request_started, signals.request_finished):
        each.connect(close_old_connections)


def test_every_operation_answers_as_documented(document_of_the_api) -> None:
    schema, text = document_of_the_api
    checked = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if "/tokens" in operation.path or "/people" in operation.path:
            continue  # a token makes neither tokens nor people; tested by session elsewhere
        checked.append(operation.label)
        _check(operation, text)
    assert len(checked) >= 30


STRICT = {
    "decisions_list",
    "decisions_counts",
    "decisions_export",
    "apps_add_note",
    "apps_reset_bucket",
    "searches_save",
    "disputes_list",
    "disputes_open",
    "disputes_decide",
    "outcomes_list",
    "outcomes_report",
    "receipts_open",
    "lookup_read",
    "buried_list",
    "buried_replay",
    "buried_discard",
    "approvals_list",
    "approvals_approve",
    "approvals_veto",
    "approvals_withdraw",
    "approvals_rebase",
    "switches_engage",
    "switches_extend",
    "switches_clear",
    "declaration_plan",
    "declaration_apply",
    "apps_import",
}
"""Operations that read more than a name from the address, so that there is something to forbid."""
BOUND = STRICT - {"disputes_list", "buried_list"} | {"decisions_minute"}
"""Those whose values depend on each other, on what there is, on a seal, or are text that must say
something, which no schema can say: some that fit are refused.
"""


def _not_for(operation) -> list:
    return [positive_data_acceptance] if operation.definition.raw["operationId"] in BOUND else []


def test_what_the_document_forbids_is_refused_and_never_a_defect(document_of_the_api) -> None:
    schema, text = document_of_the_api
    checked = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.definition.raw["operationId"] in STRICT:
            checked.append(operation.label)
            _check(operation, text, GenerationMode.NEGATIVE)
    assert len(checked) == len(STRICT)


def _check(operation, text: str, mode: GenerationMode = GenerationMode.POSITIVE) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    def asked(case) -> None:
        _call(case, operation, text)

    asked()


def _covering(schema, operation, *modes: GenerationMode) -> Iterator:
    """schemathesis' coverage phase: the edges of each value, parts left out, methods and forms
    nobody documented; no chance.
    """
    generation = schema.config.generation_for(operation=operation, phase="coverage")
    asked: Counter = Counter()
    for case in schema.iter_coverage_cases(
        operation, generation_modes=list(modes), generation_config=generation
    ):
        about = case.meta.phase.data
        kind = (about.scenario, about.parameter, case.method)
        asked[kind] += 1
        if asked[kind] <= ALIKE:
            yield case


LENIENT = (negative_data_rejection,)
"""Not asked of values of another type: DRF reads “true” for true and “3” for 3."""


def test_edges_parts_left_out_and_undocumented_methods_are_answered_as_documented(
    document_of_the_api,
) -> None:
    schema, text = document_of_the_api
    kinds = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        for case in _covering(schema, operation, *GenerationMode):
            kind = case.meta.phase.data.scenario
            kinds.add(kind)
            _call(case, operation, text, LENIENT if kind == CoverageScenario.INCORRECT_TYPE else ())
    assert {
        CoverageScenario.UNSPECIFIED_HTTP_METHOD,
        CoverageScenario.OBJECT_MISSING_REQUIRED_PROPERTY,
    } <= kinds


@pytest.mark.parametrize("role", sorted(roles.PERMISSIONS))
def test_each_role_is_answered_as_documented_and_refused_what_is_not_its_own(
    document_of_the_api, person, role
) -> None:
    schema, _ = document_of_the_api
    user = person(role)
    _, text = tokens.create(by=user, days=1, reason="a test")
    refused = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if "/tokens" in operation.path or "/people" in operation.path:
            continue
        case = next(iter(_covering(schema, operation, GenerationMode.POSITIVE)))
        answer = _call(case, operation, text, (positive_data_acceptance,))
        allowed = user.has_perm(_permission(operation, case))
        assert (answer.status_code == 403) == (not allowed), (
            f"{role}: {operation.label} answers {answer.status_code}"
        )
        refused += not allowed
    assert refused


def _permission(operation, case) -> str:
    needed = resolve(f"/{case.formatted_path.lstrip('/')}").func.cls.permission
    return needed[operation.method.upper()] if isinstance(needed, dict) else needed


def test_the_operations_on_tokens_answer_a_session_as_documented(
    document_of_the_api, person
) -> None:
    met = _met_by_session(document_of_the_api, person("support"), "/tokens")
    assert met["GET /api/v1/tokens", 200]
    assert met["POST /api/v1/tokens", 201]
    assert met["DELETE /api/v1/tokens/{token}", 404]


def test_the_operations_on_people_answer_a_session_as_documented(
    document_of_the_api, person
) -> None:
    met = _met_by_session(document_of_the_api, person("administrator"), "/people")
    assert met["GET /api/v1/people", 200]
    assert met["GET /api/v1/people/{number}", 404]
    assert met["POST /api/v1/people/{number}/roles/give", 404]


def _met_by_session(document, user, part: str) -> Counter:
    """How often each operation of a part gave each status to someone signed in."""
    schema, _ = document
    session = Client()
    session.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    cookies = {"sluice_csrf": "a" * 32, "sluice_session": session.cookies["sluice_session"].value}
    met: Counter = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        if part not in operation.path:
            continue
        for case in _covering(schema, operation, *GenerationMode):
            about = case.meta.phase.data
            sent = {name: value for name, value in cookies.items() if name != about.parameter}
            but = LENIENT if about.scenario == CoverageScenario.INCORRECT_TYPE else ()
            answer = _call(
                case,
                operation,
                but=but,
                headers={"X-CSRFToken": cookies["sluice_csrf"]},
                cookies=sent,
            )
            met[operation.label, answer.status_code] += 1
    return met
