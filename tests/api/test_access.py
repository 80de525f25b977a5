"""Who may call the REST API, how errors look, how tokens live."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from drf_spectacular.validation import validate_schema
from rest_framework.test import APIClient

from control.audit import tokens
from control.errors import Refused
from control.models import AuditEntry
from tests.api.conftest import problem

SCHEMA = "/api/v1/schema?format=json"
TOKENS = "/api/v1/tokens"


def test_without_a_credential_the_answer_is_401_and_says_how_to_sign_in(db) -> None:
    answer = APIClient().get(SCHEMA)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Token")
    problem(answer)


def test_a_wrong_token_is_refused(db) -> None:
    assert (
        problem(APIClient().get(SCHEMA, headers={"Authorization": "Token sluice_wrong"}))["status"]
        == 401
    )


def test_someone_without_a_role_is_told_who_can(caller) -> None:
    assert "Support" in problem(caller("").get(SCHEMA))["detail"]


def test_the_document_is_valid_openapi_and_every_operation_lists_its_problems(caller) -> None:
    answer = caller().get(SCHEMA)
    assert answer.status_code == 200
    document = json.loads(answer.content)
    validate_schema(document)  # against the specification's own JSON schema
    for methods in document["paths"].values():
        for operation in methods.values():
            assert {"400", "401", "403", "404", "429", "503"} <= set(operation["responses"])


def test_an_unknown_address_of_the_api_is_a_problem_not_a_page(caller) -> None:
    assert problem(caller().get("/api/v1/nothing"))["status"] == 404


def signed_in(user) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def test_a_token_is_shown_once_kept_as_a_digest_and_audited(person) -> None:
    user = person()
    client = signed_in(user)
    made = client.post(
        TOKENS, {"reason": "nightly report", "days": 30}, content_type="application/json"
    )
    assert made.status_code == 201
    text = made.json()["token"]
    assert text.startswith("sluice_")
    assert APIClient().get(SCHEMA, headers={"Authorization": f"Token {text}"}).status_code == 200
    listed = client.get(TOKENS).json()
    assert [row["id"] for row in listed] == [made.json()["id"]]
    assert text not in json.dumps(listed)
    entry = AuditEntry.objects.get(action="token_made")
    assert entry.reason == "nightly report"
    assert text not in json.dumps(entry.after) + entry.summary + entry.subject


def test_a_revoked_token_ends_at_once(person) -> None:
    user = person()
    made, text = tokens.create(by=user, days=1, reason="a test")
    assert signed_in(user).delete(f"{TOKENS}/{made.token_key}").status_code == 204
    assert APIClient().get(SCHEMA, headers={"Authorization": f"Token {text}"}).status_code == 401
    assert AuditEntry.objects.filter(action="token_revoked").count() == 1


def test_nobody_revokes_another_persons_token(person) -> None:
    made, _ = tokens.create(by=person(), days=1, reason="a test")
    assert problem(signed_in(person()).delete(f"{TOKENS}/{made.token_key}"))["status"] == 404


def test_a_token_cannot_make_tokens(caller) -> None:
    assert caller().post(TOKENS, {"reason": "more"}, format="json").status_code in (401, 403)


def test_a_person_has_ten_tokens_at_most(person) -> None:
    user = person()
    for _ in range(tokens.MOST):
        tokens.create(by=user, days=1, reason="a test")
    with pytest.raises(Refused, match="Revoke one"):
        tokens.create(by=user, days=1, reason="a test")


def test_what_is_wrong_with_a_body_is_said_value_by_value(person) -> None:
    answer = signed_in(person()).post(
        TOKENS, {"reason": "", "days": 1000}, content_type="application/json"
    )
    assert [e["pointer"] for e in problem(answer)["errors"]] == ["/reason", "/days"]


def test_too_many_calls_are_told_when_to_come_back(caller, settings, monkeypatch) -> None:
    from rest_framework.throttling import SimpleRateThrottle

    monkeypatch.setattr(
        SimpleRateThrottle, "THROTTLE_RATES", {**SimpleRateThrottle.THROTTLE_RATES, "user": "3/min"}
    )
    client = caller()
    answers = [client.get(SCHEMA) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert int(answers[-1]["Retry-After"]) > 0
    problem(answers[-1])
