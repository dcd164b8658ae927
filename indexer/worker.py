"""The worker: takes jobs one by one, holds their leases, publishes features. Knows no decoder, no SQL and no vectors.

A job is held by a lease that a thread renews. A worker that loses it drops the work, for the catalogue accepts results
from the holder only. Media errors are final; all others are tried again with growing pauses.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from indexer import defaults
from indexer.catalogue import bound_model, jobs, videos
from indexer.catalogue.database import Database
from indexer.errors import CatalogueBusy, JobLost, MediaError, ModelMismatch, SandboxClosed, StorageFull
from indexer.pipeline import FrameSource, PipelineConfig, index_video
from indexer.records import Job, JobProgress, JobStage
from model.errors import VidgrainError
from model.types import VideoTextModel

log = logging.getLogger("vidgrain.worker")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker holds jobs."""

    lease_s: float = defaults.LEASE_S
    """After this silence another worker may take the job."""
    heartbeat_s: float = defaults.LEASE_S / defaults.HEARTBEATS_PER_LEASE
    """How often the lease is renewed; well below lease_s."""
    poll_s: float = 0.5
    """Pause between looks at an empty queue."""
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)


class Worker:
    """Works on the jobs of one catalogue with one model. One thread calls run or run_once."""

    def __init__(
        self,
        database: Database,
        sandbox: FrameSource,
        model: VideoTextModel,
        config: WorkerConfig | None = None,
        *,
        owner: str | None = None,
        wait: Callable[[float], object] | None = None,
        on_published: Callable[[], object] | None = None,
    ) -> None:
        """owner: a name that no other worker has, made up by default. wait: called with the seconds to wait while there
        is no work (default: wait for `stop`). on_published: called after each video that became searchable.

        Raises: ModelMismatch if the catalogue belongs to another model.
        """
        self._database = database
        self._sandbox = sandbox
        self._model = model
        self._config = config or WorkerConfig()
        self.owner = owner or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._wait = wait
        self._on_published = on_published
        with database.write() as tx:
            bound_model.bind(tx, model.spec)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a job in hand is then given back. Raises: CatalogueUnreadable."""
        wait = self._wait or stop.wait
        log.info("worker_started", extra={"owner": self.owner})
        while not stop.is_set():
            try:
                job = self.run_once(stop)
                is_idle = job is None or job.status == "queued"
            except (CatalogueBusy, StorageFull) as error:
                log.warning("catalogue_unavailable", extra={"error_code": error.code, "error_message": str(error)})
                is_idle = True
            if is_idle and not stop.is_set():
                wait(self._config.poll_s)
        log.info("worker_stopped", extra={"owner": self.owner})

    def run_once(self, stop: threading.Event | None = None) -> Job | None:
        """Take one job and bring it to an end; returns the job as it then is, or None if none was due.

        Raises: CatalogueBusy, StorageFull, CatalogueUnreadable; a job in hand is taken up again once its lease is over.
        """
        job = self._claim()
        if job is None:
            return None
        started = time.monotonic()
        self._log("job_claimed", job)
        try:
            self._work(job, stop or threading.Event())
        except JobLost as error:
            self._log("job_lost", job, error_message=str(error))
        with self._database.read() as tx:
            after = jobs.get_job(tx, job.id)
        self._log("job_left", after, took_ms=round(1000 * (time.monotonic() - started)))
        return after

    def _claim(self) -> Job | None:
        with self._database.read() as tx:  # an idle worker looks often, and must not queue for the lock of a write
            if not jobs.has_claimable(tx):
                return None
        with self._database.write() as tx:
            return jobs.claim(tx, self.owner, self._config.lease_s)

    def _work(self, job: Job, stop: threading.Event) -> None:
        try:
            with self._lease(job, stop) as lease:
                with self._database.read() as tx:
                    video = videos.get(tx, job.video_id)
                indexed = index_video(video, self._sandbox, self._model, self._config.pipeline, lease.report)
                with self._database.write() as tx:
                    jobs.publish(tx, job, indexed.media, indexed.segments, self._model.spec.fingerprint)
            self._log("job_succeeded", job, num_segments=len(indexed.segments))
            if self._on_published is not None:
                self._on_published()
        except _CancelRequested:
            with self._database.write() as tx:
                jobs.end_cancelled(tx, job)
            self._log("job_cancelled", job)
        except (_StopRequested, SandboxClosed, KeyboardInterrupt, SystemExit) as reason:
            with self._database.write() as tx:
                jobs.release(tx, job)
            self._log("job_released", job)
            if isinstance(reason, KeyboardInterrupt | SystemExit):
                raise
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
        with self._database.write() as tx:
            jobs.fail(tx, job, error_code, error_message, retry)
        self._log("job_failed", job, error_code=error_code, error_message=error_message)

    @contextmanager
    def _lease(self, job: Job, stop: threading.Event) -> Iterator[_Lease]:
        """Hold the job's lease while the block runs."""
        lease = _Lease(self._database, job, self._config, stop)
        lease.start()
        try:
            yield lease
        finally:
            lease.end()

    def _log(self, event: str, job: Job, **more: object) -> None:
        log.info(event, extra=_about(job) | more)


class _CancelRequested(Exception):
    """A person wants the job to end."""


class _StopRequested(Exception):
    """The worker is to stop."""


class _Lease:
    """Renews a job's lease in a thread and whenever there is progress; stops the work when it should end."""

    def __init__(self, database: Database, job: Job, config: WorkerConfig, stop: threading.Event) -> None:
        self._database = database
        self._job = job
        self._config = config
        self._stop = stop
        self._progress: tuple[JobStage, JobProgress] = "probe", JobProgress()
        self._lost: JobLost | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def report(self, stage: JobStage, done: int, total: int) -> None:
        """Between two steps of the work. Raises: JobLost, _CancelRequested, _StopRequested."""
        self._progress = stage, JobProgress(segments_done=done, segments_total=total)
        if self._lost is not None:
            raise self._lost
        if self._renew().is_cancel_requested:
            raise _CancelRequested
        if self._stop.is_set():
            raise _StopRequested

    def _renew(self) -> Job:
        with self._database.write() as tx:
            return jobs.heartbeat(tx, self._job, self._config.lease_s, *self._progress)

    def _beat(self) -> None:
        while not self._is_over.wait(self._config.heartbeat_s):
            try:
                self._renew()
            except JobLost as error:
                self._lost = error
                return
            except VidgrainError as error:  # the next beat may succeed; if none does, the lease runs out
                log.warning("heartbeat_failed", extra=_about(self._job) | {"error_message": str(error)})


def _reason(error: Exception) -> str:
    """Why a job failed, for its row: without the path, since the job belongs to a video and others read it."""
    if isinstance(error, VidgrainError):
        return f"{error.message} {error.hint}".strip()
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def _about(job: Job) -> dict[str, object]:
    return {
        "job_id": job.id,
        "video_id": job.video_id,
        "attempt": job.attempt,
        "status": job.status,
        "owner": job.owner,
    }
