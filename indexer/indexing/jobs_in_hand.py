"""The jobs that a worker holds: claimed, given to the pipeline, and settled in the catalogue, however they end.

It knows jobs and tasks; it knows no decoder and no model.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from indexer.catalogue import jobs, videos
from indexer.catalogue.database import Database
from indexer.catalogue.rows import Transaction
from indexer.errors import CatalogueBusy, JobLost, MediaError, ModelMismatch, SandboxClosed
from indexer.indexing.leases import CancelRequested, Leases
from indexer.indexing.pipeline import Pipeline
from indexer.indexing.task import VideoTask
from indexer.records import Job, Sampling
from model.errors import VidgrainError

log = logging.getLogger("vidgrain.worker")


@dataclass(frozen=True, slots=True)
class _InHand:
    job: Job
    began_s: float


class _MustBeAlone(Exception):
    """Rolls back the claim of a job that must be alone while others are in work."""


class JobsInHand:
    """Used by the one thread of a worker."""

    def __init__(
        self,
        database: Database,
        pipeline: Pipeline,
        leases: Leases,
        *,
        owner: str,
        fingerprint: str,
        sampling: Sampling,
        lease_s: float,
        max_jobs: int,
        on_published: Callable[[], object] | None = None,
    ) -> None:
        """fingerprint: the model's. sampling: which frames the pipeline reads. max_jobs: jobs held at the same time.
        on_published: called after each success."""
        self._database = database
        self._pipeline = pipeline
        self._leases = leases
        self._owner = owner
        self._fingerprint = fingerprint
        self._sampling = sampling
        self._lease_s = lease_s
        self._max_jobs = max_jobs
        self._on_published = on_published
        self._working: dict[VideoTask, _InHand] = {}
        self._unsettled: VideoTask | None = None
        self._is_draining = False
        """Whether a job that must be alone waits in the queue until no other is in work."""

    @property
    def is_empty(self) -> bool:
        """Whether no job is held."""
        return not self._working

    def claim(self) -> None:
        """Take jobs that are due until the hands are full. Raises: CatalogueBusy, StorageFull, CatalogueUnreadable.

        A job in its last attempt is worked on alone, and stays in the queue until no other is in work. Where a video
        makes workers die, that attempt is the last for it only; where another was to blame, the job has an attempt of
        its own.
        """
        while self._has_room():
            with self._database.read() as tx:  # an idle worker looks often, and must not queue for the lock of a write
                if not jobs.has_claimable(tx):
                    return
            try:
                with self._database.write() as tx:
                    self._leases.renew(tx)  # after a pause of the whole machine, own jobs must not look abandoned
                    job = jobs.claim(tx, self._owner, self._lease_s)
                    video = None if job is None else videos.get(tx, job.video_id)
                    if job is not None and self._working and _is_last_attempt(job):
                        raise _MustBeAlone
            except _MustBeAlone:
                self._is_draining = True
                return
            if job is None or video is None:
                return
            _log("job_claimed", job)
            task = VideoTask(video)
            self._working[task] = _InHand(job, time.monotonic())
            self._leases.hold(job, task.progress, functools.partial(self._pipeline.fail, task))
            self._pipeline.submit(task)

    def _has_room(self) -> bool:
        """Whether one more job may be claimed."""
        if not self._working:
            self._is_draining = False
            return True
        is_alone = any(_is_last_attempt(held.job) for held in self._working.values())
        return not is_alone and not self._is_draining and len(self._working) < self._max_jobs

    def settle_next(self, timeout_s: float) -> Job | None:
        """Wait for a task to end, and record what became of its job; returns the job as it then is.

        None if nothing has ended in time. Raises: CatalogueBusy (the next call tries again), CatalogueUnreadable.
        """
        task = self._unsettled or self._pipeline.next_ended(timeout_s)
        if task is None:
            return None
        held, self._unsettled = self._working[task], task
        try:
            self._settle(held.job, task)
        except JobLost as error:
            _log("job_lost", held.job, error_message=str(error))
        self._forget(task)
        with self._database.read() as tx:
            after = jobs.get_job(tx, held.job.id)
        _log("job_left", after, took_ms=round(1000 * (time.monotonic() - held.began_s)))
        return after

    def give_back(self) -> None:
        """Queue again the jobs that are still held, in one transaction; their attempts don't count."""
        if not self._working:
            return
        held = [held.job for held in self._working.values()]
        for task in list(self._working):
            self._forget(task)
        lost: dict[str, JobLost] = {}
        try:
            with self._database.write() as tx:
                for job in held:
                    try:
                        jobs.release(tx, job)
                    except JobLost as error:
                        lost[job.id] = error
        except VidgrainError as error:  # the leases will run out
            for job in held:
                _log("job_not_released", job, error_message=str(error))
            return
        for job in held:
            if job.id in lost:
                _log("job_lost", job, error_message=str(lost[job.id]))
            else:
                _log("job_released", job)

    def _settle(self, job: Job, task: VideoTask) -> None:
        try:
            indexed = task.result()
            with self._database.write() as tx:
                jobs.publish(tx, job, indexed.media, indexed.segments, self._fingerprint, sampling=self._sampling)
            _log("job_succeeded", job, num_segments=len(indexed.segments), video_s=round(indexed.media.duration_s, 3))
            if self._on_published is not None:
                self._on_published()
        except CancelRequested:
            self._write(lambda tx: jobs.end_cancelled(tx, job))
            _log("job_cancelled", job)
        except SandboxClosed:
            self._write(lambda tx: jobs.release(tx, job))
            _log("job_released", job)
        except (JobLost, CatalogueBusy):
            raise
        except (MediaError, ModelMismatch) as error:
            self._fail(job, error.code, _reason(error), retry=error.is_retryable)
        except VidgrainError as error:
            self._fail(job, error.code, _reason(error), retry=True)
        except Exception as error:
            log.exception("job_raised", extra=_about(job))
            self._fail(job, "internal", _reason(error), retry=True)

    def _fail(self, job: Job, error_code: str, error_message: str, retry: bool) -> None:
        self._write(lambda tx: jobs.fail(tx, job, error_code, error_message, retry))
        _log("job_failed", job, error_code=error_code, error_message=error_message)

    def _write(self, change: Callable[[Transaction], object]) -> None:
        with self._database.write() as tx:
            change(tx)

    def _forget(self, task: VideoTask) -> None:
        self._leases.drop(self._working.pop(task).job)
        self._unsettled = None


def _is_last_attempt(job: Job) -> bool:
    return 1 < job.max_attempts <= job.attempt


def _reason(error: Exception) -> str:
    """Why a job failed, for its row: without the path, since the job belongs to a video and others read it."""
    if isinstance(error, VidgrainError):
        return f"{error.message} {error.hint}".strip()
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def _log(event: str, job: Job, **more: object) -> None:
    log.info(event, extra=_about(job) | more)


def _about(job: Job) -> dict[str, object]:
    return {
        "job_id": job.id,
        "video_id": job.video_id,
        "attempt": job.attempt,
        "status": job.status,
        "owner": job.owner,
    }
