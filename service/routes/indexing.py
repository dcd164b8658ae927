"""POST /index/video: a file arrives by upload, or is named by its path inside the media roots, and a job is queued."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from indexer.records import AddResult, Job
from indexer.storage import ReceivedFile
from service.bodies import MULTIPART, checked, content_type, documented, parse, read_json
from service.errors import InvalidRequest
from service.paths import allowed_file
from service.requests import AddByPath, AddFields, AddQuery
from service.responses.jobs import AddedResponse
from service.routes.problems import Responses, problems
from service.state import Prefix, ServiceState, State
from service.uploads import VIDEO_TYPES, Upload, receive

router = APIRouter(tags=["videos"])

_POLL_S = 0.1
_ENDED = frozenset({"succeeded", "failed", "cancelled"})
_FORM = {
    "file": {"type": "string", "format": "binary", "description": "The video."},
    "title": {"type": "string", "maxLength": 500, "description": "Default: the file's name."},
    "metadata": {"type": "object", "description": "A JSON object, written as text."},
    "on_duplicate": {"type": "string", "enum": ["skip", "replace", "error"], "default": "skip"},
}
_LOCATION = {"Location": {"description": "The job that indexes the video.", "schema": {"type": "string"}}}
_SUCCESSES: Responses = {
    200: {
        "description": "The content was here already, or its job ended within `wait`",
        "model": AddedResponse,
        "headers": _LOCATION,
    },
    202: {"description": "Accepted; `Location` is its job", "headers": _LOCATION},
}


@router.post(
    "/index/video",
    status_code=202,
    response_model=AddedResponse,
    responses=problems(400, 403, 404, 409, 413, 415, 507) | _SUCCESSES,
    openapi_extra=documented(AddByPath, form=_FORM),
)
async def add_video(
    request: Request, response: Response, query: Annotated[AddQuery, Query()], state: State, prefix: Prefix
) -> AddedResponse:
    """Add a video. It is searchable when its job has succeeded; `?wait=` holds the answer until then."""
    if content_type(request) == MULTIPART:
        added = await _add_upload(request, state)
    else:
        body = await read_json(request, AddByPath)
        added = await run_in_threadpool(_add_path, state, body)
    await run_in_threadpool(state.wake.notify)
    job = await _wait(request, state, added.job_id, query.wait)
    answer = AddedResponse.from_record(added, job, prefix)
    response.headers["location"] = answer.links["job"]
    if added.is_duplicate or (query.wait and job.status in _ENDED):
        response.status_code = 200
    return answer


async def _add_upload(request: Request, state: ServiceState) -> AddResult:
    limit, allowed = state.settings.max_upload_bytes, frozenset({"title", "metadata", "on_duplicate"})
    async with receive(request, state.index.storage.incoming, max_upload_bytes=limit, allowed=allowed) as form:
        fields = _form_fields(form.fields)
        return await run_in_threadpool(_add_file, state, form.upload, fields)


def _form_fields(texts: dict[str, str]) -> AddFields:
    values: dict[str, Any] = {name: text for name, text in texts.items() if text or name != "title"}
    if "metadata" in values:
        values["metadata"] = parse(values["metadata"], "metadata")
    return checked(values, AddFields, "form")


def _add_path(state: ServiceState, body: AddByPath) -> AddResult:
    path = allowed_file(body.path, state.settings.media_roots)
    return state.index.add(path, title=body.title, metadata=body.metadata, on_duplicate=body.on_duplicate)


def _add_file(state: ServiceState, upload: Upload, fields: AddFields) -> AddResult:
    if upload.size_bytes == 0:
        raise InvalidRequest("file: it is empty", fields=[("file", "it is empty")])
    suffix = Path(upload.file_name.lower()).suffix
    received = ReceivedFile(upload.path, upload.sha256, upload.size_bytes, suffix if suffix in VIDEO_TYPES else "")
    title = fields.title or Path(upload.file_name).stem
    return state.index.add_received(received, title=title, metadata=fields.metadata, on_duplicate=fields.on_duplicate)


async def _wait(request: Request, state: ServiceState, job_id: str, wait_s: float) -> Job:
    """The job once it has ended, or as it is after wait_s."""
    ends_s = time.monotonic() + wait_s
    read = partial(state.index.job, job_id)
    while True:
        job = await run_in_threadpool(read)
        if job.status in _ENDED or time.monotonic() >= ends_s or await request.is_disconnected():
            return job
        await anyio.sleep(_POLL_S)
