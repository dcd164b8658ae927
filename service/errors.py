"""From an error to an answer: one table of statuses, one body (RFC 9457 problem+json) for every failure.

    ServiceError (of model.errors.VidgrainError)
    ├── InvalidRequest          invalid_request           a body, field or parameter that can't be read
    │   └── MalformedBody       invalid_request           ... already its syntax: JSON, multipart
    ├── PathNotAllowed          path_not_allowed          a path outside of the media roots
    ├── ForbiddenOrigin         forbidden_origin          a page of another site tries to change something
    ├── ForbiddenHost           forbidden_host            called by a name that is not ours
    ├── NoSuchPage              not_found                 no route of that path
    ├── MethodNotAllowed        method_not_allowed        the path is there, the method isn't
    ├── PayloadTooLarge         payload_too_large         an upload or body past its limit
    ├── UnsupportedContentType  unsupported_content_type  a body of a type that this path does not take
    ├── RangeNotSatisfiable     range_not_satisfiable     a Range past the end of the file
    ├── SearchBusy              search_busy               as many searches wait as may wait (retryable)
    ├── NotReady                not_ready                 the index or model does not answer (retryable)
    └── Internal                internal                  a fault of ours; the log has the reason

This file knows no route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer import errors as index_errors
from model import errors as model_errors
from model.errors import VidgrainError


class ServiceError(VidgrainError):
    """Anything wrong at the edge. `fields` name the wrong parts of a request; `headers` go with the answer."""

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        fields: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        path: Path | None = None,
    ) -> None:
        super().__init__(message, hint, path=path)
        self.fields = tuple(fields)
        self.headers = dict(headers or {})


class InvalidRequest(ServiceError):
    """A body, field or parameter that can be parsed but not used; `fields` name the parts."""

    code = "invalid_request"


class MalformedBody(InvalidRequest):
    """A body whose very syntax is wrong."""


class PathNotAllowed(ServiceError):
    """A path that leads out of Settings.media_roots, or any path where there are none."""

    code = "path_not_allowed"


class ForbiddenOrigin(ServiceError):
    """A browser says that a page of another site sent this."""

    code = "forbidden_origin"


class ForbiddenHost(ServiceError):
    """The Host header has a name that is neither local nor in VIDGRAIN_ALLOWED_HOSTS."""

    code = "forbidden_host"


class NoSuchPage(ServiceError):
    """No route of that path."""

    code = "not_found"


class MethodNotAllowed(ServiceError):
    """The path is there, the method isn't; the Allow header lists those that are."""

    code = "method_not_allowed"


class PayloadTooLarge(ServiceError):
    """An upload or a body past its limit."""

    code = "payload_too_large"


class UnsupportedContentType(ServiceError):
    """A body of a type that this path does not take."""

    code = "unsupported_content_type"


class RangeNotSatisfiable(ServiceError):
    """A Range header that begins past the end of the file."""

    code = "range_not_satisfiable"


class SearchBusy(ServiceError):
    """As many searches run and wait as may; the Retry-After header says when to ask again."""

    code = "search_busy"
    is_retryable = True


class NotReady(ServiceError):
    """The index or the model does not answer."""

    code = "not_ready"
    is_retryable = True


class Internal(ServiceError):
    """A fault of ours; the log holds the reason under the request_id."""

    code = "internal"


# The one table: class -> (status, title). The nearest ancestor in the table counts.
STATUSES: dict[type[VidgrainError], tuple[int, str]] = {
    VidgrainError: (500, "Something failed inside"),
    Internal: (500, "Something failed inside"),
    InvalidRequest: (422, "The request can't be used as it is"),
    MalformedBody: (400, "The body can't be read"),
    PathNotAllowed: (403, "That path may not be read"),
    ForbiddenOrigin: (403, "Another site may not do that"),
    ForbiddenHost: (403, "Not by that name"),
    NoSuchPage: (404, "No such page"),
    MethodNotAllowed: (405, "The method is not one of this path"),
    PayloadTooLarge: (413, "The body is too large"),
    UnsupportedContentType: (415, "The body's type is not read here"),
    RangeNotSatisfiable: (416, "The range lies outside of the file"),
    SearchBusy: (429, "Too many searches wait"),
    NotReady: (503, "Not ready"),
    index_errors.NotFound: (404, "No such thing"),
    index_errors.DuplicateVideo: (409, "The video is here already"),
    index_errors.JobConflict: (409, "The job's state does not allow that"),
    index_errors.InvalidFilter: (422, "The filter can't be read"),
    index_errors.InvalidQuery: (422, "The query can't be used"),
    index_errors.EmptyQuery: (422, "The query is empty"),
    index_errors.QueryTooLong: (422, "The query is too long"),
    index_errors.InvalidMetadata: (422, "The metadata can't be kept"),
    index_errors.CatalogueBusy: (503, "The catalogue is busy"),
    index_errors.FileMissing: (404, "The video's file is gone"),
    index_errors.ModelMismatch: (409, "The data belong to another model"),
    index_errors.CatalogueUnreadable: (500, "The catalogue can't be read"),
    index_errors.StorageFull: (507, "The disk is full"),
    index_errors.BackendMissing: (503, "A library is not installed"),
    index_errors.DecodeBusy: (503, "All decoders are busy"),
    index_errors.SandboxClosed: (503, "Decoding was stopped"),
    index_errors.DecodeInterrupted: (503, "Decoding was interrupted"),
    index_errors.MediaError: (422, "The video can't be used"),
    index_errors.UnsupportedMedia: (415, "Not a video"),
    model_errors.ModelError: (500, "The model failed"),
    model_errors.UnknownScorer: (422, "The scorer can't be used"),
    model_errors.WeightsUnavailable: (503, "The model's weights can't be had"),
    model_errors.TokenizerUnavailable: (503, "The model's tokenizer can't be had"),
    model_errors.DeviceUnavailable: (503, "The device can't be had"),
    model_errors.DatasetError: (422, "The dataset can't be read"),
}

PROBLEM_TYPE = "application/problem+json"


def status_and_title(error: VidgrainError) -> tuple[int, str]:
    """The row of the table for this error: of its class, or of the nearest ancestor."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def headers(error: VidgrainError) -> dict[str, str]:
    """The headers that go with the answer, Retry-After where the error knows when to ask again."""
    if isinstance(error, index_errors.DecodeBusy):
        return {"retry-after": str(error.retry_after_s)}
    return error.headers if isinstance(error, ServiceError) else {}


def problem(error: VidgrainError, request_id: str) -> dict[str, Any]:
    """The body of the answer. `errors` (field, message) is there when fields are to blame, `hint` when there is one."""
    status, title = status_and_title(error)
    body: dict[str, Any] = {
        "type": f"urn:vidgrain:problem:{error.code}",
        "title": title,
        "status": status,
        "detail": error.describe(folders=False),
        "code": error.code,
        "retryable": error.is_retryable,
        "request_id": request_id,
    }
    if error.hint:
        body["hint"] = error.hint
    if isinstance(error, ServiceError) and error.fields:
        body["errors"] = [{"field": field, "message": message} for field, message in error.fields]
    return body
