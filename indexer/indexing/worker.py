"""The worker: takes jobs, several at a time, holds their leases and publishes what the pipeline makes of their videos.

A job is held by a lease that a thread renews. A worker that loses it drops the work, because the catalogue accepts
results from the holder only. Media errors are final; all others are tried again with growing pauses. It knows no
decoder and no vectors.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from indexer import defaults
from indexer.catalogue import bound_model
from indexer.catalogue.database import Database
from indexer.errors import CatalogueBusy, StorageFull
from indexer.indexing.jobs_in_hand import JobsInHand
from indexer.indexing.leases import Leases
from indexer.indexing.pipeline import Pipeline, PipelineConfig
from indexer.media.frame_source import ReleasableSource
from indexer.records import Job
from model.types import VideoTextModel

log = logging.getLogger("vidgrain.worker")

SPARE_JOBS = 2
"""Jobs held beside those that are being read: one waits for a free reader, one is being encoded."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker holds jobs."""

    lease_s: float = defaults.LEASE_S
    """After this silence another worker may take the job."""
    heartbeat_s: float = defaults.HEARTBEAT_S
    """How often leases are renewed and progress is stored; well below lease_s."""
    poll_s: float = 0.5
    """Pause between looks at an empty queue."""
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)


class Worker:
    """Works on the jobs of one catalogue with one model. One thread calls run or run_once."""

    def __init__(
        self,
        database: Database,
        sources: Sequence[ReleasableSource],
        model: VideoTextModel,
        config: WorkerConfig | None = None,
        *,
        owner: str | None = None,
        wait: Callable[[float], object] | None = None,
        on_published: Callable[[], object] | None = None,
    ) -> None:
        """sources: decode children; each reads one file at a time. owner: a name that no other worker has, made up by
        default. wait: called with the seconds to wait while there is no work (default: wait for `stop`). on_published:
        called after each video that became searchable.

        Raises: ModelMismatch if the catalogue belongs to another model.
        """
        self._database = database
        self._sources = sources
        self._model = model
        self._config = config or WorkerConfig()
        self.owner = owner or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._wait = wait
        self._on_published = on_published
        with database.write() as tx:
            bound_model.bind(tx, model.spec)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the jobs in hand are then given back. Raises: CatalogueUnreadable."""
        wait = self._wait or stop.wait
        poll_s = self._config.poll_s
        log.info("worker_started", extra={"owner": self.owner})
        with self._hands(len(self._sources) + SPARE_JOBS) as in_hand:
            while not stop.is_set():
                try:
                    in_hand.claim()
                    left = None if in_hand.is_empty else in_hand.settle_next(poll_s)
                    is_idle = in_hand.is_empty and (left is None or left.status == "queued")
                except (CatalogueBusy, StorageFull) as error:
                    log.warning("catalogue_unavailable", extra={"error_code": error.code, "error_message": str(error)})
                    is_idle = True
                if is_idle and not stop.is_set():
                    wait(poll_s)
        log.info("worker_stopped", extra={"owner": self.owner})

    def run_once(self) -> Job | None:
        """Take one job and bring it to an end; returns the job as it then is, or None if none was due.

        Raises: CatalogueBusy, StorageFull, CatalogueUnreadable; a job in hand is taken up again once its lease is over.
        """
        with self._hands(1) as in_hand:
            in_hand.claim()
            while not in_hand.is_empty:
                if (job := in_hand.settle_next(self._config.poll_s)) is not None:
                    return job
        return None

    @contextmanager
    def _hands(self, max_jobs: int) -> Iterator[JobsInHand]:
        """Everything that works, while the block runs; the jobs still in hand are given back at its end."""
        config = self._config
        with (
            Pipeline(self._sources, self._model, config.pipeline) as pipeline,
            Leases(self._database, config.lease_s, config.heartbeat_s) as leases,
        ):
            in_hand = JobsInHand(
                self._database,
                pipeline,
                leases,
                owner=self.owner,
                fingerprint=self._model.spec.fingerprint,
                sampling=config.pipeline.sampling,
                lease_s=config.lease_s,
                max_jobs=max_jobs,
                on_published=self._on_published,
            )
            try:
                yield in_hand
            finally:
                in_hand.give_back()
