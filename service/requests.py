"""Request bodies and query parameters with their examples. Unknown fields are refused.

Times are seconds from a video's first frame. responses/ has the answers. This file knows no route and no index but its
records.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import to_json

from indexer.records import JobStatus, RecallMode, SearchOptions, VideoStatus
from indexer.search.queries import MAX_QUERY_CHARS
from model.scorers import SCORERS

MAX_METADATA_BYTES = 64 * 1024
MAX_SCORER_CHARS = 64


def _bounded_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if len(to_json(value)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata may have at most {MAX_METADATA_BYTES} bytes as JSON")
    return value


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("a NUL character can't be stored")
    return value


Text = Annotated[str, AfterValidator(_storable)]
Title = Annotated[
    Text, Field(min_length=1, max_length=500, description="Shown in lists; the file's name if not given.")
]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_bounded_metadata),
    Field(
        description="Any JSON object up to 64 KiB; filters can ask for its keys.",
        examples=[{"tags": ["sport"], "year": 2024}],
    ),
]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Filter = Annotated[
    dict[str, Any],
    Field(
        description="Conditions on fields or metadata: `eq ne in gte lte gt lt exists`, `not`, `or`; "
        "a bare value means `eq`.",
        examples=[{"tags": {"in": ["sport"]}, "duration_s": {"lte": 600}}],
    ),
]
# The index decides which of them the model allows, and reports that with a code of its own.
Scorer = Annotated[str, Field(max_length=MAX_SCORER_CHARS, json_schema_extra={"enum": [*SCORERS]})]


class Body(BaseModel):
    """A request body: unknown fields are an error, and so is a number written as a string."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Parameters(BaseModel):
    """Query parameters: unknown ones are an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AddByPath(Body):
    """Index a file of the server that is inside the media roots."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"path": "lectures/week-1.mp4", "title": "Week 1", "metadata": {"course": "optics"}}]
        }
    )
    path: Text = Field(
        min_length=1,
        max_length=4096,
        description="Absolute, or relative to one of the media roots (VIDGRAIN_MEDIA_ROOTS).",
    )
    title: Title | None = None
    metadata: Metadata = Field(default_factory=dict)
    on_duplicate: Literal["skip", "replace", "error"] = Field(
        "skip", description="If the same content is here already: keep it, index it again, or answer 409."
    )


class AddFields(Body):
    """The fields that may accompany an uploaded file."""

    title: Title | None = None
    metadata: Metadata = Field(default_factory=dict)
    on_duplicate: Literal["skip", "replace", "error"] = "skip"


class ChangeVideo(Body):
    """New title or metadata. metadata replaces the whole object."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Final, cut 2"}], "minProperties": 1})
    title: Title | SkipJsonSchema[None] = Field(default=None, json_schema_extra=_without_default)
    metadata: Metadata | SkipJsonSchema[None] = Field(default=None, json_schema_extra=_without_default)

    @model_validator(mode="after")
    def _something(self) -> ChangeVideo:
        if not self.model_fields_set or any(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("give a title, metadata or both, and no null")
        return self


class Recall(Body):
    """How candidates are found before they are scored in full."""

    mode: RecallMode = Field(
        default="auto",
        description="`exact`: score everything; `ann`: score the candidates that recall finds; `auto`: exact as long "
        "as that takes less than the server's budget. `effective` reports what was done and why.",
    )
    candidates: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Segments taken from each recall channel in `ann`; default: the server's setting.",
    )


class SearchFields(Body):
    """What all searches share."""

    top_k: int = Field(10, ge=1, le=1000, description="How many videos to return at most.")
    moments_per_video: int = Field(3, ge=0, le=50, description="How many moments of each video to return at most.")
    recall: Recall = Field(default_factory=lambda: Recall())
    scorer: Scorer | None = Field(
        None, description="How candidates are scored: one of `GET /scorers`, which also names the default."
    )
    filter: Filter | None = None
    video_ids: list[Text] | None = Field(None, max_length=10_000, description="Search these videos only.")

    def options(self, default_candidates: int | None, *, include_self: bool = False) -> SearchOptions:
        """The index's own record of these fields."""
        return SearchOptions(
            top_k=self.top_k,
            moments_per_video=self.moments_per_video,
            recall=self.recall.mode,
            candidates=self.recall.candidates or default_candidates,
            filter=self.filter,
            video_ids=None if self.video_ids is None else tuple(self.video_ids),
            include_self=include_self,
            scorer=self.scorer,
        )


class TextSearch(SearchFields):
    """A sentence to search for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "a red circle moves to the left"},
                {"query": "a goal", "top_k": 5, "filter": {"tags": {"in": ["sport"]}}},
            ]
        }
    )
    # The schema states the limits; the index enforces them, with codes of their own.
    query: str = Field(
        description=f"What to look for, up to {MAX_QUERY_CHARS} characters.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_QUERY_CHARS},
    )


class ClipRange(SearchFields):
    """The options of a search by an uploaded clip: the range of it to use, and what all searches share."""

    start_s: Seconds | None = None
    end_s: Seconds | None = None

    @model_validator(mode="after")
    def _forward(self) -> ClipRange:
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError("end_s must be greater than start_s")
        return self


class StoredSearch(ClipRange):
    """Search with a stretch of a video of the index."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"video_id": "3f1d0c5a9e7b2846", "start_s": 4.0, "end_s": 9.5}]}
    )
    video_id: Text = Field(min_length=1, max_length=64)
    include_self: bool = Field(False, description="Whether the video itself may be among the results.")


class VideosQuery(Parameters):
    """Which videos to list."""

    limit: int = Field(50, ge=1, le=500)
    cursor: Text | None = Field(None, min_length=1, max_length=512, description="`next_cursor` of the previous page.")
    status: VideoStatus | None = None
    filter: str | None = Field(
        None,
        max_length=16_384,
        description="A filter as in searches, as a JSON string.",
        examples=['{"year": {"gte": 2020}}'],
    )


class JobsQuery(Parameters):
    """Which jobs to list."""

    limit: int = Field(50, ge=1, le=500)
    cursor: Text | None = Field(None, min_length=1, max_length=512, description="`next_cursor` of the previous page.")
    status: JobStatus | None = None
    video_id: Text | None = Field(None, min_length=1, max_length=64)


class AddQuery(Parameters):
    """How long POST /index/video may wait."""

    wait: float = Field(0, ge=0, le=60, description="Seconds to wait for the job to end before answering.")


class ThumbnailQuery(Parameters):
    """Which picture."""

    t: float = Field(
        0, ge=0, le=1e7, description="Seconds from the video's first frame; past the end gives the last picture."
    )
