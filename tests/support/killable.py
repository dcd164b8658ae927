"""Processes to be killed in tests. Forked from a server that has imported everything, so that each starts at once.

Every function here is the main function of a child: it takes plain values, and is ended by SIGKILL at any moment.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from indexer.catalogue.videos import NewVideo
from indexer.indexing.pipeline import PipelineConfig
from indexer.indexing.worker import Worker, WorkerConfig
from indexer.media.sandbox import DecodeSandbox
from indexer.records import Frames
from tests.support.catalogues import Catalogue, add
from tests.support.fake_sandbox import FakeSandbox
from tests.support.fakes import FakeModel

MAX_SEGMENT_S = 2.0
LEASE_S = 0.5

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.support.killable"])


def start(main: Callable[..., None], *arguments: object) -> BaseProcess:
    """A child that runs main(*arguments)."""
    process = _context.Process(target=main, args=arguments)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """kill -9, and wait until it is gone."""
    process.kill()
    process.join()
    process.close()


def add_file(catalogue: Catalogue, path: Path, max_attempts: int) -> str:
    """Add a file by its content; gives the video's id."""
    content = path.read_bytes()
    new = NewVideo(path, hashlib.sha256(content).hexdigest(), len(content), path.name)
    return str(catalogue.add_video(new, "skip", max_attempts).video_id)


class UnhurriedSandbox(DecodeSandbox):
    """The real one, a tenth of a second late with every stretch: a kill soon after a claim finds the job at work."""

    def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
        time.sleep(0.1)
        return super().read_frames(path, instants_s, *given, **named)


def sandbox(delay_s: float | None) -> FakeSandbox | DecodeSandbox:
    """The fake one with that delay, or the real one."""
    return UnhurriedSandbox() if delay_s is None else FakeSandbox(delay_s)


def pipeline_config() -> PipelineConfig:
    """Small segments, one by one: many moments at which to be killed."""
    return PipelineConfig(max_segment_s=MAX_SEGMENT_S, batch_segments=1)


def work(catalogue_path: Path, delay_s: float | None) -> None:
    """A worker with several jobs in hand, until none is open. delay_s: of the fake sandbox; None: the real one."""
    with Catalogue(catalogue_path) as catalogue, sandbox(delay_s) as one, sandbox(delay_s) as other:
        stop = threading.Event()

        def wait(seconds: float) -> None:
            if not has_open_jobs(catalogue):
                stop.set()
            time.sleep(seconds)

        config = WorkerConfig(lease_s=LEASE_S, heartbeat_s=LEASE_S / 5, poll_s=0.02, pipeline=pipeline_config())
        Worker(catalogue, [one, other], FakeModel(), config, wait=wait).run(stop)


def add_many(catalogue_path: Path, acknowledged: Path, first: int, num: int) -> None:
    """Add videos one by one; a line is written for each that was acknowledged."""
    with Catalogue(catalogue_path) as catalogue, acknowledged.open("ab", buffering=0) as file:
        for n in range(first, first + num):
            added = add(catalogue, f"video {n}", metadata={"n": n, "text": "x" * 500})
            os.write(file.fileno(), f"{added.video_id} {added.job_id}\n".encode())


def has_open_jobs(catalogue: Catalogue) -> bool:
    """True while some job is queued or running."""
    counts = catalogue.count_jobs()
    return bool(counts["queued"] + counts["running"])
