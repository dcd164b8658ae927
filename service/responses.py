"""What goes back over the wire, made from the index's records.

Times: of a video seconds from its first frame; of the world UTC epoch seconds. No path of the server ever appears:
a video shows its file's name. requests.py has what comes in. This file knows no route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from indexer.catalogue.rows import storable
from indexer.records import Hit, Job, JobStage, JobStatus, SearchAnswer, Video, VideoStatus
from model.families import KINDS
from model.installed import InstalledModel
from model.scorers import SCORERS, choose_scorer
from model.types import ModelSpec
from service.errors import without_folders

Scorer = Annotated[str, Field(json_schema_extra={"enum": [*SCORERS]})]
Kind = Annotated[str, Field(json_schema_extra={"enum": [*KINDS]})]


class Reason(BaseModel):
    """Why something failed: a stable code and a sentence."""

    code: str
    message: str


class FieldProblem(BaseModel):
    """A part of the request that is wrong."""

    field: str
    message: str


class Problem(BaseModel):
    """Every failure (RFC 9457). `retryable`: the same request may succeed later."""

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
    request_id: str
    hint: str | None = None
    errors: list[FieldProblem] | None = None


class VideoAnswer(BaseModel):
    """A video of the index. What `probe` finds is null until the video was probed."""

    id: str
    title: str
    file_name: str
    status: VideoStatus
    metadata: dict[str, Any]
    size_bytes: int
    created_at: float
    indexed_at: float | None
    num_segments: int
    duration_s: float | None
    fps: float | None
    width: int | None
    height: int | None
    codec: str | None
    container: str | None
    has_audio: bool | None
    error: Reason | None
    links: dict[str, str]

    @classmethod
    def of(cls, video: Video, prefix: str) -> VideoAnswer:
        """prefix: "" or "/v1", where the request came in."""
        here, media = f"{prefix}/videos/{video.id}", video.media
        return cls(
            id=video.id,
            title=video.title,
            file_name=storable(video.file_name),
            status=video.status,
            metadata=dict(video.metadata),
            size_bytes=video.size_bytes,
            created_at=video.created_at,
            indexed_at=video.indexed_at,
            num_segments=video.num_segments,
            duration_s=media.duration_s if media else None,
            fps=media.fps if media else None,
            width=media.width if media else None,
            height=media.height if media else None,
            codec=media.codec if media else None,
            container=media.container if media else None,
            has_audio=media.has_audio if media else None,
            error=_reason(video.error_code, video.error_message),
            links={"self": here, "stream": f"{here}/stream", "thumbnail": f"{here}/thumbnail"},
        )


class VideoList(BaseModel):
    """A page of videos. next_cursor is null on the last one."""

    videos: list[VideoAnswer]
    next_cursor: str | None


class Progress(BaseModel):
    """How far a job is; total is 0 until the video was probed."""

    done: int
    total: int
    unit: Literal["segments"] = "segments"
    percent: float


class JobAnswer(BaseModel):
    """A durable unit of indexing."""

    id: str
    kind: str
    video_id: str
    status: JobStatus
    stage: JobStage
    progress: Progress
    attempt: int
    max_attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    is_cancel_requested: bool
    error: Reason | None
    links: dict[str, str]

    @classmethod
    def of(cls, job: Job, prefix: str) -> JobAnswer:
        """prefix: "" or "/v1", where the request came in."""
        done, total = job.progress_done, job.progress_total
        percent = 100.0 if job.status == "succeeded" else 100.0 * done / total if total else 0.0
        return cls(
            id=job.id,
            kind=job.kind,
            video_id=job.video_id,
            status=job.status,
            stage=job.stage,
            progress=Progress(done=done, total=total, percent=round(percent, 1)),
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            is_cancel_requested=job.is_cancel_requested,
            error=_reason(job.error_code, job.error_message),
            links={"self": f"{prefix}/jobs/{job.id}", "video": f"{prefix}/videos/{job.video_id}"},
        )


class JobList(BaseModel):
    """A page of jobs. next_cursor is null on the last one."""

    jobs: list[JobAnswer]
    next_cursor: str | None


class Added(BaseModel):
    """A video taken in; follow the job. is_duplicate: the content was here already."""

    job_id: str
    video_id: str
    status: JobStatus
    is_duplicate: bool
    error: Reason | None
    links: dict[str, str]


class MomentAnswer(BaseModel):
    """A stretch to show; best_s is the time of the frame that supports the query most."""

    start_s: float
    end_s: float
    best_s: float
    score: float
    thumbnail_url: str


class Explain(BaseModel):
    """The parts of the score, by the names that `GET /scorers` gives for the scorer."""

    grains: dict[str, float]


class Result(BaseModel):
    """A video found. recall_rank: where the first stage had it, null if it did not."""

    rank: int
    video_id: str
    title: str
    score: float
    recall_rank: int | None
    duration_s: float | None
    metadata: dict[str, Any]
    moments: list[MomentAnswer]
    explain: Explain

    @classmethod
    def of(cls, hit: Hit, prefix: str) -> Result:
        """prefix: "" or "/v1", where the request came in."""
        pictures = f"{prefix}/videos/{hit.video.id}/thumbnail"
        return cls(
            rank=hit.rank,
            video_id=hit.video.id,
            title=hit.video.title,
            score=hit.score,
            recall_rank=hit.recall_rank,
            duration_s=hit.video.media.duration_s if hit.video.media else None,
            metadata=dict(hit.video.metadata),
            moments=[
                MomentAnswer(
                    start_s=m.start_s,
                    end_s=m.end_s,
                    best_s=m.best_s,
                    score=m.score,
                    thumbnail_url=f"{pictures}?t={m.best_s:.3f}",
                )
                for m in hit.moments
            ],
            explain=Explain(grains=dict(hit.grains)),
        )


class SearchResponse(BaseModel):
    """The answer of a search, best first. candidates: segments that were scored in full."""

    query_id: str
    results: list[Result]
    warnings: list[Reason]
    total_indexed: int
    candidates: int
    effective: dict[str, Any]
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, answer: SearchAnswer, query_id: str, prefix: str) -> SearchResponse:
        """prefix: "" or "/v1", where the request came in."""
        return cls(
            query_id=query_id,
            results=[Result.of(hit, prefix) for hit in answer.hits],
            warnings=[Reason(code=code, message=message) for code, message in answer.warnings],
            total_indexed=answer.total_indexed,
            candidates=answer.num_candidates,
            effective=dict(answer.effective),
            timings_ms=dict(answer.timings_ms),
        )


class ScorerAnswer(BaseModel):
    """A way to score. parts: names of what its score is made of, as in `explain.grains`; takes_clips: whether a query
    may be a clip; is_default, is_default_of_clips: what a sentence or a clip is searched by otherwise."""

    name: Scorer
    about: str
    parts: list[str]
    is_default: bool
    takes_clips: bool
    is_default_of_clips: bool


class ScorerList(BaseModel):
    """What the model's features can be scored by, the default first."""

    scorers: list[ScorerAnswer]

    @classmethod
    def of(cls, spec: ModelSpec) -> ScorerList:
        """Of the model that is served."""
        default, of_clips = (choose_scorer(spec.scorers, None, is_clip=is_clip) for is_clip in (False, True))
        return cls(
            scorers=[
                ScorerAnswer(
                    name=name,
                    about=SCORERS[name].about,
                    parts=list(SCORERS[name].parts),
                    is_default=name == default,
                    takes_clips=SCORERS[name].takes_clips,
                    is_default_of_clips=name == of_clips,
                )
                for name in spec.scorers
            ]
        )


class ModelAnswer(BaseModel):
    """A model at hand. Null is what only its weights could tell; error: why it can't be used."""

    name: str
    kind: Kind | None
    fingerprint: str | None
    embed_dim: int | None
    num_frames: int | None
    num_words: int | None
    image_size: int | None
    temporal: str | None
    scorers: list[Scorer]
    is_served: bool
    error: Reason | None

    @classmethod
    def served(cls, spec: ModelSpec) -> ModelAnswer:
        """The model that this service searches with."""
        return cls._made(spec, spec.fingerprint, None)

    @classmethod
    def of(cls, model: InstalledModel) -> ModelAnswer:
        """One that lies beside it."""
        return cls._made(model, None, _reason(model.error.code, model.error.message) if model.error else None)

    @classmethod
    def _made(cls, model: ModelSpec | InstalledModel, fingerprint: str | None, error: Reason | None) -> ModelAnswer:
        return cls(
            name=without_folders(model.name),
            kind=model.kind,
            fingerprint=fingerprint,
            embed_dim=model.embed_dim,
            num_frames=model.num_frames,
            num_words=model.num_words,
            image_size=model.image_size,
            temporal=model.temporal,
            scorers=list(model.scorers),
            is_served=fingerprint is not None,
            error=error,
        )


class ModelList(BaseModel):
    """The served model first."""

    models: list[ModelAnswer]


class IndexAnswer(BaseModel):
    """What the index holds. generation rises with every change."""

    model_config = ConfigDict(extra="allow")
    videos: int
    segments: int
    jobs: Mapping[str, int]
    generation: int
    fingerprint: str


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Searches are answered. worker: running, stopped (it is restarted), or external (not ours to watch)."""

    status: Literal["ready"] = "ready"
    worker: Literal["running", "stopped", "external"]
    last_inference_s_ago: float
    warnings: list[Reason]


class Version(BaseModel):
    """What runs here."""

    name: str
    version: str
    api: str
    model: str
    fingerprint: str


def _reason(code: str | None, message: str | None) -> Reason | None:
    return None if code is None else Reason(code=code, message=without_folders(message or code))
