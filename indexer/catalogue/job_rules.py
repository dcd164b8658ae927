"""The rules of jobs: when a retry comes, when a lease is over, what may become what.

Pure: knows no SQL and no clock.
"""

from __future__ import annotations

from typing import Literal

from indexer.errors import JobConflict
from indexer.records import Job, JobStatus

FIRST_BACKOFF_S = 2.0
MAX_BACKOFF_S = 300.0

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "queued"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
"""What each status may become: running -> queued is a retry or a worker that stops; from failed, a person's retry."""

Claim = Literal["wait", "claim", "exhausted", "cancelled"]


def backoff_s(attempt: int) -> float:
    """Seconds to wait before the attempt after `attempt` (from 1): 2, 4, 8, ... up to 300."""
    return float(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(attempt, 1) - 1, 30)))


def is_lease_over(job: Job, now_s: float) -> bool:
    """True of a running job whose worker has not been heard of in time."""
    return job.status == "running" and (job.lease_expires_at is None or job.lease_expires_at <= now_s)


def judge_claim(job: Job, not_before_s: float, now_s: float) -> Claim:
    """What a worker looking for work should make of a queued or running job."""
    if job.status == "queued":
        return "claim" if not_before_s <= now_s else "wait"
    if not is_lease_over(job, now_s):
        return "wait"
    if job.is_cancel_requested:
        return "cancelled"
    return "claim" if job.attempt < job.max_attempts else "exhausted"


def may_try_again(job: Job) -> bool:
    """True if the job has attempts left after the present one."""
    return job.attempt < job.max_attempts


def is_finished(status: JobStatus) -> bool:
    """True if nothing happens to a job of this status unless a person asks."""
    return status in ("succeeded", "failed", "cancelled")


def require_transition(job: Job, to: JobStatus, verb: str) -> None:
    """Raises: JobConflict if the job's status may not become `to`; `verb` says what was asked ("cancel", "retry")."""
    if to not in TRANSITIONS[job.status]:
        raise JobConflict(f"Can't {verb} job {job.id}: it is {job.status}.")
