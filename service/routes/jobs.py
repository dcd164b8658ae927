"""/jobs: list, summarise, show, cancel, retry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.requests import JobsQuery
from service.responses.jobs import JobPage, JobResponse, QueueResponse
from service.routes.problems import problems
from service.state import Prefix, State

router = APIRouter(tags=["jobs"])


@router.get("/jobs", responses=problems())
def list_jobs(query: Annotated[JobsQuery, Query()], state: State, prefix: Prefix) -> JobPage:
    """The jobs, newest first."""
    jobs, next_cursor = state.index.jobs(
        status=query.status, video_id=query.video_id, limit=query.limit, cursor=query.cursor
    )
    return JobPage(jobs=[JobResponse.from_record(job, prefix) for job in jobs], next_cursor=next_cursor)


@router.get("/jobs/summary", responses=problems())
def summarise_jobs(state: State) -> QueueResponse:
    """All jobs together: how many are open, how fast they go, when they end."""
    return QueueResponse.from_record(state.index.queue())


@router.get("/jobs/{job_id}", responses=problems(404))
def get_job(job_id: str, state: State, prefix: Prefix) -> JobResponse:
    """One job: its stage, its progress and, if it failed, why."""
    return JobResponse.from_record(state.index.job(job_id), prefix)


@router.post("/jobs/{job_id}/cancel", responses=problems(403, 404, 409))
def cancel_job(job_id: str, state: State, prefix: Prefix) -> JobResponse:
    """Cancel a queued job at once, a running one at its next segment."""
    return JobResponse.from_record(state.index.cancel_job(job_id), prefix)


@router.post("/jobs/{job_id}/retry", responses=problems(403, 404, 409))
def retry_job(job_id: str, state: State, prefix: Prefix) -> JobResponse:
    """Queue a failed or cancelled job again."""
    job = state.index.retry_job(job_id)
    state.wake.notify()
    return JobResponse.from_record(job, prefix)
