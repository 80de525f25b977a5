"""What the OpenAPI document adds to every operation: the ticket header and the problems."""

from __future__ import annotations

from typing import Any

from console.frame.app_looks import HEADER
from control.audit import app_looks

# An OpenAPI document: JSON of any depth, which the hooks change in place.
Document = dict[str, Any]

# Schema of a problem (RFC 9457), as console.frame.problems writes it.
_PROBLEM = {
    "type": "object",
    "description": "A problem (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["pointer", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}
# The problems by HTTP status. They come from code around the views (sign-in, throttles, parsers,
# error handlers), so drf-spectacular cannot find them in the views.
_ANSWERS = {
    "400": "A value is missing or wrong; `detail` or `errors` says which.",
    "401": "No valid token or session.",
    "403": "Your role may not do this.",
    "404": "Nothing has this address, id or name.",
    "405": "This address does not take this method.",
    "406": "The answer cannot have the requested media type.",
    "409": "Not possible in the present state; `detail` says why.",
    "413": "The body is too large.",
    "415": "The body must have a documented media type.",
    "429": "Too many calls; retry-after says when to go on.",
    "503": "The database or Valkey does not answer; retry-after says when to try again.",
}

# The header by which a machine names its ticket (console.frame.app_looks).
_TICKET = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": (
        "The ticket you work on, recorded with every look into an app's data. By default the"
        " session's ticket."
    ),
    "schema": {
        "type": "string",
        "pattern": app_looks.TICKET_FORM,
        "minLength": 2,
        "maxLength": app_looks.LONGEST_TICKET,
    },
    "example": "SUP-48119",
}


def with_ticket(result: Document, generator: object, request: object, public: bool) -> Document:
    """Add the ticket header, which every operation reads (a hook of drf-spectacular)."""
    result["components"].setdefault("parameters", {})["Ticket"] = _TICKET
    for methods in result["paths"].values():
        for operation in methods.values():
            operation.setdefault("parameters", []).append(
                {"$ref": "#/components/parameters/Ticket"}
            )
    return result


def with_problems(result: Document, generator: object, request: object, public: bool) -> Document:
    """Add the problems that every operation can answer with (a hook of drf-spectacular)."""
    result["components"].setdefault("schemas", {})["Problem"] = _PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for methods in result["paths"].values():
        for operation in methods.values():
            for status, words in _ANSWERS.items():
                operation["responses"][status] = {"description": words, "content": content}
    return result
