"""`vidgrain index`: finds video files, adds them, shows the progress of their jobs, and reports which failed and why.

The worker runs in a thread of this process. A worker of a running server may take some of the jobs: jobs are leased, so
each is done once, and this command waits for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from indexer.catalogue.rows import storable
from model.errors import VidgrainError
from service.cli.printing import stderr
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
    """Add the files and work until each one's job has ended. Ctrl-C: stops, the rest stays queued.

    titles: one per file, instead of the file's name. retry_failed: a content that failed before is tried again.
    """
    report = IndexReport()
    began_s = time.monotonic()
    stop = threading.Event()
    runner = _Runner(index, stop)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        transient=False,
    )
    pending: dict[str, Path] = {}
    try:
        with bar:
            task = bar.add_task("indexing", total=len(files))
            runner.start()
            for number, path in enumerate(files):
                title = titles[number] if titles is not None else None
                if not _add(index, path, title, retry_failed, pending, report):
                    bar.advance(task)
                _collect(index, pending, report, lambda: bar.advance(task), limit=8)
            while pending:
                runner.check()
                _collect(index, pending, report, lambda: bar.advance(task))
                bar.update(task, description=_describe(index, pending))
                time.sleep(_POLL_S)
            bar.update(task, description="indexed")
    except KeyboardInterrupt:
        report.waiting = len(pending)
        stderr.print(
            f"stopped; {len(pending)} added files are still queued, and what was indexed is kept. "
            "To continue, run the same command again or start `vidgrain worker`."
        )
    finally:
        stop.set()
        runner.join()
        report.took_s = round(time.monotonic() - began_s, 3)
    return report


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


def _add(
    index: VideoIndex, path: Path, title: str | None, retry_failed: bool, pending: dict[str, Path], report: IndexReport
) -> bool:
    """Add one file; whether there is a job to wait for."""
    try:
        result = index.add(path.resolve(), title=title)
        if not result.is_duplicate:
            pending[result.job_id] = path
            return True
        if result.job_id in pending:
            report.already_there += 1
            return False
        job = index.job(result.job_id)
        if retry_failed and job.status in {"failed", "cancelled"}:
            job = index.retry_job(job.id)
        if job.status in _ENDED:
            _settle(job, path, report, was_known=True)
            return False
        pending[job.id] = path
        return True
    except VidgrainError as error:
        report.add_failure(path, error.code, error.message)
    except OSError as error:
        report.add_failure(path, "file_unreadable", error.strerror or str(error))
    return False


def _collect(
    index: VideoIndex, pending: dict[str, Path], report: IndexReport, advance: Any, limit: int | None = None
) -> None:
    """Move ended jobs from pending into the report; limit: look at so many of the oldest only."""
    for job_id in list(pending)[:limit]:
        job = index.job(job_id)
        if job.status in _ENDED:
            _settle(job, pending.pop(job_id), report, was_known=False)
            advance()


def _settle(job: Job, path: Path, report: IndexReport, *, was_known: bool) -> None:
    if job.status == "failed":
        report.add_failure(path, job.error_code or "internal", job.error_message or "")
    elif job.status == "cancelled":
        report.add_failure(path, "job_cancelled", "The job was cancelled.")
    elif was_known:
        report.already_there += 1
    else:
        report.indexed += 1


def _describe(index: VideoIndex, pending: dict[str, Path]) -> str:
    for job_id in list(pending)[:4]:
        job = index.job(job_id)
        if job.status == "running":
            part = (
                f" {job.progress.segments_done}/{job.progress.segments_total}"
                if job.progress.segments_total > 1
                else ""
            )
            return f"indexing {pending[job_id].name[:40]}{part}"
    return "indexing"
