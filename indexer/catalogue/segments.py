"""Segments and their features in the catalogue. Every function takes an open transaction.

Features are little-endian arrays with a crc32 over every number of the row, so a flipped bit is found and reported.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.filters import compile_filter
from indexer.catalogue.rows import Row, Transaction
from indexer.errors import CatalogueUnreadable, ModelMismatch
from indexer.records import SegmentFeatures, StoredSegment, VideoChange
from model.errors import ModelError, ShapeError
from model.types import ModelSpec, public_name

REBUILD_HINT = "Restore the data folder from a backup, or remove the video and add it again."


def check_features(segments: Sequence[SegmentFeatures], spec: ModelSpec, fingerprint: str) -> None:
    """Raises: ModelMismatch for another model's features, ShapeError for arrays that don't fit, ModelError for NaN."""
    if fingerprint != spec.fingerprint:
        raise ModelMismatch(
            f"Features of the model {fingerprint} can't join those of {public_name(spec.name)} ({spec.fingerprint}).",
            "Use the model that made this data folder, or another data folder.",
        )
    if not segments:
        raise ShapeError("A video needs at least one segment.")
    for position, segment in enumerate(segments):
        num_frames = len(segment.times_s)
        expected = (spec.pooled_width,), (num_frames, spec.embed_dim)
        if not 1 <= num_frames <= spec.num_frames or (segment.pooled.shape, segment.frames.shape) != expected:
            raise ShapeError(
                f"Segment {position}: {num_frames} times, pooled {segment.pooled.shape}, frames {segment.frames.shape} "
                f"do not fit {public_name(spec.name)} "
                f"({spec.num_frames} frame slots; {spec.pooled_width}, {spec.embed_dim} wide)."
            )
        if not (np.isfinite(segment.pooled).all() and np.isfinite(segment.frames).all()):
            raise ModelError(f"Segment {position}: the model gave features that are not finite.")


def replace_segments(tx: Transaction, video_id: str, segments: Sequence[SegmentFeatures], fingerprint: str) -> None:
    """Delete a video's segments and write these."""
    delete_segments(tx, video_id)
    for position, segment in enumerate(segments):
        times = np.asarray(segment.times_s, dtype="<f8").tobytes()
        pooled = np.ascontiguousarray(segment.pooled, dtype="<f2").tobytes()
        frames = np.ascontiguousarray(segment.frames, dtype="<f2").tobytes()
        crc32 = _crc32(video_id, position, segment.start_s, segment.end_s, fingerprint, times, pooled, frames)
        tx.change(
            "INSERT INTO segments (video_id, position, start_s, end_s, fingerprint, times, pooled, frames, crc32) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(video_id, position, float(segment.start_s), float(segment.end_s), fingerprint),
            *(times, pooled, frames, crc32),
        )


def delete_segments(tx: Transaction, video_id: str) -> None:
    """Delete a video's segments."""
    tx.change("DELETE FROM segments WHERE video_id = ?", video_id)


def read_segments(tx: Transaction, video_id: str) -> tuple[StoredSegment, ...]:
    """A video's segments in order of time; () for a removed or pending video.

    Raises: CatalogueUnreadable if the bytes of one have changed.
    """
    rows = tx.rows("SELECT * FROM segments WHERE video_id = ? ORDER BY position", video_id)
    return tuple(_segment_of(row) for row in rows)


def searchable_ids(
    tx: Transaction, filter: Mapping[str, Any] | None, video_ids: Sequence[str] | None
) -> NDArray[np.int64]:
    """The sorted ids of segments whose live video passes the filter and is among video_ids (None: any)."""
    clause = compile_filter(filter)
    sql = "SELECT s.id AS id FROM segments AS s JOIN videos AS v ON v.id = s.video_id WHERE v.removed_at IS NULL"
    parameters: list[Any] = []
    if video_ids is not None:
        sql += " AND v.id IN (SELECT value FROM json_each(?))"
        parameters.append(json.dumps([given for given in video_ids if isinstance(given, str) and given.isascii()]))
    rows = tx.rows(f"{sql} AND {clause.sql}", *parameters, *clause.parameters)
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)))


def changes_after(tx: Transaction, after_seq: int, limit: int = 1000) -> tuple[VideoChange, ...]:
    """Videos that changed after `after_seq`, in order of seq, each once; only those that were ever searchable."""
    rows = tx.rows(
        "SELECT seq, CAST(id AS BLOB) AS id, CASE WHEN removed_at IS NULL THEN num_segments ELSE 0 END AS num "
        "FROM videos WHERE seq > ? ORDER BY seq LIMIT ?",
        after_seq,
        limit,
    )
    # a damaged id may not be UTF-8: the reader then misses its segments and reports the video
    return tuple(VideoChange(row["seq"], row["id"].decode("utf-8", "replace"), row["num"]) for row in rows)


def count(tx: Transaction) -> int:
    """The number of stored segments of all videos."""
    return int(tx.rows("SELECT COUNT(*) FROM segments")[0][0])


def _segment_of(row: Row) -> StoredSegment:
    place = row["video_id"], row["position"], row["start_s"], row["end_s"], row["fingerprint"]
    blobs = row["times"], row["pooled"], row["frames"]
    if _crc32(*place, *blobs) != row["crc32"]:
        raise CatalogueUnreadable(f"Segment {row['id']} of video {row['video_id']} is damaged.", REBUILD_HINT)
    times, pooled, frames = (np.frombuffer(b, d) for b, d in zip(blobs, ("<f8", "<f2", "<f2"), strict=True))
    features = SegmentFeatures(
        start_s=row["start_s"],
        end_s=row["end_s"],
        times_s=tuple(times.tolist()),
        pooled=pooled.astype(np.float16, copy=False),
        frames=frames.astype(np.float16, copy=False).reshape(len(times), -1),
    )
    return StoredSegment(row["id"], row["video_id"], row["position"], features)


def _crc32(video_id: str, position: int, start_s: float, end_s: float, fingerprint: str, *blobs: bytes) -> int:
    head = f"{video_id}\0{fingerprint}".encode() + struct.pack("<qdd", position, start_s, end_s)
    crc32 = zlib.crc32(head)
    for blob in blobs:
        crc32 = zlib.crc32(blob, zlib.crc32(struct.pack("<q", len(blob)), crc32))
    return crc32
