"""JSON request bodies: read under a limit, parsed strictly, validated, and described in the OpenAPI document.

FastAPI's own body parameters have no limit and one content type per path; ours have a limit and take a form as well.
`with_bodies` adds them to the document. This file knows no route and no index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from pydantic_core import from_json
from starlette.requests import Request

from service.errors import InvalidRequest, MalformedBody, PayloadTooLarge, UnsupportedContentType

MAX_JSON_BYTES = 2**20

JSON = "application/json"
MULTIPART = "multipart/form-data"

AnyBody = TypeVar("AnyBody", bound=BaseModel)

_documented: set[type[BaseModel]] = set()


def content_type(request: Request) -> str:
    """The media type of the body in lower case, without parameters; "" if none is given."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_json(request: Request, model: type[AnyBody]) -> AnyBody:
    """The request's JSON body as `model`. Raises: UnsupportedContentType, PayloadTooLarge, InvalidRequest."""
    if content_type(request) != JSON:
        raise UnsupportedContentType(f"this path takes {JSON}, not {content_type(request)!r}")
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_JSON_BYTES:
            raise PayloadTooLarge(f"a JSON body may have at most {MAX_JSON_BYTES} bytes")
    return validate(bytes(raw), model, "body")


def validate(text: bytes | str, model: type[AnyBody], name: str) -> AnyBody:
    """JSON text as `model`. name: what messages call it. Raises: InvalidRequest, MalformedBody."""
    return checked(parse(text, name), model, name)


def checked(value: Any, model: type[AnyBody], name: str) -> AnyBody:
    """A JSON value as `model`. Raises: InvalidRequest naming the fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False), name) from error


def parse(text: bytes | str, name: str) -> Any:
    """JSON as Python values; NaN, infinities and lone surrogates are refused. Raises: MalformedBody."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except (ValueError, UnicodeError) as error:
        raise MalformedBody(f"{name} is not valid JSON: {error}") from error
    if not _is_finite(value):
        raise MalformedBody(f"{name} contains a number that is too large")
    return value


def from_validation(errors: Any, name: str) -> InvalidRequest:
    """The validation errors of pydantic or FastAPI as one InvalidRequest, with paths such as `recall.mode`."""
    fields = [(".".join(str(part) for part in e["loc"]) or name, _message(e)) for e in errors]
    first, message = fields[0]
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return InvalidRequest(f"{first}: {message}{more}", fields=fields)


def json_body(model: type[AnyBody]) -> Callable[[Request], Coroutine[Any, Any, AnyBody]]:
    """A dependency that returns the JSON body as `model`."""

    async def read(request: Request) -> AnyBody:
        return await read_json(request, model)

    return read


def documented(
    json: type[BaseModel], *, form: dict[str, Any] | None = None, form_models: tuple[type[BaseModel], ...] = ()
) -> dict[str, Any]:
    """`openapi_extra` for a route that takes `json`, or also a multipart form with these properties if given."""
    _documented.update({json, *form_models})
    content: dict[str, Any] = {JSON: {"schema": {"$ref": f"#/components/schemas/{json.__name__}"}}}
    examples = json.model_json_schema().get("examples", [])
    if examples:
        content[JSON]["examples"] = {f"example {n}": {"value": value} for n, value in enumerate(examples, 1)}
    if form is not None:
        content[MULTIPART] = {
            "schema": {"type": "object", "properties": form, "required": ["file"], "additionalProperties": False},
            "encoding": {
                name: {"contentType": JSON}
                for name, schema in form.items()
                if "$ref" in schema or schema.get("type") == "object"
            },
        }
    return {"requestBody": {"required": True, "content": content}}


def with_bodies(document: dict[str, Any], *more: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI document with the schemas of all documented bodies and of `more` added."""
    models = sorted({*_documented, *more}, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions.get("$defs", {}))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field"
    return str(error["msg"]).removeprefix("Value error, ")


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)
