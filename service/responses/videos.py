"""Videos as the service answers them. Made from the index's records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from indexer.catalogue.rows import storable
from indexer.records import Sampling, Video, VideoStatus
from service.responses.parts import Instant, Reason, instant, reason


class VideoResponse(BaseModel):
    """A video of the index. What is read from the file is null until it was probed."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    video_id: str
    title: str
    file_name: str
    status: VideoStatus
    metadata: dict[str, Any]
    size_bytes: int
    created_at: Instant
    indexed_at: Instant | None
    num_segments: int
    sampling: Sampling
    """Which frames its features were made of: `exact`, or `keyframes` where moments may lie a little off."""

    duration_s: float | None
    fps: float | None
    width: int | None
    """Pixels as displayed, any rotation applied."""

    height: int | None
    """Pixels as displayed, any rotation applied."""

    codec: str | None
    container: str | None
    has_audio: bool | None
    error: Reason | None
    """Why the status is `failed`."""

    links: dict[str, str]
    """Paths on the server: `self`, `stream`, `thumbnail`."""

    @classmethod
    def from_record(cls, video: Video, prefix: str) -> VideoResponse:
        """prefix: what goes before the paths in `links`."""
        here, media = f"{prefix}/videos/{video.id}", video.media
        return cls(
            video_id=video.id,
            title=video.title,
            file_name=storable(video.file_name),
            status=video.status,
            metadata=dict(video.metadata),
            size_bytes=video.size_bytes,
            created_at=instant(video.created_at),
            indexed_at=None if video.indexed_at is None else instant(video.indexed_at),
            num_segments=video.num_segments,
            sampling=video.sampling,
            duration_s=media.duration_s if media else None,
            fps=media.fps if media else None,
            width=media.width if media else None,
            height=media.height if media else None,
            codec=media.codec if media else None,
            container=media.container if media else None,
            has_audio=media.has_audio if media else None,
            error=reason(video.error_code, video.error_message),
            links={"self": here, "stream": f"{here}/stream", "thumbnail": f"{here}/thumbnail"},
        )


class VideoPage(BaseModel):
    """A page of videos, newest first. next_cursor is null on the last page."""

    videos: Sequence[VideoResponse]
    next_cursor: str | None
