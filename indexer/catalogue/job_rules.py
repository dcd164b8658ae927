"""The rules of jobs: when to retry, when a lease has expired, which status may follow which.

Pure functions: they know no SQL and no clock.
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
"""The statuses that may follow each: running -> queued for a retry or a worker that stops, failed -> queued by hand."""

Claim = Literal["wait", "claim", "exhausted", "cancelled"]


def backoff_s(attempt: int) -> float:
    """Seconds to wait before the attempt after `attempt` (from 1): 2, 4, 8, ... up to 300."""
    return float(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(attempt, 1) - 1, 30)))


def is_lease_expired(job: Job, now_s: float) -> bool:
    """Whether a running job's worker has missed the time to renew its lease."""
    return job.status == "running" and (job.lease_expires_at is None or job.lease_expires_at <= now_s)


def judge_claim(job: Job, not_before_s: float, now_s: float) -> Claim:
    """What a worker that looks for work should do with a queued or running job."""
    if job.status == "queued":
        return "claim" if not_before_s <= now_s else "wait"
    if not is_lease_expired(job, now_s):
        return "wait"
    if job.is_cancel_requested:
        return "cancelled"
    return "claim" if job.attempt < job.max_attempts else "exhausted"


def may_try_again(job: Job) -> bool:
    """Whether the job has attempts left after the current one."""
    return job.attempt < job.max_attempts


def is_finished(status: JobStatus) -> bool:
    """Whether a job of this status has ended: only a person's retry changes it."""
    return status in ("succeeded", "failed", "cancelled")


def require_transition(job: Job, to: JobStatus, verb: str) -> None:
    """Raises: JobConflict if the job's status may not become `to`. verb: the request, "cancel" or "retry"."""
    if to not in TRANSITIONS[job.status]:
        raise JobConflict(f"Can't {verb} job {job.id}: it is {job.status}.")
