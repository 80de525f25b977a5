"""What the OpenAPI document says of every operation: the ticket header, and the problems."""

from __future__ import annotations

from typing import Any

from console.frame.app_looks import HEADER
from control.audit import app_looks

# An OpenAPI document is JSON that the hooks change in place; its depth differs from key to key.
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
# The problems by HTTP status. They come from the frame around the views (sign-in, throttles,
# parsers, error handlers), so the document cannot find them by reading the views.
_ANSWERS = {
    "400": "A value is not as it must be.",
    "401": "No valid token or session.",
    "403": "Your role may not do this.",
    "404": "There is nothing of that name.",
    "405": "Not with this method.",
    "406": "Only JSON is spoken here.",
    "409": "Not possible as things stand.",
    "413": "Too large.",
    "415": "Only what is documented is read.",
    "429": "Too many calls; retry-after says when to go on.",
    "503": "A server behind this one is away; retry-after says when to try again.",
}

# The header by which a machine names its ticket (console.frame.app_looks).
_TICKET = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": (
        "The ticket you work on: written down with every look into an app's data. A session's own"
        " ticket unless given."
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
