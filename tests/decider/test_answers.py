"""Responses as bytes: the marks, the words, and what they never tell."""

import msgspec
import pytest

from decider.contracts.vocabulary import HTTP_STATUS, Action
from decider.http import decide_api
from decider.http.problem import wrong_method
from decider.http.responses import CLOSE, HEAD, KEEP, NGINX, WORDS, Answers, retry_after
from tests.decider.http_client import Response, decision, parse

ANSWERS = Answers(1_700_000_000.0)
REFUSALS = [a for a in Action if a != Action.ADMIT]


def answer(action: Action, mark: int = 0, **changes: object) -> Response:
    (response,) = parse(ANSWERS.check(decision(action, **changes), mark).encode())
    return response


@pytest.mark.parametrize("action", list(Action))
def test_status_and_action_agree(action: Action) -> None:
    response = answer(action)
    assert response.status == HTTP_STATUS[action]
    assert response.headers["sluice-action"] == action.word
    assert response.headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize("action", REFUSALS)
def test_the_problem_says_what_to_do_and_nothing_of_scores(action: Action) -> None:
    body = answer(action).json
    assert set(body) <= {"type", "title", "status", "detail", "decision", "retry_after", "batch"}
    assert (body["title"], body["detail"]) == WORDS[action]
    assert not any(
        word in body["detail"].lower() for word in ("risk", "score", "abus", "threshold", "model")
    )


def test_a_refusal_carries_its_receipt_and_what_the_client_may_be_told() -> None:
    told = (("PACE", 'Say "slower".'), ("ERRORS", "Correct them."))
    response = answer(Action.DEFER, receipt="AQAB", told=told)
    assert response.headers["sluice-receipt"] == "AQAB"
    assert response.json["reasons"] == [{"code": code, "text": text} for code, text in told]
    plain = answer(Action.DEFER)
    assert "sluice-receipt" not in plain.headers
    assert "reasons" not in plain.json


def test_an_answer_to_many_at_once_tells_the_same() -> None:
    refusal = decision(Action.DEFER, receipt="AQAB", told=(("PACE", "Slower."),))
    (admit, found) = msgspec.json.decode(
        msgspec.json.encode(decide_api.answers([decision(), refusal]))
    )
    assert not {"receipt", "reasons"} & set(admit)
    assert (found["receipt"], found["reasons"]) == ("AQAB", [{"code": "PACE", "text": "Slower."}])


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, 1), (0.01, 1), (1.0, 1), (1.0001, 2), (86_400.0, 86_400)]
)
def test_retry_after_is_rounded_up(seconds: float, told: int) -> None:
    assert retry_after(decision(Action.DEFER, retry_after=seconds)) == told
    assert answer(Action.DEFER, retry_after=seconds).headers["retry-after"] == str(told)


def test_a_batch_hint_is_told_whatever_it_holds() -> None:
    assert answer(Action.BATCH, batch_hint='POST "x"\r\né').json["batch"] == 'POST "x"\r\né'


@pytest.mark.parametrize("action", list(Action))
def test_nginx_gets_only_200_or_403(action: Action) -> None:
    response = answer(action, NGINX)
    assert response.status == (200 if action == Action.ADMIT else 403)
    assert response.headers["sluice-status"] == str(HTTP_STATUS[action])


@pytest.mark.parametrize(("mark", "told"), [(0, None), (CLOSE, "close"), (KEEP, "keep-alive")])
def test_what_becomes_of_the_connection_is_told(mark: int, told: str | None) -> None:
    assert answer(Action.ADMIT, mark).headers.get("connection") == told


def test_head_leaves_the_body_out_and_its_length_in() -> None:
    with_body, without = (ANSWERS.check(decision(Action.DEFER), mark) for mark in (0, HEAD))
    assert without.endswith("\r\n\r\n")
    assert with_body.startswith(without)


def test_the_date_follows_the_clock() -> None:
    answers = Answers(0.0)
    assert "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in answers.check(decision(), 0)
    answers.tick(86_400.0)
    assert "date: Fri, 02 Jan 1970 00:00:00 GMT\r\n" in answers.check(decision(), 0)


def test_a_problem_is_rendered_with_the_fields_its_status_demands() -> None:
    (response,) = parse(ANSWERS.problem(wrong_method("GET", "POST"), 0))
    assert (response.status, response.headers["allow"]) == (405, "POST")
    assert msgspec.json.decode(response.body)["type"] == "urn:sluice:problem:method-not-allowed"
