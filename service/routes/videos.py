"""/videos: list, show, change, remove; thumbnails and streams."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse

from indexer.catalogue.rows import storable
from service.bodies import documented, json_body, parse
from service.errors import InvalidRequest, RangeNotSatisfiable
from service.open_file import OpenFileResponse
from service.requests import ChangeVideo, ThumbnailQuery, VideosQuery
from service.responses.videos import VideoPage, VideoResponse
from service.routes.problems import Responses, problems
from service.state import Prefix, State
from service.uploads import VIDEO_TYPES

router = APIRouter(tags=["videos"])

_ANY_BYTES = {"schema": {"type": "string", "format": "binary"}}
_PICTURE: Responses = {200: {"description": "A JPEG", "content": {"image/jpeg": _ANY_BYTES}}}
_STREAM: Responses = {
    200: {
        "description": "The whole file",
        "content": {"video/*": _ANY_BYTES, "image/gif": _ANY_BYTES, "application/*": _ANY_BYTES},
    },
    206: {
        "description": "The range asked for",
        "content": {"video/*": _ANY_BYTES, "image/gif": _ANY_BYTES, "application/*": _ANY_BYTES},
    },
}


@router.get("/videos", responses=problems(400))
def list_videos(query: Annotated[VideosQuery, Query()], state: State, prefix: Prefix) -> VideoPage:
    """The videos, newest first."""
    videos, next_cursor = state.index.list(
        limit=query.limit, cursor=query.cursor, filter=_filter(query.filter), status=query.status
    )
    return VideoPage(videos=[VideoResponse.from_record(video, prefix) for video in videos], next_cursor=next_cursor)


@router.get("/videos/{video_id}", responses=problems(404))
def get_video(video_id: str, state: State, prefix: Prefix) -> VideoResponse:
    """One video, and whether it can be searched."""
    return VideoResponse.from_record(state.index.get(video_id), prefix)


@router.patch(
    "/videos/{video_id}",
    response_model=VideoResponse,
    responses=problems(400, 403, 404, 413, 415),
    openapi_extra=documented(ChangeVideo),
)
def change_video(
    video_id: str,
    body: Annotated[ChangeVideo, Depends(json_body(ChangeVideo))],
    state: State,
    prefix: Prefix,
) -> VideoResponse:
    """Change the title or the metadata of a video."""
    given = body.model_dump(include=body.model_fields_set)
    return VideoResponse.from_record(state.index.update(video_id, **given), prefix)


@router.delete("/videos/{video_id}", status_code=204, responses=problems(403, 404))
def remove_video(video_id: str, state: State) -> None:
    """Remove a video from every search at once. An uploaded file is deleted; a file named by its path stays."""
    state.index.remove(video_id)


@router.get("/videos/{video_id}/thumbnail", response_class=FileResponse, responses=problems(404, 415, 507) | _PICTURE)
async def thumbnail(video_id: str, query: Annotated[ThumbnailQuery, Query()], state: State) -> FileResponse:
    """A small JPEG of the frame shown at `t`."""
    picture = await run_sync(state.index.thumbnail, video_id, query.t, limiter=state.thumbnail_threads)
    return FileResponse(picture, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})


@router.get("/videos/{video_id}/stream", response_class=FileResponse, responses=problems(404, 416) | _STREAM)
def stream(video_id: str, request: Request, state: State) -> Response:
    """The file itself, for a player; a Range header is honoured."""
    video, file = state.index.open_file(video_id)
    try:
        if "range" in request.headers:
            _keep_only_a_good_range(request, os.fstat(file.fileno()).st_size)
        kind = VIDEO_TYPES.get(video.path.suffix.lower(), "application/octet-stream")
        return OpenFileResponse(file, media_type=kind, file_name=storable(video.file_name))
    except BaseException:
        file.close()
        raise


def _keep_only_a_good_range(request: Request, size_bytes: int) -> None:
    """One range of bytes passes. Anything else is as if it had not been asked for (RFC 9110, 14.2): the whole file.

    Raises: RangeNotSatisfiable for a range that has nothing of the file.
    """
    found = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", request.headers["range"], flags=re.ASCII)
    first, last = found.groups() if found else ("", "")
    is_good = bool(first or last) and not (first and last and int(last) < int(first))
    if is_good and (int(first) >= size_bytes if first else int(last) == 0 or size_bytes == 0):
        raise RangeNotSatisfiable(
            f"the file has {size_bytes} bytes", headers={"content-range": f"bytes */{size_bytes}"}
        )
    if not is_good:
        del MutableHeaders(scope=request.scope)["range"]


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    value = parse(text, "filter")
    if not isinstance(value, dict):
        raise InvalidRequest("filter: should be a JSON object", fields=[("filter", "should be a JSON object")])
    return value
