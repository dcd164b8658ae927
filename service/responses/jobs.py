"""Jobs as the service answers them, and what adding a video gives. Made from the index's records."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from indexer.records import AddResult, Job, JobStage, JobStatus
from service.responses.parts import Instant, Reason, instant, reason


class Progress(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    done: int
    total: int
    """0 until the video was probed."""

    unit: Literal["segments"] = "segments"
    percent: float


class JobResponse(BaseModel):
    """A durable unit of indexing."""

    job_id: str
    kind: str
    video_id: str
    status: JobStatus
    stage: JobStage
    progress: Progress
    attempt: int
    max_attempts: int
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    is_cancel_requested: bool
    error: Reason | None
    links: dict[str, str]

    @classmethod
    def from_record(cls, job: Job, prefix: str) -> JobResponse:
        """prefix: what goes before the paths in `links`."""
        done, total = job.progress_done, job.progress_total
        percent = 100.0 if job.status == "succeeded" else 100.0 * done / total if total else 0.0
        return cls(
            job_id=job.id,
            kind=job.kind,
            video_id=job.video_id,
            status=job.status,
            stage=job.stage,
            progress=Progress(done=done, total=total, percent=round(percent, 1)),
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            created_at=instant(job.created_at),
            started_at=None if job.started_at is None else instant(job.started_at),
            finished_at=None if job.finished_at is None else instant(job.finished_at),
            is_cancel_requested=job.is_cancel_requested,
            error=reason(job.error_code, job.error_message),
            links={"self": f"{prefix}/jobs/{job.id}", "video": f"{prefix}/videos/{job.video_id}"},
        )


class JobPage(BaseModel):
    """A page of jobs, newest first. next_cursor is null on the last page."""

    jobs: list[JobResponse]
    next_cursor: str | None


class AddedResponse(BaseModel):
    """A video was accepted; its job shows what becomes of it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    job_id: str
    video_id: str
    status: JobStatus
    is_duplicate: bool
    """Whether the same content was in the index already."""

    error: Reason | None
    links: dict[str, str]

    @classmethod
    def from_record(cls, added: AddResult, job: Job, prefix: str) -> AddedResponse:
        """What was added and its job as it is now. prefix: what goes before the paths in `links`."""
        about = JobResponse.from_record(job, prefix)
        return cls(
            job_id=job.id,
            video_id=added.video_id,
            status=job.status,
            is_duplicate=added.is_duplicate,
            error=about.error,
            links={"job": about.links["self"], "video": about.links["video"]},
        )
