"""Videos in the catalogue: added, listed, changed, removed. Every function takes an open transaction."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.catalogue.filters import compile_filter
from indexer.catalogue.jobs import cancel_jobs_of, insert_job, latest_job
from indexer.catalogue.rows import (
    Row,
    Transaction,
    checked_limit,
    cursor_of,
    known_id,
    metadata_json,
    not_found,
    place_of,
    storable_line,
    video_of,
)
from indexer.catalogue.segments import delete_segments
from indexer.errors import DuplicateVideo, FileMissing
from indexer.records import AddResult, OnDuplicate, Video, VideoStatus

ID_CHARS = 16

NOT_OF_THE_CONTENT = (
    "cancelled",
    "file_missing",
    "file_changed",
    "storage_full",
    "backend_missing",
    "model_mismatch",
    "worker_lost",
    "decode_interrupted",
)
"""Error codes that say nothing about the content: adding the same content again tries again."""


@dataclass(frozen=True, slots=True)
class NewVideo:
    """What is known about a file when it is added."""

    path: Path
    """Absolute; inside the data folder if the file is managed."""
    sha256: str
    size_bytes: int
    title: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_managed: bool = False
    """Whether the index owns the file and deletes it with the video."""
    mtime_ns: int | None = None
    """When the file was last changed before its content was hashed; None where that can't be relied on."""

    def columns(self, tx: Transaction) -> tuple[Any, ...]:
        """title, size_bytes, metadata, path, is_managed, mtime_ns as stored."""
        return storable_line(self.title), self.size_bytes, metadata_json(self.metadata), *self.place(tx)

    def place(self, tx: Transaction) -> tuple[bytes, int, int | None]:
        """path, is_managed, mtime_ns as stored.

        The path of a managed file is relative to the data folder, which may be moved or copied.
        """
        path = _path_bytes(self.path.relative_to(tx.folder) if self.is_managed else self.path)
        return path, int(self.is_managed), self.mtime_ns


def add(
    tx: Transaction,
    new: NewVideo,
    on_duplicate: OnDuplicate = "skip",
    max_attempts: int = 3,
    *,
    is_file_renewed: bool = False,
) -> AddResult:
    """Add a video with its job. The id is the first 16 hex digits of the content's SHA-256.

    If the content is known already, "skip" returns the known video and its last job; it takes the new path if the old
    file is gone, and queues a job again if the last one failed for a reason outside the content. "replace" takes the
    new title, metadata and path and queues a job; the old features stay searchable until it succeeds.
    is_file_renewed: the video's file has just replaced a damaged or missing one, so that an earlier failure says
    nothing about the content.
    Raises: DuplicateVideo for "error", InvalidMetadata, FileMissing for a path that no file can have.
    """
    known = tx.row("SELECT * FROM videos WHERE sha256 = ?", known_id("hash", new.sha256))
    if known is None:
        video_id = _insert(tx, new)
        return AddResult(video_id, insert_job(tx, video_id, max_attempts), is_duplicate=False)
    video_id = known["id"]
    if known["removed_at"] is not None:
        _overwrite(tx, video_id, new)
        tx.change(
            "UPDATE videos SET status = 'pending', created_at = ?, indexed_at = NULL, removed_at = NULL, "
            "error_code = NULL, error_message = NULL, duration_s = NULL WHERE id = ?",
            tx.now_s,
            video_id,
        )
        return AddResult(video_id, insert_job(tx, video_id, max_attempts), is_duplicate=False)
    if on_duplicate == "error":
        raise DuplicateVideo(f"The same content is in the index already, as video {video_id}.")
    if on_duplicate == "replace":
        _overwrite(tx, video_id, new)
        _publish_change(tx, known)
        return AddResult(video_id, _queue_again(tx, known, max_attempts), is_duplicate=True)
    is_gone = not (tx.folder / os.fsdecode(known["path"])).exists()
    is_to_try_again = known["status"] == "failed" and (is_file_renewed or known["error_code"] in NOT_OF_THE_CONTENT)
    if is_gone or is_file_renewed or is_to_try_again:
        _move(tx, video_id, new)
    if is_to_try_again:
        return AddResult(video_id, _queue_again(tx, known, max_attempts), is_duplicate=True)
    return AddResult(video_id, latest_job(tx, video_id).id, is_duplicate=True)


def get(tx: Transaction, video_id: str) -> Video:
    """A live video. Raises: NotFound."""
    return video_of(tx, _row(tx, video_id))


def list_page(
    tx: Transaction,
    *,
    limit: int = 50,
    cursor: str | None = None,
    filter: Mapping[str, Any] | None = None,
    status: VideoStatus | None = None,
) -> tuple[tuple[Video, ...], str | None]:
    """1..1000 live videos, newest first, and the cursor of the next page. Raises: InvalidFilter, InvalidQuery."""
    clause = compile_filter(filter)
    sql, parameters = f"SELECT * FROM videos AS v WHERE v.removed_at IS NULL AND {clause.sql}", [*clause.parameters]
    if status is not None:
        sql += " AND v.status = ?"
        parameters.append(status)
    if cursor is not None:
        sql += " AND (v.created_at, v.id) < (?, ?)"
        parameters += place_of(cursor, float, str)
    rows = tx.rows(f"{sql} ORDER BY v.created_at DESC, v.id DESC LIMIT ?", *parameters, checked_limit(limit) + 1)
    page = rows[:limit]
    following = cursor_of(page[-1]["created_at"], page[-1]["id"]) if len(rows) > limit else None
    return tuple(video_of(tx, row) for row in page), following


def update(
    tx: Transaction, video_id: str, *, title: str | None = None, metadata: Mapping[str, Any] | None = None
) -> Video:
    """Change the title, replace the metadata; None leaves as is. Raises: NotFound, InvalidMetadata."""
    row = _row(tx, video_id)
    if title is not None:
        tx.change("UPDATE videos SET title = ? WHERE id = ?", storable_line(title), row["id"])
    if metadata is not None:
        tx.change("UPDATE videos SET metadata = ? WHERE id = ?", metadata_json(metadata), row["id"])
    if title is not None or metadata is not None:
        _publish_change(tx, row)
    return get(tx, video_id)


def remove(tx: Transaction, video_id: str) -> Video:
    """Delete the features, cancel the jobs, leave a tombstone with a new seq. Returns the video. Raises: NotFound."""
    video = get(tx, video_id)
    cancel_jobs_of(tx, video.id)
    delete_segments(tx, video.id)
    tx.change(
        "UPDATE videos SET removed_at = ?, seq = ?, num_segments = 0, status = 'failed', metadata = '{}' WHERE id = ?",
        tx.now_s,
        tx.next_seq(),
        video.id,
    )
    return video


def live(tx: Transaction, ids: Sequence[str]) -> dict[str, Video]:
    """The live videos among these ids, by id."""
    wanted = json.dumps([given for given in ids if isinstance(given, str) and given.isascii()])
    sql = "SELECT * FROM videos WHERE removed_at IS NULL AND id IN (SELECT value FROM json_each(?))"
    return {row["id"]: video_of(tx, row) for row in tx.rows(sql, wanted)}


def by_content(tx: Transaction, sha256: str) -> Video | None:
    """The live video with this content, or None."""
    row = tx.row("SELECT * FROM videos WHERE sha256 = ? AND removed_at IS NULL", known_id("hash", sha256))
    return None if row is None else video_of(tx, row)


def managed_paths(tx: Transaction) -> frozenset[Path]:
    """The absolute paths of the managed files of live videos."""
    rows = tx.rows("SELECT path FROM videos WHERE is_managed AND removed_at IS NULL")
    return frozenset(tx.folder / os.fsdecode(row["path"]) for row in rows)


def has_managed_file(tx: Transaction, path: Path) -> bool:
    """Whether this is the managed file of a live video."""
    sql = "SELECT 1 FROM videos WHERE path = ? AND is_managed AND removed_at IS NULL"
    return tx.row(sql, _path_bytes(path.relative_to(tx.folder))) is not None


def count_ready(tx: Transaction) -> tuple[int, int]:
    """The numbers of live ready videos and of their segments."""
    (row,) = tx.rows(
        "SELECT COUNT(*) AS videos, COALESCE(SUM(num_segments), 0) AS segments FROM videos "
        "WHERE removed_at IS NULL AND status = 'ready'"
    )
    return row["videos"], row["segments"]


def _row(tx: Transaction, video_id: str) -> Row:
    row = tx.row("SELECT * FROM videos WHERE id = ? AND removed_at IS NULL", known_id("video", video_id))
    if row is None:
        raise not_found("video", video_id)
    return row


def _insert(tx: Transaction, new: NewVideo) -> str:
    """Add the row. The id is 16 hex digits of the hash, or the whole hash if another content has the same 16."""
    short = new.sha256[:ID_CHARS]
    video_id = new.sha256 if tx.row("SELECT 1 FROM videos WHERE id = ?", short) else short
    tx.change(
        "INSERT INTO videos (id, sha256, title, size_bytes, metadata, path, is_managed, mtime_ns, status, created_at, "
        "number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, (SELECT COALESCE(MAX(number), 0) + 1 FROM videos))",
        *(video_id, new.sha256, *new.columns(tx), tx.now_s),
    )
    return video_id


def _overwrite(tx: Transaction, video_id: str, new: NewVideo) -> None:
    tx.change(
        "UPDATE videos SET title = ?, size_bytes = ?, metadata = ?, path = ?, is_managed = ?, mtime_ns = ? "
        "WHERE id = ?",
        *(*new.columns(tx), video_id),
    )


def _publish_change(tx: Transaction, row: Row) -> None:
    """Put a searchable video on the change feed again, so that its readers see the change."""
    if row["num_segments"]:
        tx.change("UPDATE videos SET seq = ? WHERE id = ?", tx.next_seq(), row["id"])


def _move(tx: Transaction, video_id: str, new: NewVideo) -> None:
    """Store the new path of the same content."""
    tx.change("UPDATE videos SET path = ?, is_managed = ?, mtime_ns = ? WHERE id = ?", *new.place(tx), video_id)


def _queue_again(tx: Transaction, known: Row, max_attempts: int) -> str:
    """The id of a job for a known video: one already queued, or a new one. Old features stay until it publishes."""
    waiting = tx.row("SELECT id FROM jobs WHERE video_id = ? AND status = 'queued' ORDER BY number", known["id"])
    if waiting is not None:
        return str(waiting["id"])
    if not known["num_segments"]:
        tx.change(
            "UPDATE videos SET status = 'pending', error_code = NULL, error_message = NULL WHERE id = ?", known["id"]
        )
    return insert_job(tx, known["id"], max_attempts)


def _path_bytes(path: Path) -> bytes:
    try:
        return os.fsencode(path)
    except UnicodeEncodeError as error:
        raise FileMissing(f"A file can't have the name {ascii(path.name)[:200]}.") from error
