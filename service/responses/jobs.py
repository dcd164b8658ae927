"""Jobs as the service answers them, and what adding a video gives. Made from the index's records."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from indexer.progress import eta_s, fraction, x_real_time
from indexer.records import AddResult, Job, JobStage, JobStatus, QueueProgress
from service.responses.parts import Instant, Measured, Reason, instant, reason


class Progress(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    done: int
    total: int
    """0 until the video was probed."""

    unit: Literal["segments"] = "segments"
    percent: float
    fraction: float
    """The part of the job that is done, 0 to 1: in seconds of video once they are known."""

    frames_done: int
    """Frames that are encoded."""

    video_s_done: Measured
    """Seconds of video that are encoded."""

    video_s_total: Measured | None
    """The video's duration; null until it was probed."""

    x_real_time: Measured | None
    """Seconds of video per second of the job's present attempt; null until that can be known."""

    eta_s: Measured | None
    """Seconds from the last report until the job ends, at that speed; null unless it is running and has one."""

    @classmethod
    def from_record(cls, job: Job) -> Progress:
        """As the job's worker last reported it."""
        made, part = job.progress, fraction(job)
        return cls(
            done=made.segments_done,
            total=made.segments_total,
            percent=round(100.0 * part, 1),
            fraction=round(part, 4),
            frames_done=made.frames_done,
            video_s_done=made.seconds_done,
            video_s_total=made.seconds_total or None,
            x_real_time=x_real_time(job),
            eta_s=eta_s(job),
        )


class QueueResponse(BaseModel):
    """How far indexing is over all jobs and workers. Rates are those of the last two minutes of work."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    queued: int
    running: int
    succeeded: int
    """Since the queue was last empty, like `failed` and `cancelled`. A retried job counts each time it ends."""

    failed: int
    cancelled: int
    video_s_left: Measured | None
    """Seconds of video that are not done. A file that was not probed yet is estimated from its size; null before any
    video was indexed."""

    x_real_time: Measured | None
    """Seconds of video done per second by all workers; null until that can be known."""

    frames_per_s: Measured | None
    """Frames encoded per second by all workers; null until that can be known."""

    eta_s: Measured | None
    """Seconds until all open jobs have ended, at that speed: an estimate; null where nothing can be said."""

    @classmethod
    def from_record(cls, queue: QueueProgress) -> QueueResponse:
        """The queue as the catalogue shows it."""
        return cls(
            queued=queue.queued,
            running=queue.running,
            succeeded=queue.succeeded,
            failed=queue.failed,
            cancelled=queue.cancelled,
            video_s_left=queue.seconds_left,
            x_real_time=queue.x_real_time,
            frames_per_s=queue.frames_per_s,
            eta_s=queue.eta_s,
        )


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
        return cls(
            job_id=job.id,
            kind=job.kind,
            video_id=job.video_id,
            status=job.status,
            stage=job.stage,
            progress=Progress.from_record(job),
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
