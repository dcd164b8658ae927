"""`vidgrain index`: finds video files, adds them, shows the progress of their jobs, and reports which failed and why.

The worker runs in a thread of this process. A worker of a running server may take some of the jobs: jobs are leased, so
each is done once, and this command waits for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from indexer.catalogue.rows import storable
from model.errors import VidgrainError
from service.cli.printing import stderr
from service.cli.progress import Pace, Standing, display_on
from service.responses.parts import Reason

if TYPE_CHECKING:
    from indexer.index import VideoIndex
    from indexer.records import Job

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts"),
        *("mts", "wmv", "flv", "3gp", "ogv", "gif", "vob", "mxf"),
    )
)
"""Files with these suffixes are taken from a folder; a file named on the command line may have any name."""

_POLL_S = 0.1
_LOOKED_AT = 100
_ENDED = {"succeeded", "failed", "cancelled"}


class FailedFile(BaseModel):
    """A file that could not be indexed."""

    path: str
    error: Reason

    def __str__(self) -> str:
        return f"{self.path}: {self.error.code}: {self.error.message}"


class IndexReport(BaseModel):
    """What became of each file; counts of files."""

    indexed: int = 0
    already_there: int = 0
    waiting: int = 0
    """Left in the queue by an interruption."""

    failed: list[FailedFile] = []
    took_s: float = 0.0

    def add_failure(self, path: Path, code: str, message: str) -> None:
        """Note a file that failed and why."""
        self.failed.append(FailedFile(path=storable(str(path)), error=Reason(code=code, message=message)))


def find_videos(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as named, and below each folder the files with a video's suffix in order of name; hidden ones left out."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for found in sorted(path.rglob("*")):
            is_hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
            if found.suffix.lower() in VIDEO_SUFFIXES and not is_hidden and found.is_file():
                yield found


def index_files(
    index: VideoIndex, files: Sequence[Path], *, titles: Sequence[str] | None = None, retry_failed: bool = False
) -> IndexReport:
    """Add the files and work until each one's job has ended. Ctrl-C: stops, the rest stays queued; the index decodes
    nothing more.

    titles: one per file, instead of the file's name. retry_failed: a content that failed before is tried again.
    """
    work = _Work(index, files, retry_failed)
    began_s = time.monotonic()
    stop = threading.Event()
    runner = _Runner(index, stop)
    try:
        with display_on(stderr) as display:
            pace = Pace(display.every_s)
            runner.start()
            for number, path in enumerate(files):
                runner.check()
                work.add(path, titles[number] if titles is not None else None)
                work.collect()
                if pace.is_due():
                    display.show(work.standing())
            while work.pending:
                runner.check()
                work.collect()
                if pace.is_due():
                    display.show(work.standing())
                time.sleep(_POLL_S)
            display.show(work.standing())
    except KeyboardInterrupt:
        stop.set()
        index.stop_decoding()  # a segment of a large video can take many seconds
        work.report.waiting = len(work.pending)
        stderr.print(
            f"stopped; still queued: {len(work.pending)} of the added files. What was indexed is kept. "
            "To continue, run the same command again or start `vidgrain worker`."
        )
    finally:
        stop.set()
        runner.join()
        work.report.took_s = round(time.monotonic() - began_s, 3)
    return work.report


class _Work:
    """The files of one command: those still to be added, those with a job to wait for, and what became of the rest."""

    def __init__(self, index: VideoIndex, files: Sequence[Path], retry_failed: bool) -> None:
        self.report = IndexReport()
        self.pending: dict[str, Path] = {}
        """The files with a job to wait for, by the job's id, in the order in which they were added."""
        self._index = index
        self._retry_failed = retry_failed
        self._total = len(files)
        self._num_added = 0
        self._bytes_to_add = sum(_size_bytes(path) for path in files)
        self._running: list[Job] = []

    def add(self, path: Path, title: str | None) -> None:
        """Add the next file; it is pending from now on, or its outcome is in the report."""
        try:
            self._add(path, title)
        except VidgrainError as error:
            self.report.add_failure(path, error.code, error.message)
        except OSError as error:
            self.report.add_failure(path, "file_unreadable", error.strerror or str(error))
        self._num_added += 1
        self._bytes_to_add -= _size_bytes(path)

    def _add(self, path: Path, title: str | None) -> None:
        result = self._index.add(path.resolve(), title=title)
        if not result.is_duplicate:
            self.pending[result.job_id] = path
        elif result.job_id in self.pending:
            self.report.already_there += 1
        else:
            job = self._index.job(result.job_id)
            if self._retry_failed and job.status in {"failed", "cancelled"}:
                job = self._index.retry_job(job.id)
            if job.status in _ENDED:
                self._settle(job, path, was_known=True)
            else:
                self.pending[job.id] = path

    def collect(self) -> None:
        """Move ended jobs from pending into the report. Jobs end about in their order: the oldest are looked at."""
        oldest = list(islice(self.pending, _LOOKED_AT))
        found, _ = self._index.jobs(ids=oldest, limit=_LOOKED_AT)
        for job in found:
            if job.status in _ENDED:
                self._settle(job, self.pending.pop(job.id), was_known=False)
        self._running = [job for job in reversed(found) if job.status == "running"]

    def _settle(self, job: Job, path: Path, *, was_known: bool) -> None:
        if job.status == "failed":
            self.report.add_failure(path, job.error_code or "internal", job.error_message or "")
        elif job.status == "cancelled":
            self.report.add_failure(path, "job_cancelled", "The job was cancelled.")
        elif was_known:
            self.report.already_there += 1
        else:
            self.report.indexed += 1

    def standing(self) -> Standing:
        """Where the command is now."""
        return Standing(
            total=self._total,
            settled=self._num_added - len(self.pending),
            failed=len(self.report.failed),
            in_work=[(self.pending[job.id].name, job) for job in self._running],
            queue=self._index.queue(),
            bytes_to_add=max(0, self._bytes_to_add),
        )


class _Runner(threading.Thread):
    """Runs the worker in a thread; `check` raises what ended it early."""

    def __init__(self, index: VideoIndex, stop: threading.Event) -> None:
        super().__init__(name="indexing", daemon=True)
        self._worker = index.worker()
        self._stop_event = stop
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._worker.run(self._stop_event)
        except BaseException as error:  # raised by `check`
            self._error = error

    def check(self) -> None:
        if self._error is not None:
            raise self._error
        if not self.is_alive():
            raise RuntimeError("the worker's thread ended early")


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
