"""Segments and their features in the catalogue. Every function takes an open transaction.

Features are little-endian arrays with a crc32 over every number of the row, so a flipped bit is found and reported.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.filters import Clause
from indexer.catalogue.rows import Row, Transaction
from indexer.errors import CatalogueUnreadable, ModelMismatch
from indexer.records import PackedSegment, PublishedVideo, SegmentFeatures, StoredSegment, VideoChange
from model.errors import ModelError, ShapeError
from model.types import ModelSpec, public_name

PUBLISHED = "v.removed_at IS NULL AND v.num_segments > 0"
"""The condition that a row of `videos AS v` can be found."""

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
        crc32 = _crc32(
            *(video_id.encode(), position, segment.start_s, segment.end_s, fingerprint.encode()),
            *(times, pooled, frames),
        )
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


def published(tx: Transaction) -> NDArray[np.int64]:
    """Every video that can be found, in order of number. (V, 3): number, features_seq, num_segments."""
    row = tx.row(
        "SELECT group_concat(v.number || ',' || COALESCE(v.features_seq, 0) || ',' || v.num_segments) AS text "
        f"FROM videos AS v WHERE {PUBLISHED}"
    )
    rows = _integers(row).reshape(-1, 3)
    return rows[np.argsort(rows[:, 0], kind="stable")]


def allowed_numbers(tx: Transaction, clause: Clause, video_ids: Sequence[str] | None) -> NDArray[np.int64]:
    """The sorted numbers of the videos that can be found, pass the filter and are among video_ids (None: any)."""
    sql = f"SELECT group_concat(v.number) AS text FROM videos AS v WHERE {PUBLISHED}"
    parameters: list[Any] = []
    if video_ids is not None:
        sql += " AND v.id IN (SELECT value FROM json_each(?))"
        parameters.append(json.dumps([given for given in video_ids if isinstance(given, str) and given.isascii()]))
    return np.sort(_integers(tx.row(f"{sql} AND {clause.sql}", *parameters, *clause.parameters)))


def changes_after(tx: Transaction, after_seq: int, limit: int = 1000) -> tuple[VideoChange, ...]:
    """Videos that changed after `after_seq`, in order of seq, each once; only those that were ever searchable."""
    rows = tx.rows(
        "SELECT seq, CAST(id AS BLOB) AS id, CASE WHEN removed_at IS NULL THEN num_segments ELSE 0 END AS num, number, "
        "COALESCE(features_seq, 0) AS features_seq FROM videos WHERE seq > ? ORDER BY seq LIMIT ?",
        after_seq,
        limit,
    )
    return tuple(
        VideoChange(row["seq"], _text(row["id"]), row["num"], row["number"], row["features_seq"]) for row in rows
    )


def published_videos(tx: Transaction, first_number: int, last_number: int) -> Iterator[PublishedVideo]:
    """The videos that can be found among a range of numbers, in that order, with their features: one SELECT.

    A video of which a segment is damaged or missing comes without segments and with the reason.
    """
    rows = tx.stream(
        "SELECT v.number, CAST(v.id AS BLOB), COALESCE(v.features_seq, 0), v.num_segments, s.id, "
        "CAST(s.video_id AS BLOB), s.position, s.start_s, s.end_s, CAST(s.fingerprint AS BLOB), "
        "s.times, s.pooled, s.frames, s.crc32 "
        "FROM videos AS v LEFT JOIN segments AS s ON s.video_id = v.id "
        f"WHERE v.number BETWEEN ? AND ? AND {PUBLISHED} ORDER BY v.number, s.position",
        first_number,
        last_number,
    )
    for _, group in groupby(rows, key=itemgetter(0)):
        yield _published_video(tuple(group))


def count(tx: Transaction) -> int:
    """The number of stored segments of all videos."""
    return int(tx.rows("SELECT COUNT(*) FROM segments")[0][0])


def _integers(row: Row) -> NDArray[np.int64]:
    """The integers of a column `text` that joins them by commas: one value for SQLite, and no object for each."""
    return np.fromstring(row["text"] or "", dtype=np.int64, sep=",")


def _text(stored: bytes) -> str:
    """An id as text; a damaged one may not be UTF-8, and has no segments then."""
    return stored.decode("utf-8", "replace")


def _published_video(rows: Sequence[Row]) -> PublishedVideo:
    """A video from its rows: one for each segment, or a single one without a segment."""
    number, video_id, features_seq, num_segments, *_ = rows[0]
    name, damage = _text(video_id), None
    segments: list[PackedSegment] = []
    for _, _, _, _, segment_id, *place, crc32 in rows:
        if segment_id is None:
            continue
        if not _is_sound(place, crc32):
            damage = f"Segment {segment_id} of video {name} is damaged."
            break
        segments.append(PackedSegment(segment_id, place[2], place[3], *place[5:]))
    if damage is None and len(segments) != num_segments:
        damage = f"{len(segments)} of the {num_segments} segments of video {name!r} are there."
    return PublishedVideo(number, name, features_seq, num_segments, () if damage else segments, damage)


def _is_sound(place: Sequence[Any], crc32: int) -> bool:
    try:
        return _crc32(*place) == crc32
    except (TypeError, struct.error):  # a number where bytes should be, or the other way round
        return False


def _segment_of(row: Row) -> StoredSegment:
    place = row["video_id"].encode(), row["position"], row["start_s"], row["end_s"], row["fingerprint"].encode()
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


def _crc32(video_id: bytes, position: int, start_s: float, end_s: float, fingerprint: bytes, *blobs: bytes) -> int:
    head = b"%b\0%b%b" % (video_id, fingerprint, struct.pack("<qdd", position, start_s, end_s))
    crc32 = zlib.crc32(head)
    for blob in blobs:
        crc32 = zlib.crc32(blob, zlib.crc32(struct.pack("<q", len(blob)), crc32))
    return crc32
