"""What several answers are made of: reasons, times of the world, and problems. Knows no record of the index."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Instant = Annotated[
    datetime,
    PlainSerializer(_iso, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-21T15:50:00.123Z"]}),
]
"""A time of the world, written as ISO 8601 in UTC with milliseconds."""

Measured = Annotated[float, PlainSerializer(lambda value: round(value, 3), return_type=float, when_used="json")]
"""A number that was measured, written to thousandths."""


def instant(epoch_s: float) -> datetime:
    """A UTC epoch time of the index's records as an instant."""
    return datetime.fromtimestamp(epoch_s, UTC)


class Reason(BaseModel):
    """Why something failed, or what to know about an answer: a stable code and a sentence."""

    code: str
    message: str


def reason(code: str | None, message: str | None) -> Reason | None:
    """The reason of a failure without the server's folders; None without a code."""
    return None if code is None else Reason(code=code, message=message or code)


class FieldProblem(BaseModel):
    """A part of the request that is wrong."""

    field: str
    message: str


class Problem(BaseModel):
    """Every failure (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:vidgrain:problem:not_found",
                    "title": "No such thing",
                    "status": 404,
                    "detail": "no video has the id 'abc'",
                    "code": "not_found",
                    "retryable": False,
                    "request_id": "7b0c1a5e4c7f4d1c9d55d1a3a2f5f0aa",
                }
            ]
        }
    )
    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    """Whether the same request may succeed later."""

    request_id: str
    hint: str | None = None
    errors: list[FieldProblem] | None = None
