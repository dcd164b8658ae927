"""The leases of all jobs in hand, renewed by one thread, with the progress of each. It knows no video."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from indexer.catalogue import jobs
from indexer.catalogue.database import Database
from indexer.catalogue.rows import Transaction
from indexer.errors import JobLost
from indexer.records import Job, JobProgress, JobStage

log = logging.getLogger("vidgrain.worker")


class CancelRequested(Exception):
    """Somebody asked for the job to be cancelled."""


Progress = Callable[[], tuple[JobStage, JobProgress, float]]
"""Where a job is, how far, and for how many seconds it has been read."""


@dataclass(frozen=True, slots=True)
class _Held:
    job: Job
    progress: Progress
    end: Callable[[Exception], None]


class Leases:
    """For use in one `with` block, during which the thread runs. Thread-safe."""

    def __init__(self, database: Database, lease_s: float, beat_s: float) -> None:
        """lease_s: what a renewal gives. beat_s: how often leases are renewed and progress is stored."""
        self._database = database
        self._lease_s = lease_s
        self._beat_s = beat_s
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Leases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def hold(self, job: Job, progress: Progress, end: Callable[[Exception], None]) -> None:
        """Renew the lease of a claimed job from now on.

        progress: how far it is. end: called once, from the thread, with JobLost or CancelRequested; the job is then no
        longer held.
        """
        with self._lock:
            self._held[job.id] = _Held(job, progress, end)

    def drop(self, job: Job) -> None:
        """Let a job's lease run out. Harmless when repeated."""
        with self._lock:
            if (each := self._held.get(job.id)) is not None and each.job.attempt == job.attempt:
                del self._held[job.id]

    def renew(self, tx: Transaction) -> list[tuple[_Held, Exception]]:
        """Renew all leases and store the progress of each job; returns the jobs that must end, and why."""
        ends: list[tuple[_Held, Exception]] = []
        for each in self._all():
            try:
                if jobs.heartbeat(tx, each.job, self._lease_s, *each.progress()).is_cancel_requested:
                    ends.append((each, CancelRequested()))
            except JobLost as error:
                ends.append((each, error))
        return ends

    def _all(self) -> list[_Held]:
        with self._lock:
            return list(self._held.values())

    def _run(self) -> None:
        while not self._is_over.wait(self._beat_s):
            try:
                self._beat()
            except Exception as error:  # the next beat may succeed; if none does, the leases run out
                log.warning("heartbeat_failed", extra={"num_jobs": len(self._all()), "error_message": str(error)})

    def _beat(self) -> None:
        if not self._all():
            return
        with self._database.write() as tx:
            ends = self.renew(tx)
        for each, reason in ends:
            with self._lock:
                is_held = self._held.get(each.job.id) is each
                if is_held:
                    del self._held[each.job.id]
            if is_held:
                each.end(reason)
