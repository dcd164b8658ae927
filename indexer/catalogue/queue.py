"""The queue as a whole, read from the catalogue: sums that triggers keep, running jobs, the latest that succeeded.

What it costs doesn't depend on how many jobs there are. What follows from it is in indexer/progress.py.
"""

from __future__ import annotations

from indexer.catalogue.rows import Transaction, job_of
from indexer.progress import JobSum, SizedJob, queue_progress
from indexer.records import JobStatus, QueueProgress

LATEST = 200
"""Succeeded jobs that are looked at: they show the speed, and how many seconds of video are in a byte."""


def progress(tx: Transaction) -> QueueProgress:
    """What is left to do and when it ends."""
    running = _sized(tx, "j.status = 'running'")
    succeeded = _sized(tx, f"j.status = 'succeeded' ORDER BY j.finished_at DESC LIMIT {LATEST}")
    return queue_progress(tx.now_s, _sums(tx), running, succeeded)


def counts(tx: Transaction) -> dict[JobStatus, int]:
    """How many jobs each status has."""
    return {status: of_status.jobs for status, of_status in _sums(tx).items()}


def _sums(tx: Transaction) -> dict[JobStatus, JobSum]:
    rows = tx.rows("SELECT * FROM job_sums")
    return {row["status"]: JobSum(row["jobs"], row["size_bytes"], row["ended"]) for row in rows}


def _sized(tx: Transaction, which: str) -> list[SizedJob]:
    sql = f"SELECT j.*, v.size_bytes, v.duration_s FROM jobs AS j JOIN videos AS v ON v.id = j.video_id WHERE {which}"
    return [SizedJob(job_of(row), row["size_bytes"], row["duration_s"]) for row in tx.rows(sql)]
