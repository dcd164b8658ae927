"""The shard that takes new videos: columns whose memory doubles, read by others while they grow.

Letters: N segments, R frames of all of them, V videos, D and P widths. One thread writes; a view that was handed out
keeps its length and the memory it points into, whatever is appended later. It knows no catalogue and no removal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.records import PackedSegment, PublishedVideo
from indexer.shards.sizes import Layout
from indexer.shards.view import SegmentTable, VideoTable
from model.kernels.block import FeatureBlock, quantize

LEAST_ROWS = 64
"""Rows of the first memory of a column."""
ID_CHARS = 16
"""Characters of an id as a rule; the column of ids is widened for longer ones."""


class OpenShard:
    """Takes videos with their features until it is sealed."""

    def __init__(self, layout: Layout, expected: int = 0) -> None:
        """expected: segments to make room for at once; memory that isn't written costs nothing."""
        self._layout = layout
        expected_frames = expected * layout.num_slots
        feature = np.int8 if layout.store == "int8" else np.float16
        self._segment_ids = _Column(np.int64, expected)
        self._video_rows = _Column(np.int32, expected)
        self._start_s = _Column(np.float64, expected)
        self._end_s = _Column(np.float64, expected)
        self._first_frame = _Column(np.int64, expected)
        self._num_frames = _Column(np.int32, expected)
        self._pooled = _Column(feature, expected, layout.pooled_dim)
        self._pooled_scales = _Column(np.float32, expected)
        self._frames = _Column(feature, expected_frames, layout.dim)
        self._frame_scales = _Column(np.float32, expected_frames)
        self._times_s = _Column(np.float64, expected_frames)
        self._numbers = _Column(np.int64)
        self._ids = _Column(np.dtype(f"S{ID_CHARS}"))
        self._first_row = _Column(np.int64)
        self._num_rows = _Column(np.int64)
        self._features_seq = _Column(np.int64)
        self._row_of: dict[int, int] = {}

    def __len__(self) -> int:
        return self._segment_ids.length

    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest row of each video, -1 for those that never came here."""
        return np.array([self._row_of.get(number, -1) for number in numbers.tolist()], dtype=np.int64)

    def append(self, videos: Sequence[PublishedVideo]) -> None:
        """Add videos with all their segments, which must have passed `fits`; an error leaves the shard as it was."""
        segments = [segment for video in videos for segment in video.segments]
        if not segments:
            return
        num_rows = np.array([len(video.segments) for video in videos], dtype=np.int64)
        num_frames = np.array([len(segment.times) // 8 for segment in segments], dtype=np.int64)
        first_row, first_frame = len(self), self._times_s.length
        first_video = self._numbers.length
        ids = np.array([video.video_id.encode() for video in videos])
        pooled, pooled_scales = self._features(b"".join(s.pooled for s in segments), self._layout.pooled_dim)
        frames, frame_scales = self._features(b"".join(s.frames for s in segments), self._layout.dim)
        rows: list[tuple[_Column, NDArray[Any]]] = [
            (self._segment_ids, np.array([segment.id for segment in segments], dtype=np.int64)),
            (self._video_rows, first_video + np.repeat(np.arange(len(videos)), num_rows)),
            (self._start_s, np.array([segment.start_s for segment in segments])),
            (self._end_s, np.array([segment.end_s for segment in segments])),
            (self._first_frame, first_frame + np.cumsum(num_frames) - num_frames),
            (self._num_frames, num_frames),
            (self._times_s, np.frombuffer(b"".join(s.times for s in segments), "<f8")),
            (self._frames, frames),
            (self._pooled, pooled),
            (self._frame_scales, frame_scales),
            (self._pooled_scales, pooled_scales),
            (self._numbers, np.array([video.number for video in videos], dtype=np.int64)),
            (self._ids, ids),
            (self._first_row, first_row + np.cumsum(num_rows) - num_rows),
            (self._num_rows, num_rows),
            (self._features_seq, np.array([video.features_seq for video in videos], dtype=np.int64)),
        ]
        for column, values in rows:
            column.stage(values)
        for column, values in rows:
            column.length += len(values)
        self._row_of.update((video.number, first_video + n) for n, video in enumerate(videos))

    def parts(self) -> tuple[SegmentTable, VideoTable, FeatureBlock]:
        """What is in it now, without a copy."""
        is_int8 = self._layout.store == "int8"
        segments = SegmentTable(
            self._segment_ids.view(),
            self._video_rows.view(),
            self._start_s.view(),
            self._end_s.view(),
            self._times_s.view(),
        )
        videos = VideoTable(
            self._numbers.view(),
            self._ids.view(),
            self._first_row.view(),
            self._num_rows.view(),
            self._features_seq.view(),
        )
        block = FeatureBlock(
            self._frames.view(),
            self._pooled.view(),
            self._first_frame.view(),
            self._num_frames.view(),
            self._frame_scales.view() if is_int8 else None,
            self._pooled_scales.view() if is_int8 else None,
        )
        return segments, videos, block

    def _features(self, stored: bytes, width: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Vectors as they are kept, with their scales (none for half precision)."""
        vectors = np.frombuffer(stored, "<f2").reshape(-1, width)
        return quantize(vectors) if self._layout.store == "int8" else (vectors, np.empty(0, np.float32))


def fits(segments: Sequence[PackedSegment], layout: Layout) -> bool:
    """Whether the features of a video have the widths of this index."""
    for segment in segments:
        num_frames, rest = divmod(len(segment.times), 8)
        if rest or not 1 <= num_frames <= layout.num_slots:
            return False
        if len(segment.frames) != 2 * num_frames * layout.dim or len(segment.pooled) != 2 * layout.pooled_dim:
            return False
    return True


class _Column:
    """Rows of one kind; memory beyond `length` is written before anyone can see it."""

    def __init__(self, dtype: Any, expected: int = 0, width: int | None = None) -> None:
        self.length = 0
        self._least = max(LEAST_ROWS, expected)
        self._shape = () if width is None else (width,)
        self._memory: NDArray[Any] = np.empty((0, *self._shape), dtype)

    def stage(self, values: NDArray[Any]) -> None:
        """Write rows behind the last one; raising `length` makes them part of the column."""
        wanted, dtype = self.length + len(values), self._memory.dtype
        if dtype.kind == "S":
            dtype = max(dtype, values.dtype, key=lambda kind: kind.itemsize)
        if wanted > len(self._memory) or dtype != self._memory.dtype:
            capacity = max(wanted, self._least, 2 * len(self._memory) if wanted > len(self._memory) else 0)
            memory = np.empty((capacity, *self._shape), dtype)
            memory[: self.length] = self._memory[: self.length]
            self._memory = memory
        self._memory[self.length : wanted] = values

    def view(self) -> NDArray[Any]:
        """The rows, read-only; they stay as they are whatever is added."""
        rows = self._memory[: self.length]
        rows.flags.writeable = False
        return rows
