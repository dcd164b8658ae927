"""Jobs in the catalogue: queued, claimed under a lease, renewed, ended. Every function takes an open transaction.

A worker may change its job only while the row is running with its owner and its attempt; the rules are in job_rules.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import astuple

from indexer.catalogue.bound_model import require_bound
from indexer.catalogue.job_rules import backoff_s, judge_claim, may_try_again, require_transition
from indexer.catalogue.rows import (
    Row,
    Transaction,
    checked_limit,
    cursor_of,
    job_of,
    known_id,
    not_found,
    place_of,
    storable_line,
)
from indexer.catalogue.segments import check_features, replace_segments
from indexer.errors import JobConflict, JobLost, NotFound
from indexer.records import Job, JobProgress, JobStage, JobStatus, MediaInfo, Sampling, SegmentFeatures

CANCELLED = "cancelled", "The indexing was cancelled."
EXHAUSTED = "worker_lost", "The worker stopped without reporting in each attempt; the last was attempt {}."

PROGRESS_COLUMNS = "progress_done = ?, progress_total = ?, frames_done = ?, seconds_done = ?, seconds_total = ?"
"""Where the fields of JobProgress are stored, in their order."""


def insert_job(tx: Transaction, video_id: str, max_attempts: int) -> str:
    """Queue the indexing of a video; returns the job's id."""
    job_id = uuid.uuid4().hex
    tx.change(
        "INSERT INTO jobs (id, kind, video_id, status, stage, max_attempts, created_at, not_before) "
        "VALUES (?, 'index_video', ?, 'queued', 'queued', ?, ?, ?)",
        *(job_id, video_id, max(1, max_attempts), tx.now_s, tx.now_s),
    )
    return job_id


def get_job(tx: Transaction, job_id: str) -> Job:
    """The job. Raises: NotFound."""
    row = tx.row("SELECT * FROM jobs WHERE id = ?", known_id("job", job_id))
    if row is None:
        raise not_found("job", job_id)
    return job_of(row)


def latest_job(tx: Transaction, video_id: str) -> Job:
    """The newest job of a video."""
    return job_of(tx.rows("SELECT * FROM jobs WHERE video_id = ? ORDER BY number DESC LIMIT 1", video_id)[0])


def list_page(
    tx: Transaction,
    *,
    status: JobStatus | None = None,
    video_id: str | None = None,
    ids: Sequence[str] | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[tuple[Job, ...], str | None]:
    """1..1000 jobs, newest first, and the cursor of the next page. ids: only these. Raises: InvalidQuery."""
    sql, parameters = "SELECT * FROM jobs WHERE 1", list[object]()
    if status is not None:
        sql += " AND status = ?"
        parameters.append(status)
    if video_id is not None:
        try:
            parameters.append(known_id("video", video_id))
        except NotFound:
            return (), None
        sql += " AND video_id = ?"
    if ids is not None:
        sql += " AND id IN (SELECT value FROM json_each(?))"
        parameters.append(json.dumps(list(ids)))
    if cursor is not None:
        sql += " AND number < ?"
        parameters += place_of(cursor, int)
    rows = tx.rows(f"{sql} ORDER BY number DESC LIMIT ?", *parameters, checked_limit(limit) + 1)
    following = cursor_of(rows[limit - 1]["number"]) if len(rows) > limit else None
    return tuple(job_of(row) for row in rows[:limit]), following


def has_claimable(tx: Transaction) -> bool:
    """Whether a worker may find work now; a read, without the lock of a write."""
    sql = (
        "SELECT 1 FROM jobs WHERE status IN ('queued', 'running') AND "
        "CASE status WHEN 'queued' THEN not_before ELSE COALESCE(lease_expires_at, 0) END <= ? LIMIT 1"
    )
    return tx.row(sql, tx.now_s) is not None


def claim(tx: Transaction, owner: str, lease_s: float) -> Job | None:
    """Start the oldest job that is due, or whose lease has expired, under `owner`; None if there is none.

    Jobs found with no attempts left are ended.
    """
    for row in sorted(_open_rows(tx), key=lambda row: int(row["number"])):
        job = job_of(row)
        verdict = judge_claim(job, row["not_before"], tx.now_s)
        if verdict == "exhausted":
            _end_failed(tx, job, EXHAUSTED[0], EXHAUSTED[1].format(job.attempt))
        elif verdict == "cancelled":
            _end_cancelled(tx, job)
        elif verdict == "claim":
            tx.change(
                "UPDATE jobs SET status = 'running', stage = 'probe', attempt = attempt + 1, owner = ?, "
                "lease_expires_at = ?, started_at = COALESCE(started_at, ?), working_since = ?, updated_at = ?, "
                f"{PROGRESS_COLUMNS}, error_code = NULL, error_message = NULL WHERE number = ?",
                *(owner, tx.now_s + lease_s, tx.now_s, tx.now_s, tx.now_s, *astuple(JobProgress()), row["number"]),
            )
            return get_job(tx, job.id)
    return None


def _open_rows(tx: Transaction) -> list[Row]:
    """Every running job, and the oldest queued one that is due and whose video has no running job.

    They are few, however long the queue is.
    """
    running = tx.rows("SELECT * FROM jobs WHERE status = 'running'")
    queued = (
        "SELECT * FROM jobs AS j WHERE j.status IN ('queued', 'running') AND j.status = 'queued' AND j.not_before <= ? "
        "AND NOT EXISTS (SELECT 1 FROM jobs AS r WHERE r.status = 'running' AND r.video_id = j.video_id) "
        "ORDER BY j.number LIMIT 1"
    )
    return running + tx.rows(queued, tx.now_s)


def heartbeat(
    tx: Transaction, job: Job, lease_s: float, stage: JobStage, progress: JobProgress, worked_s: float = 0.0
) -> Job:
    """Renew the lease and store the progress; the returned job shows a cancel request. Raises: JobLost.

    The first report after probing settles since when the job's speed is measured. worked_s: how long ago probing ended.
    """
    held = require_owned(tx, job)
    working_since = tx.now_s - worked_s if held.stage == "probe" != stage else held.working_since
    tx.change(
        f"UPDATE jobs SET lease_expires_at = ?, stage = ?, working_since = ?, updated_at = ?, {PROGRESS_COLUMNS} "
        "WHERE id = ?",
        *(tx.now_s + lease_s, stage, working_since, tx.now_s),
        *(*astuple(progress), job.id),
    )
    return get_job(tx, job.id)


def publish(
    tx: Transaction,
    job: Job,
    media: MediaInfo,
    segments: Sequence[SegmentFeatures],
    fingerprint: str,
    sampling: Sampling = "exact",
) -> None:
    """Write the features, set the video to ready and end the job as succeeded. sampling: which frames were read.

    Raises: JobLost, ModelMismatch (also before a model is bound), ShapeError, ModelError for NaN.
    """
    spec = require_bound(tx)
    held = require_owned(tx, job)
    check_features(segments, spec, fingerprint)
    replace_segments(tx, held.video_id, segments, fingerprint)
    seq = tx.next_seq()
    tx.change(
        "UPDATE videos SET status = 'ready', seq = ?, features_seq = ?, indexed_at = ?, num_segments = ?, "
        "error_code = NULL, error_message = NULL, duration_s = ?, fps = ?, width = ?, height = ?, rotation_deg = ?, "
        "codec = ?, container = ?, has_audio = ?, sampling = ? WHERE id = ?",
        *(seq, seq, tx.now_s, len(segments)),
        *(media.duration_s, media.fps, media.width, media.height, media.rotation_deg),
        *(storable_line(media.codec), storable_line(media.container), int(media.has_audio), sampling, held.video_id),
    )
    progress = JobProgress(
        segments_done=len(segments),
        segments_total=len(segments),
        frames_done=sum(len(segment.times_s) for segment in segments),
        seconds_done=media.duration_s,
        seconds_total=media.duration_s,
    )
    tx.change(f"UPDATE jobs SET updated_at = ?, {PROGRESS_COLUMNS} WHERE id = ?", tx.now_s, *astuple(progress), job.id)
    _end(tx, job, "succeeded", "done", None, None)


def fail(tx: Transaction, job: Job, error_code: str, error_message: str, retry: bool) -> None:
    """End a failed attempt: queue the job again after a pause if allowed, else fail it. Raises: JobLost."""
    held = require_owned(tx, job)
    if held.is_cancel_requested:
        _end_cancelled(tx, held)
    elif retry and may_try_again(held):
        tx.change(
            "UPDATE jobs SET status = 'queued', stage = 'queued', owner = NULL, lease_expires_at = NULL, "
            f"not_before = ?, error_code = ?, error_message = ?, {PROGRESS_COLUMNS} WHERE id = ?",
            *(tx.now_s + backoff_s(held.attempt), error_code, storable_line(error_message)),
            *(*astuple(JobProgress()), held.id),
        )
    else:
        _end_failed(tx, held, error_code, error_message)


def end_cancelled(tx: Transaction, job: Job) -> None:
    """End a job whose worker has stopped because of a cancel request. Raises: JobLost."""
    _end_cancelled(tx, require_owned(tx, job))


def release(tx: Transaction, job: Job) -> None:
    """Give back the job of a worker that stops; the attempt does not count. Raises: JobLost."""
    held = require_owned(tx, job)
    if held.is_cancel_requested:
        _end_cancelled(tx, held)
        return
    tx.change(
        "UPDATE jobs SET status = 'queued', stage = 'queued', owner = NULL, lease_expires_at = NULL, not_before = ?, "
        f"max_attempts = max_attempts + 1, {PROGRESS_COLUMNS} WHERE id = ?",
        *(tx.now_s, *astuple(JobProgress()), held.id),
    )


def cancel(tx: Transaction, job_id: str) -> Job:
    """Cancel a queued job now, ask the worker of a running one to stop. Raises: NotFound, JobConflict."""
    job = get_job(tx, job_id)
    require_transition(job, "cancelled", "cancel")
    if job.status == "queued":
        _end_cancelled(tx, job)
    else:
        tx.change("UPDATE jobs SET is_cancel_requested = 1 WHERE id = ?", job.id)
    return get_job(tx, job.id)


def retry(tx: Transaction, job_id: str) -> Job:
    """Queue a failed or cancelled job again with as many attempts as it had. Raises: NotFound, JobConflict."""
    job = get_job(tx, job_id)
    if job.status not in ("failed", "cancelled"):
        raise JobConflict(f"Can't retry job {job.id}: it is {job.status}.")
    video = tx.row("SELECT num_segments, removed_at FROM videos WHERE id = ?", job.video_id)
    if video is None or video["removed_at"] is not None:
        raise JobConflict(f"Can't retry job {job.id}: its video was removed.")
    other = tx.row("SELECT id FROM jobs WHERE video_id = ? AND status IN ('queued', 'running')", job.video_id)
    if other is not None:
        raise JobConflict(f"Can't retry job {job.id}: job {other['id']} of the same video is open.")
    tx.change(
        "UPDATE jobs SET status = 'queued', stage = 'queued', not_before = ?, max_attempts = attempt + max_attempts, "
        "is_cancel_requested = 0, finished_at = NULL, error_code = NULL, error_message = NULL, owner = NULL, "
        f"lease_expires_at = NULL, {PROGRESS_COLUMNS} WHERE id = ?",
        *(tx.now_s, *astuple(JobProgress()), job.id),
    )
    if not video["num_segments"]:
        tx.change(
            "UPDATE videos SET status = 'pending', error_code = NULL, error_message = NULL WHERE id = ?", job.video_id
        )
    return get_job(tx, job.id)


def cancel_jobs_of(tx: Transaction, video_id: str) -> None:
    """End the open jobs of a video that is being removed; their worker gets JobLost."""
    for row in tx.rows("SELECT * FROM jobs WHERE video_id = ? AND status IN ('queued', 'running')", video_id):
        _end(tx, job_of(row), "cancelled", "done", CANCELLED[0], "Its video was removed.")


def require_owned(tx: Transaction, job: Job) -> Job:
    """The job as it is now. Raises: JobLost unless it is running with this owner and attempt."""
    row = tx.row("SELECT * FROM jobs WHERE id = ?", known_id("job", job.id))
    if row is not None and (row["status"], row["owner"], row["attempt"]) == ("running", job.owner, job.attempt):
        return job_of(row)
    now = "is gone" if row is None else f"is {row['status']} in attempt {row['attempt']}"
    raise JobLost(f"Job {job.id} {now}; {job.owner} held attempt {job.attempt}.")


def _end_cancelled(tx: Transaction, job: Job) -> None:
    _end(tx, job, "cancelled", "done", *CANCELLED)
    _mark_video_failed(tx, job.video_id, *CANCELLED)


def _end_failed(tx: Transaction, job: Job, error_code: str, error_message: str) -> None:
    _end(tx, job, "failed", "done", error_code, error_message)
    _mark_video_failed(tx, job.video_id, error_code, error_message)


def _end(
    tx: Transaction, job: Job, status: JobStatus, stage: JobStage, error_code: str | None, error_message: str | None
) -> None:
    tx.change(
        "UPDATE jobs SET status = ?, stage = ?, finished_at = ?, error_code = ?, error_message = ?, owner = NULL, "
        "lease_expires_at = NULL WHERE id = ?",
        *(status, stage, tx.now_s, error_code, storable_line(error_message) if error_message else error_message),
        job.id,
    )


def _mark_video_failed(tx: Transaction, video_id: str, error_code: str, error_message: str) -> None:
    """Mark a video failed, with the reason, unless it has features or another open job."""
    tx.change(
        "UPDATE videos SET status = 'failed', error_code = ?, error_message = ? "
        "WHERE id = ? AND num_segments = 0 AND removed_at IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM jobs WHERE video_id = videos.id AND status IN ('queued', 'running'))",
        *(error_code, storable_line(error_message), video_id),
    )
