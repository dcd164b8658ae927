"""A catalogue in memory with the verbs that searching needs, for tests that publish and remove thousands of videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.errors import CatalogueUnreadable
from indexer.records import SegmentFeatures, StoredSegment, Video, VideoChange


class MemoryShelf:
    """Segments by video with a change feed; a filter is {"title": title}."""

    def __init__(self) -> None:
        self._segments: dict[str, tuple[StoredSegment, ...]] = {}
        self._seqs: dict[str, int] = {}
        self._seq = 0
        self._next_segment_id = 1
        self.damaged: set[str] = set()

    def publish(self, video_id: str, segments: Sequence[SegmentFeatures]) -> None:
        """Make a video searchable, or replace its segments; ids of segments never come back."""
        first = self._next_segment_id
        self._next_segment_id += len(segments)
        self._segments[video_id] = tuple(
            StoredSegment(first + position, video_id, position, features) for position, features in enumerate(segments)
        )
        self._announce(video_id)

    def remove(self, video_id: str) -> None:
        """Leave a tombstone."""
        del self._segments[video_id]
        self._announce(video_id)

    def touch(self, video_id: str) -> None:
        """A new title, say: the segments keep their ids but come later in the feed."""
        self._announce(video_id)

    def _announce(self, video_id: str) -> None:
        self._seq += 1
        self._seqs[video_id] = self._seq

    def last_seq(self) -> int:
        return self._seq

    @contextmanager
    def snapshot(self) -> Iterator[MemoryShelf]:
        yield self

    def num_stored(self) -> int:
        return sum(map(len, self._segments.values()))

    def changes(self, after_seq: int, limit: int = 1000) -> tuple[VideoChange, ...]:
        rows = sorted((seq, video_id) for video_id, seq in self._seqs.items() if seq > after_seq)
        return tuple(VideoChange(seq, key, len(self._segments.get(key, ()))) for seq, key in rows[:limit])

    def segments(self, video_id: str) -> tuple[StoredSegment, ...]:
        if video_id in self.damaged:
            raise CatalogueUnreadable(f"A segment of video {video_id} is damaged.")
        return self._segments.get(video_id, ())

    def segment_ids(self, filter: Mapping[str, object] | None, video_ids: Sequence[str] | None) -> NDArray[np.int64]:
        title = None if filter is None else filter["title"]
        return np.array(
            sorted(
                segment.id
                for video_id, segments in self._segments.items()
                if (video_ids is None or video_id in video_ids) and title in (None, f"title of {video_id}")
                for segment in segments
            ),
            dtype=np.int64,
        )

    def live_videos(self, ids: Sequence[str]) -> dict[str, Video]:
        return {
            video_id: Video(
                id=video_id,
                sha256=video_id * 4,
                title=f"title of {video_id}",
                path=Path(video_id),
                is_managed=False,
                size_bytes=1,
                metadata={},
                status="ready",
                created_at=0.0,
                indexed_at=0.0,
                num_segments=len(self._segments[video_id]),
                media=None,
            )
            for video_id in ids
            if video_id in self._segments
        }


def random_features(
    rng: np.random.Generator,
    num_segments: int,
    num_slots: int = 4,
    dim: int = 16,
    segment_s: float = 4.0,
    pooled_dim: int | None = None,
) -> list[SegmentFeatures]:
    """Segments of one video that tile it, each of 1..F normalised random frames; pooled is their normalised mean, or
    random numbers of a width of its own."""
    made = []
    for position in range(num_segments):
        start_s = position * segment_s
        num_frames = int(rng.integers(1, num_slots + 1))
        frames = rng.standard_normal((num_frames, dim))
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        pooled = frames.mean(0) / np.linalg.norm(frames.mean(0))
        if pooled_dim is not None:
            pooled = rng.standard_normal(pooled_dim)
        times_s = tuple(start_s + segment_s * (f + 0.5) / num_frames for f in range(num_frames))
        made.append(
            SegmentFeatures(start_s, start_s + segment_s, times_s, pooled.astype(np.float16), frames.astype(np.float16))
        )
    return made
