"""The API keeps to its own document, whatever it is asked: every operation, with what that allows."""

from __future__ import annotations

import warnings

import pytest
import schemathesis
from django.contrib.auth.models import Group
from django.core import signals
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from rest_framework.throttling import SimpleRateThrottle
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from console.wsgi import application
from control import tokens
from tests.decisions.factory import event

EXAMPLES = 20


@pytest.fixture
def document_of_the_api(person, store, keys, valkey, settings, monkeypatch):
    """Its schema, called as someone who may do all that a machine may, with a few decisions to find."""
    for each in (signals.request_started, signals.request_finished):
        each.disconnect(close_old_connections)  # as Django's own test client does: the test's transaction must stay open
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", dict.fromkeys(SimpleRateThrottle.THROTTLE_RATES, "1000000/min"))
    settings.SLUICE_KEYS = keys
    store([event() for _ in range(3)])
    anyone = person()
    anyone.groups.set(Group.objects.all())
    _, text = tokens.make(by=anyone, days=1, reason="a test")
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
        if "/tokens" in operation.path:
            continue  # a token makes no tokens; tested by session elsewhere
        checked.append(operation.label)
        _check(operation, text)
    assert len(checked) >= 29


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
    "outcomes_report",
    "receipts_open",
}
"""Operations that read more than a name from the address, so that there is something to forbid."""
BOUND = STRICT - {"disputes_list", "disputes_decide"} | {"decisions_minute"}
"""Those whose values depend on each other, on what there is, or on a seal, which no schema can say: some that fit are refused."""


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
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def asked(case) -> None:
        case.call_and_validate(headers={"Authorization": f"Token {text}"}, excluded_checks=_not_for(operation))

    asked()
