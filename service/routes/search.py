"""/search: by a sentence, by an uploaded clip, by a stretch of a video of the index."""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response

from indexer.errors import MediaError
from indexer.records import SearchAnswer
from service.bodies import MULTIPART, content_type, documented, json_body, read_json, validate
from service.requests import ClipRange, StoredSearch, TextSearch
from service.responses.search import SearchResponse
from service.routes.problems import problems
from service.state import Prefix, ServiceState, State
from service.uploads import receive

router = APIRouter(tags=["search"])

_CLIP_FORM = {
    "file": {"type": "string", "format": "binary", "description": "The clip to search with; it is not kept."},
    "options": {"$ref": "#/components/schemas/ClipRange"},
}


@router.post(
    "/search/text",
    response_model=SearchResponse,
    responses=problems(400, 403, 413, 415, 429),
    openapi_extra=documented(TextSearch),
)
async def search_text(
    body: Annotated[TextSearch, Depends(json_body(TextSearch))], state: State, prefix: Prefix
) -> Response:
    """Videos and moments that show what a sentence says."""
    options = body.options(state.settings.candidates)
    return await state.searches.run(lambda: _answered(state.index.search_text(body.query, options), prefix))


@router.post(
    "/search/video",
    response_model=SearchResponse,
    responses=problems(400, 403, 404, 413, 415, 429, 507),
    openapi_extra=documented(StoredSearch, form=_CLIP_FORM, form_models=(ClipRange,)),
)
async def search_video(request: Request, state: State, prefix: Prefix) -> Response:
    """Videos and moments that look like a clip: an uploaded file, or a stretch of a video of the index."""
    if content_type(request) == MULTIPART:
        return await _by_upload(request, state, prefix)
    body = await read_json(request, StoredSearch)
    options = body.options(state.settings.candidates, include_self=body.include_self)
    search = partial(state.index.search_stored, body.video_id, options, start_s=body.start_s, end_s=body.end_s)
    return await state.searches.run(lambda: _answered(search(), prefix))


async def _by_upload(request: Request, state: ServiceState, prefix: str) -> Response:
    limit = state.settings.max_upload_bytes
    async with receive(
        request, state.index.storage.incoming, max_upload_bytes=limit, allowed=frozenset({"options"})
    ) as form:
        body = validate(form.fields.get("options") or "{}", ClipRange, "options")
        options = body.options(state.settings.candidates)
        search = partial(state.index.search_video, form.upload.path, options, start_s=body.start_s, end_s=body.end_s)
        try:
            return await run_sync(lambda: _answered(search(), prefix), limiter=state.clip_threads)
        except MediaError as error:
            error.path = Path(form.upload.file_name)  # the client knows the file in incoming by another name
            raise


def _answered(answer: SearchAnswer, prefix: str) -> Response:
    """The answer as JSON, made in the search's own thread: the event loop only sends it."""
    body = SearchResponse.from_record(answer, uuid.uuid4().hex, prefix)
    return Response(body.model_dump_json(), media_type="application/json")
