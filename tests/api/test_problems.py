"""Whatever is asked with whatever method, an error of the REST API is a problem (RFC 9457) with a
status that fits.
"""

from __future__ import annotations

import json
import logging

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from rest_framework.test import APIClient
from rest_framework.throttling import UserRateThrottle

from console import api_urls
from control.audit import tokens
from tests.api.conftest import problem

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NAMED = {
    "decision_id": "dec_019a2b3c4d5e7f008000000000000000",
    "app": "nobody",
    "bucket": "burst",
    "number": 1,
    "name": "all_ml",
    "token": "0" * 8,
}
"""What stands in an address for each part that varies."""
DISPUTES, OUTCOMES, NOTES = "/api/v1/disputes", "/api/v1/outcomes", "/api/v1/apps/nobody/notes"


@pytest.fixture
def anyone(person) -> APIClient:
    """Someone with every role."""
    user, client = person(""), APIClient(raise_request_exception=False)
    user.groups.set(Group.objects.all())
    client.credentials(
        HTTP_AUTHORIZATION=f"Token {tokens.create(by=user, days=1, reason='a test')[1]}"
    )
    return client


def _addresses() -> list[str]:
    parts = [(route.name, list(route.pattern.converters)) for route in api_urls.urlpatterns]
    return [reverse(name, kwargs={part: NAMED[part] for part in needed}) for name, needed in parts]


@pytest.mark.parametrize("method", METHODS)
def test_no_method_at_any_address_is_a_defect_and_every_error_is_a_problem(
    anyone: APIClient, method: str
) -> None:
    for address in _addresses():
        answer = anyone.generic(method, address, "{}", content_type="application/json")
        assert answer.status_code < 500, f"{method} {address}: {answer.status_code}"
        if answer.status_code >= 400:
            problem(answer)
        if answer.status_code == 405:
            assert method not in answer["Allow"], address


@pytest.mark.parametrize("address", [DISPUTES, OUTCOMES, NOTES])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_method_that_is_not_there_is_405_with_those_that_are(
    anyone: APIClient, address: str, method: str
) -> None:
    answer = anyone.generic(method, address)
    assert problem(answer)["status"] == 405
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_a_stranger_is_asked_to_sign_in_whatever_the_method(db) -> None:
    assert problem(APIClient().delete(DISPUTES))["status"] == 401


def test_another_form_of_answer_than_json_is_406(anyone: APIClient) -> None:
    assert problem(anyone.get(DISPUTES, headers={"Accept": "text/html"}))["status"] == 406


def test_a_body_over_the_limit_is_413_and_no_logged_defect(
    anyone: APIClient, settings, caplog
) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    with caplog.at_level(logging.ERROR):
        answer = anyone.generic(
            "POST", NOTES, json.dumps({"text": "x" * 2_000}), content_type="application/json"
        )
    assert problem(answer)["status"] == 413
    assert "1,000 bytes" in problem(answer)["detail"]
    assert not [record for record in caplog.records if record.exc_info]


def test_another_form_of_body_than_json_is_415(anyone: APIClient) -> None:
    answer = anyone.generic(
        "POST", NOTES, "text=hello", content_type="application/x-www-form-urlencoded"
    )
    assert problem(answer)["status"] == 415


def test_too_many_calls_are_429_and_told_when_to_go_on(anyone: APIClient, monkeypatch) -> None:
    monkeypatch.setattr(UserRateThrottle, "get_rate", lambda self: "1/min")
    assert anyone.get(DISPUTES).status_code == 200
    answer = anyone.get(DISPUTES)
    assert problem(answer)["status"] == 429
    # a call counts until the window after its own is over
    assert 0 < int(answer["Retry-After"]) <= 120


def test_a_defect_is_500_as_a_problem_without_details(anyone: APIClient, monkeypatch) -> None:
    monkeypatch.setattr("console.pages.outcomes.api.disputes.queue", lambda *_: 1 / 0)
    answer = anyone.get(DISPUTES)
    assert problem(answer)["status"] == 500
    assert "division" not in answer.content.decode()


@pytest.mark.parametrize(
    ("address", "body", "pointer"),
    [
        (NOTES, {"text": 5}, "/text"),
        ("/api/v1/searches", {"name": 5, "query": ""}, "/name"),
        ("/api/v1/searches", {"name": "mine", "query": "", "shared": 0}, "/shared"),
    ],
)
def test_a_value_of_another_type_is_refused_not_guessed(
    anyone: APIClient, address: str, body: dict, pointer: str
) -> None:
    found = problem(anyone.post(address, body, format="json"))
    assert (found["status"], [fault["pointer"] for fault in found["errors"]]) == (400, [pointer])
