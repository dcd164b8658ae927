"""A catalogue in memory with the verbs that searching needs, for tests that publish and remove thousands of videos."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.records import PackedSegment, PublishedVideo, SegmentFeatures, StoredSegment, Video, VideoChange


class MemoryShelf:
    """Segments by video with a change feed; a filter is {"title": title}."""

    def __init__(self) -> None:
        self._segments: dict[str, tuple[StoredSegment, ...]] = {}
        self._seqs: dict[str, int] = {}
        self._seq = 0
        self._next_segment_id = 1
        self._lock = threading.RLock()
        self._numbers: dict[str, int] = {}
        self._tokens: list[str] = []
        self._features_seqs: dict[str, int] = {}
        self.damaged: set[str] = set()

    def publish(self, video_id: str, segments: Sequence[SegmentFeatures]) -> None:
        """Make a video searchable, or replace its segments; ids of segments never come back."""
        with self._lock:
            first = self._next_segment_id
            self._next_segment_id += len(segments)
            self._segments[video_id] = tuple(
                StoredSegment(first + position, video_id, position, features)
                for position, features in enumerate(segments)
            )
            self._numbers.setdefault(video_id, len(self._numbers) + 1)
            self._announce(video_id)
            self._features_seqs[video_id] = self._seq

    def remove(self, video_id: str) -> None:
        """Leave a tombstone."""
        with self._lock:
            del self._segments[video_id]
            self._announce(video_id)

    def touch(self, video_id: str) -> None:
        """A new title, say: the segments keep their ids but come later in the feed."""
        with self._lock:
            self._announce(video_id)

    def _announce(self, video_id: str) -> None:
        self._seq += 1
        self._seqs[video_id] = self._seq

    def last_seq(self) -> int:
        return self._seq

    @contextmanager
    def snapshot(self) -> Iterator[MemoryShelf]:
        with self._lock:  # what one transaction sees
            yield self

    def num_stored(self) -> int:
        return sum(map(len, self._segments.values()))

    def published(self) -> NDArray[np.int64]:
        rows = [(self._numbers[key], self._features_seqs[key], len(found)) for key, found in self._segments.items()]
        return np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)

    def shard_tokens(self) -> tuple[str, ...]:
        return tuple(self._tokens)

    def renew_shard_token(self) -> str:
        self._tokens.append(f"token {self._seq}.{len(self._tokens)}")
        return self._tokens[-1]

    def changes(self, after_seq: int, limit: int = 1000) -> tuple[VideoChange, ...]:
        rows = sorted((seq, video_id) for video_id, seq in self._seqs.items() if seq > after_seq)
        return tuple(
            VideoChange(seq, key, len(self._segments.get(key, ())), self._numbers[key], self._features_seqs[key])
            for seq, key in rows[:limit]
        )

    def videos(self, first_number: int, last_number: int) -> Iterator[PublishedVideo]:
        for number, key in sorted((number, key) for key, number in self._numbers.items()):
            if first_number <= number <= last_number and key in self._segments:
                found = self._segments[key]
                damage = f"A segment of video {key} is damaged." if key in self.damaged else None
                segments = () if damage else tuple(map(packed, found))
                yield PublishedVideo(number, key, self._features_seqs[key], len(found), segments, damage)

    def segments(self, video_id: str) -> tuple[StoredSegment, ...]:
        return self._segments.get(video_id, ())

    def video_ids(self) -> tuple[str, ...]:
        """The videos that can be found."""
        return tuple(self._segments)

    def number(self, video_id: str) -> int:
        """The number of a video that was ever published."""
        return self._numbers[video_id]

    def allowed_numbers(
        self, filter: Mapping[str, object] | None, video_ids: Sequence[str] | None = None
    ) -> NDArray[np.int64]:
        title = None if filter is None else filter["title"]
        allowed = [
            self._numbers[key]
            for key in self._segments
            if (video_ids is None or key in video_ids) and title in (None, f"title of {key}")
        ]
        return np.array(sorted(allowed), dtype=np.int64)

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


def packed(segment: StoredSegment) -> PackedSegment:
    """A segment as the catalogue gives it to the vectors."""
    features = segment.features
    times = np.asarray(features.times_s, dtype="<f8").tobytes()
    pooled, frames = features.pooled.astype("<f2").tobytes(), features.frames.astype("<f2").tobytes()
    return PackedSegment(segment.id, features.start_s, features.end_s, times, pooled, frames)


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
