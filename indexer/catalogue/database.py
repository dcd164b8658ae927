"""SQLite's door: the one file DATA/catalogue.sqlite, the only truth of an index.

Opens connections, runs each verb in one transaction, and translates SQLite's errors into ours. What the verbs do is in
videos.py, segments.py and jobs.py; the tables are in schema.sql.

Safe for threads (each verb takes a connection of its own from a pool) and for processes (WAL, a write lock from the
start of each write). A commit is on the disk when it returns (synchronous=FULL). Knows no media, no FAISS and no HTTP.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue import bound_model as catalogue_model
from indexer.catalogue import jobs as catalogue_jobs
from indexer.catalogue import segments as catalogue_segments
from indexer.catalogue import videos as catalogue_videos
from indexer.catalogue.rows import Transaction, known_id
from indexer.errors import CatalogueBusy, CatalogueUnreadable, IndexerError, StorageFull
from indexer.records import (
    AddResult,
    Job,
    JobStage,
    JobStatus,
    MediaInfo,
    OnDuplicate,
    SegmentFeatures,
    StoredSegment,
    Video,
    VideoChange,
    VideoStatus,
)
from model.types import ModelSpec

SCHEMA_VERSION = 1
PAGE_BYTES = 16384
FREE_BYTES_OF_A_FULL_DISK = 2**20

__all__ = ["SCHEMA_VERSION", "Catalogue", "VideoChange"]


class Catalogue:
    """Videos, segments with features, jobs. Every verb may raise CatalogueUnreadable, CatalogueBusy and, if it writes,
    StorageFull; then nothing of it has happened."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, busy_timeout_s: float = 30.0) -> None:
        """Opens the file, creates it where absent. clock: UTC epoch seconds. busy_timeout_s: wait for other writers."""
        self._path = Path(path)
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._is_closed = False
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections; verbs in flight finish. Closing twice is fine."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The catalogue's file."""
        return self._path

    # ---- the model

    def bind_model(self, spec: ModelSpec) -> None:
        """The first call ties the data to this model. Raises: ModelMismatch if they belong to another."""
        with self._write() as tx:
            catalogue_model.bind(tx, spec, self._path.parent)

    def model(self) -> ModelSpec | None:
        """The model whose features these are; None before `bind_model`."""
        with self._read() as tx:
            return catalogue_model.bound(tx)

    # ---- videos

    def add_video(
        self,
        *,
        path: Path,
        sha256: str,
        size_bytes: int,
        title: str,
        metadata: Mapping[str, Any],
        is_managed: bool,
        on_duplicate: OnDuplicate,
        max_attempts: int = 3,
    ) -> AddResult:
        """A video's row and its job's in one transaction. The id is the first 16 hex digits of `sha256`.

        Of known content: "skip" gives the known video and its last job (and follows the file if it has moved; queues a
        job anew if it failed for a reason outside the content), "replace" takes the new title, metadata and path and
        queues a job while the old features stay searchable. Raises: DuplicateVideo of "error", InvalidMetadata.
        """
        new = catalogue_videos.NewVideo(path, known_id("hash", sha256), size_bytes, title, metadata, is_managed)
        with self._write() as tx:
            return catalogue_videos.add(tx, new, on_duplicate, max_attempts)

    def get_video(self, video_id: str) -> Video:
        """A live video. Raises: NotFound."""
        with self._read() as tx:
            return catalogue_videos.get(tx, video_id)

    def list_videos(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        filter: Mapping[str, Any] | None = None,
        status: VideoStatus | None = None,
    ) -> tuple[tuple[Video, ...], str | None]:
        """Newest first: 1..1000 videos, and the next page's cursor or None. Raises: InvalidFilter, InvalidQuery."""
        with self._read() as tx:
            return catalogue_videos.list_page(tx, limit, cursor, filter, status)

    def update_video(
        self, video_id: str, *, title: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Video:
        """Change the title, replace the metadata; None leaves as is. Raises: NotFound, InvalidMetadata."""
        with self._write() as tx:
            return catalogue_videos.update(tx, video_id, title, metadata)

    def remove_video(self, video_id: str) -> Video:
        """Remove a video, its features and its open jobs; gives it as it was. Raises: NotFound."""
        with self._write() as tx:
            return catalogue_videos.remove(tx, video_id)

    def live_videos(self, ids: Sequence[str]) -> dict[str, Video]:
        """Those of the ids that are videos, by id; unknown ones are left out."""
        with self._read() as tx:
            return catalogue_videos.live(tx, ids)

    def has_file(self, path: Path) -> bool:
        """Whether some video has this very path."""
        with self._read() as tx:
            return catalogue_videos.has_file(tx, path)

    def count(self) -> tuple[int, int]:
        """Ready videos, and their segments."""
        with self._read() as tx:
            return catalogue_videos.count_ready(tx)

    # ---- the change feed and the features

    def changes(self, after_seq: int, limit: int = 1000) -> tuple[VideoChange, ...]:
        """Videos changed after `after_seq` in order of seq, each once; without those that were never searchable."""
        with self._read() as tx:
            return catalogue_segments.changes_after(tx, after_seq, limit)

    def last_seq(self) -> int:
        """The change feed's newest number, 0 at first; it rises with every change of what a search may show."""
        with self._read() as tx:
            return tx.last_seq()

    def segments(self, video_id: str) -> tuple[StoredSegment, ...]:
        """A video's segments in order; () of a removed or pending one. Raises: CatalogueUnreadable of a damaged one."""
        with self._read() as tx:
            return catalogue_segments.read_segments(tx, known_id("video", video_id))

    def segment_ids(self, filter: Mapping[str, Any] | None, video_ids: Sequence[str] | None) -> NDArray[np.int64]:
        """Rising ids of the segments a search may return: of videos that pass the filter and are among video_ids."""
        with self._read() as tx:
            return catalogue_segments.searchable_ids(tx, filter, video_ids)

    # ---- jobs

    def claim_job(self, owner: str, lease_s: float, now_s: float | None = None) -> Job | None:
        """The oldest job that is due, or whose worker went silent, now running under `owner`; None if there is none."""
        with self._read() as tx:
            if not catalogue_jobs.has_claimable(tx, tx.now_s if now_s is None else now_s):
                return None
        with self._write() as tx:
            return catalogue_jobs.claim(tx, owner, lease_s, tx.now_s if now_s is None else now_s)

    def heartbeat(self, job: Job, lease_s: float, stage: JobStage, done: int, total: int) -> Job:
        """Renew the lease, tell the progress in segments; the answer shows a cancel request. Raises: JobLost."""
        with self._write() as tx:
            return catalogue_jobs.heartbeat(tx, job, lease_s, stage, done, total)

    def publish(self, job: Job, media: MediaInfo, segments: Sequence[SegmentFeatures], fingerprint: str) -> None:
        """Features written, video ready and job succeeded, all at once or not at all.

        Raises: JobLost, ModelMismatch (also before `bind_model`), ShapeError, ModelError for NaN.
        """
        with self._write() as tx:
            spec = catalogue_model.require_bound(tx)
            catalogue_jobs.publish(tx, job, media, segments, fingerprint, spec)

    def fail_job(self, job: Job, error_code: str, error_message: str, retry: bool) -> None:
        """The attempt failed. retry: queued again after a pause while attempts are left. Raises: JobLost."""
        with self._write() as tx:
            catalogue_jobs.fail(tx, job, error_code, error_message, retry)

    def end_cancelled(self, job: Job) -> None:
        """A worker's answer to a cancel request. Raises: JobLost."""
        with self._write() as tx:
            catalogue_jobs.end_cancelled(tx, job)

    def release_job(self, job: Job) -> None:
        """A worker that stops gives its job back to the queue; the attempt does not count. Raises: JobLost."""
        with self._write() as tx:
            catalogue_jobs.release(tx, job)

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a queued job, or ask a running one's worker to stop. Raises: NotFound, JobConflict."""
        with self._write() as tx:
            return catalogue_jobs.cancel(tx, job_id)

    def retry_job(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again. Raises: NotFound, JobConflict."""
        with self._write() as tx:
            return catalogue_jobs.retry(tx, job_id)

    def get_job(self, job_id: str) -> Job:
        """The job. Raises: NotFound."""
        with self._read() as tx:
            return catalogue_jobs.get_job(tx, job_id)

    def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        video_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[tuple[Job, ...], str | None]:
        """Newest first: 1..1000 jobs, and the next page's cursor or None. Raises: InvalidQuery."""
        with self._read() as tx:
            return catalogue_jobs.list_page(tx, status, video_id, limit, cursor)

    def count_jobs(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status."""
        with self._read() as tx:
            return catalogue_jobs.count_by_status(tx)

    # ---- connections and transactions

    def _read(self) -> AbstractContextManager[Transaction]:
        """One consistent look at the file, which no writer disturbs."""
        return self._transaction("BEGIN")

    def _write(self) -> AbstractContextManager[Transaction]:
        """All of it or nothing; other writers wait."""
        return self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        with self._translated():
            connection = self._take()
            try:
                connection.execute(begin)
                yield Transaction(connection.execute, self._clock())
                connection.execute("COMMIT")
            except sqlite3.Error:
                connection.close()  # rolls back; the next verb starts with a fresh connection
                raise
            except BaseException:
                connection.rollback()
                self._give_back(connection)
                raise
            self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise CatalogueUnreadable("The catalogue is closed.")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # counts only in a file still empty
            self._enter_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """SQLite does not wait for the lock that the change to WAL needs, so processes that start at once must."""
        give_up_at = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.01)

    def _prepare(self) -> None:
        """Create the tables in a new file, refuse one of another version."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogueUnreadable(f"The folder {self._path.parent} can't be made: {error.strerror}.") from error
        with self._read() as tx:
            version = _version(tx)
        if version == 0:
            with self._write() as tx:
                version = _version(tx)
                if version == 0:
                    if tx.row("SELECT 1 FROM sqlite_master"):
                        raise CatalogueUnreadable(f"{self._path} is an SQLite file, but no catalogue of Vidgrain.")
                    for statement in _schema_statements():
                        tx.change(statement)
                    tx.change(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    version = SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            raise CatalogueUnreadable(
                f"{self._path} has the format {version}; this program knows the format {SCHEMA_VERSION}.",
                "Use the newer version of Vidgrain that made it, or another data folder.",
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.Error) -> IndexerError:
        code = _primary(error)
        if code == sqlite3.SQLITE_FULL or (
            code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and self._is_disk_full()
        ):
            return StorageFull(
                f"No room left on the disk of {self._path}.", "Free some space; nothing accepted before is lost."
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return CatalogueBusy(
                f"Another process holds {self._path} for over {self._busy_timeout_s:g} s.", "Try again."
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return CatalogueUnreadable(
                f"{self._path} is damaged ({error}).", "Restore it from a backup, or index into another data folder."
            )
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            return CatalogueUnreadable(
                f"{self._path} can't be opened or written ({error}).", "Check that its folder may be written."
            )
        return IndexerError(f"The catalogue {self._path} refused a request ({type(error).__name__}: {error}).")

    def _is_disk_full(self) -> bool:
        try:
            return shutil.disk_usage(self._path.parent).free < FREE_BYTES_OF_A_FULL_DISK
        except OSError:
            return False


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code of an error, 0 where the Python layer raised it."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _version(tx: Transaction) -> int:
    return int(tx.rows("PRAGMA user_version")[0][0])


def _schema_statements() -> Iterator[str]:
    """The statements of schema.sql one by one: executescript would commit on its own."""
    text = resources.files("indexer.catalogue").joinpath("schema.sql").read_text(encoding="utf-8")
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
