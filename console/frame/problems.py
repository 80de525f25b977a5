"""Answers to errors of the REST API: problem documents (RFC 9457), whatever raised the error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from psycopg import errors as postgres
from rest_framework.exceptions import APIException, ErrorDetail, ParseError, ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import exception_handler

from console.frame import permissions
from control import errors

CONTENT_TYPE = "application/problem+json"
PREFIX = "/api/"
# Seconds after which to try again when a server behind the API does not answer. Chosen: a restart
# of Valkey or PostgreSQL takes about that long, and clients do not pile up.
RETRY_S = 5

# HTTP status by kind of ControlError. Any other ControlError is a conflict (409), because the
# change is impossible in the present state.
_STATUS: dict[type[Exception], HTTPStatus] = {
    errors.NotAllowed: HTTPStatus.FORBIDDEN,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

DATABASE_AWAY = "The database does not answer. Deciders go on without it; try again soon."
# Neither says that nothing was changed: a change may be made when what follows it is given up.
_HELD = (
    "Someone else is changing the same thing and has not finished, so this was given up. Deciders"
    " are not affected. Try again in a few seconds; after a change, look first whether it was made."
)
_SLOW = (
    "The database took too long, so this was given up. Deciders are not affected. Ask for a shorter"
    " time or fewer rows, or try again later; after a change, look first whether it was made."
)
# By psycopg's error, which says more than Django's.
_SENTENCES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((postgres.LockNotAvailable, postgres.DeadlockDetected, postgres.SerializationFailure), _HELD),
    ((postgres.QueryCanceled, postgres.IdleInTransactionSessionTimeout), _SLOW),
)


def problem_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return an error as a problem; this is the exception handler of the REST framework.

    Return None for an unexpected error: Django then answers 500 and logs the error.
    """
    response = exception_handler(_known(error), context)
    if response is None:
        return None
    _as_json(context["request"])
    data, response.content_type = response.data, CONTENT_TYPE
    response.data = _problem(HTTPStatus(response.status_code), _detail(data))
    if isinstance(error, ValidationError):
        response.data["errors"] = list(_faults(data))
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        response["Retry-After"] = str(RETRY_S)
    if response.status_code == HTTPStatus.FORBIDDEN:
        permissions.record_refusal(context["request"], response.data["detail"])
    return response


def _as_json(request: Request) -> None:
    """Write the answer as JSON, even if the view writes another format.

    The OpenAPI document is YAML by default; a problem is always JSON.
    """
    request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type


def _known(error: Exception) -> Exception:
    """Return the REST framework's error for an expected error; an unexpected one unchanged."""
    if isinstance(error, BadRequest):
        return ParseError(str(error))
    if isinstance(error, RequestDataTooBig):
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        return _coded(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The body is larger than {most:,} bytes. Send it in parts.",
        )
    if isinstance(error, errors.ControlError):
        return _coded(_STATUS.get(type(error), HTTPStatus.CONFLICT), str(error))
    if said := trouble(error):
        return _coded(HTTPStatus.SERVICE_UNAVAILABLE, said)
    return error


def trouble(error: BaseException | None) -> str | None:
    """Return what to tell about an error of the database; None for an error of another kind."""
    for kinds, said in _SENTENCES:
        if error is not None and isinstance(error.__cause__, kinds):
            return said
    return DATABASE_AWAY if isinstance(error, (OperationalError, InterfaceError)) else None


def _coded(status: HTTPStatus, detail: str) -> APIException:
    found = APIException(detail)
    found.status_code = status
    return found


def _detail(data: object) -> str:
    if isinstance(data, dict) and isinstance(data.get("detail"), ErrorDetail):
        return str(data["detail"])
    faults = list(_faults(data))
    return (
        faults[0]["detail"]
        if len(faults) == 1
        else f"{len(faults)} values are wrong. `errors` says what is wrong with each."
    )


def _faults(data: object, at: str = "") -> list[dict[str, str]]:
    """Return an entry for each wrong value: where it is, and what is wrong with it.

    `pointer` is a JSON pointer (RFC 6901) into the body, or the name of a parameter.
    """
    if isinstance(data, dict):
        places = {name: at if name == "non_field_errors" else f"{at}/{name}" for name in data}
        return [fault for name, value in data.items() for fault in _faults(value, places[name])]
    if isinstance(data, list) and any(isinstance(item, (dict, list)) for item in data):
        return [fault for k, item in enumerate(data) for fault in _faults(item, f"{at}/{k}")]
    return [
        {"pointer": at, "detail": str(item)}
        for item in (data if isinstance(data, list) else [data])
    ]


def _problem(status: HTTPStatus, detail: str) -> dict[str, object]:
    return {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}


def for_path(request: HttpRequest, status: HTTPStatus, detail: str) -> HttpResponse | None:
    """Return a problem in place of an error page; None for an address outside the API."""
    if not request.path.startswith(PREFIX):
        return None
    answer = JsonResponse(_problem(status, detail), status=int(status), content_type=CONTENT_TYPE)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer["Retry-After"] = str(RETRY_S)
    return answer
