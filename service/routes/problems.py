"""The problems that each route may answer, by status, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from service.errors import PROBLEM_TYPE

_MEANINGS = {
    400: "The body's syntax is broken",
    403: "Not allowed from there, or a path that may not be read",
    404: "No such thing",
    409: "In conflict with the present state",
    413: "Too large",
    415: "A content type that is not accepted, or not a video",
    416: "The range is outside the file",
    429: "Too many searches wait; Retry-After names the seconds after which to ask again",
    422: "Understood, but not usable; `errors` names the fields",
    500: "An internal error",
    503: "Not ready, or a library or weights are missing",
    507: "The disk is full",
}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """`responses` of a route that can fail with these statuses, and with 422, 500 and 503 as all can."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _MEANINGS[status], "content": content} for status in sorted({*statuses, 422, 500, 503})
    }
