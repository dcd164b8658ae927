"""Videos in the catalogue: added, listed, changed, removed. Takes an open transaction."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

NOT_OF_THE_CONTENT = ("cancelled", "file_missing", "file_changed", "storage_full", "backend_missing", "model_mismatch")
"""Failures that say nothing about the content: adding the same content again tries again."""


@dataclass(frozen=True, slots=True)
class NewVideo:
    """What is known of a file when it is added."""

    path: Path
    sha256: str
    size_bytes: int
    title: str
    metadata: Mapping[str, Any]
    is_managed: bool

    def columns(self) -> tuple[Any, ...]:
        """title, path, is_managed, size_bytes, metadata as stored."""
        title = storable_line(self.title)
        return title, _path_bytes(self.path), int(self.is_managed), self.size_bytes, metadata_json(self.metadata)


def add(tx: Transaction, new: NewVideo, on_duplicate: OnDuplicate, max_attempts: int) -> AddResult:
    """The video's row and its job's row, or what is known of the same content. Raises: DuplicateVideo."""
    known = tx.row("SELECT * FROM videos WHERE sha256 = ?", new.sha256)
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
        _announce(tx, known)
        return AddResult(video_id, _queue_again(tx, known, max_attempts), True, _abandoned(known, new))
    is_gone = not Path(os.fsdecode(known["path"])).exists()
    if is_gone:
        _move(tx, video_id, new)
    if known["status"] == "failed" and known["error_code"] in NOT_OF_THE_CONTENT:
        if not is_gone:
            _move(tx, video_id, new)
        return AddResult(video_id, _queue_again(tx, known, max_attempts), True, _abandoned(known, new))
    return AddResult(video_id, latest_job(tx, video_id).id, is_duplicate=True)


def get(tx: Transaction, video_id: str) -> Video:
    """A live video. Raises: NotFound."""
    return video_of(_row(tx, video_id))


def list_page(
    tx: Transaction, limit: int, cursor: str | None, filter: Mapping[str, Any] | None, status: VideoStatus | None
) -> tuple[tuple[Video, ...], str | None]:
    """A page of live videos, newest first, and the cursor of the next one. Raises: InvalidFilter, InvalidQuery."""
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
    return tuple(video_of(row) for row in page), following


def update(tx: Transaction, video_id: str, title: str | None, metadata: Mapping[str, Any] | None) -> Video:
    """Change title or metadata (which is replaced whole). Raises: NotFound, InvalidMetadata."""
    row = _row(tx, video_id)
    if title is not None:
        tx.change("UPDATE videos SET title = ? WHERE id = ?", storable_line(title), row["id"])
    if metadata is not None:
        tx.change("UPDATE videos SET metadata = ? WHERE id = ?", metadata_json(metadata), row["id"])
    if title is not None or metadata is not None:
        _announce(tx, row)
    return get(tx, video_id)


def remove(tx: Transaction, video_id: str) -> Video:
    """Make it a tombstone: features gone, open jobs cancelled, a new seq. Gives the video as it was."""
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
    """Those of the ids that are live videos."""
    wanted = json.dumps([given for given in ids if isinstance(given, str) and given.isascii()])
    sql = "SELECT * FROM videos WHERE removed_at IS NULL AND id IN (SELECT value FROM json_each(?))"
    return {row["id"]: video_of(row) for row in tx.rows(sql, wanted)}


def has_file(tx: Transaction, path: Path) -> bool:
    """Whether a live video has this path."""
    return tx.row("SELECT 1 FROM videos WHERE path = ? AND removed_at IS NULL", _path_bytes(path)) is not None


def count_ready(tx: Transaction) -> tuple[int, int]:
    """Live ready videos and their segments."""
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
    """The id is the first 16 hex digits of the hash; the whole hash where another content has those already."""
    short = new.sha256[:ID_CHARS]
    video_id = new.sha256 if tx.row("SELECT 1 FROM videos WHERE id = ?", short) else short
    tx.change(
        "INSERT INTO videos (id, sha256, title, path, is_managed, size_bytes, metadata, status, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?)",
        *(video_id, new.sha256, *new.columns(), tx.now_s),
    )
    return video_id


def _overwrite(tx: Transaction, video_id: str, new: NewVideo) -> None:
    tx.change(
        "UPDATE videos SET title = ?, path = ?, is_managed = ?, size_bytes = ?, metadata = ? WHERE id = ?",
        *(*new.columns(), video_id),
    )


def _announce(tx: Transaction, row: Row) -> None:
    """Tell the readers of the change feed of a video that they hold."""
    if row["num_segments"]:
        tx.change("UPDATE videos SET seq = ? WHERE id = ?", tx.next_seq(), row["id"])


def _move(tx: Transaction, video_id: str, new: NewVideo) -> None:
    """The same content at a new place."""
    tx.change(
        "UPDATE videos SET path = ?, is_managed = ? WHERE id = ?", _path_bytes(new.path), int(new.is_managed), video_id
    )


def _abandoned(known: Row, new: NewVideo) -> Path | None:
    """The file of ours that a video leaves for another one."""
    is_left = known["is_managed"] and known["path"] != _path_bytes(new.path)
    return Path(os.fsdecode(known["path"])) if is_left else None


def _queue_again(tx: Transaction, known: Row, max_attempts: int) -> str:
    """A job for a known video: the one that waits already, or a new one. Old features stay until it publishes."""
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
        raise FileMissing(f"No file can have the name {ascii(str(path))[:200]}.") from error
