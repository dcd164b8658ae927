"""A library of random features in shards, made in memory: what searching at 10,000 to 1,000,000 segments costs.

Letters: N segments of a shard, F frames of each, D width. Frames of a segment lie close together and segments in
clusters, as those of real video do; queries point at one frame of a random segment, at the angle that sentences have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.records import Video
from indexer.shards.view import CoarseIndex, IndexView, SegmentTable, ShardView, VideoTable
from model.kernels.block import FeatureBlock, Store, quantize
from model.kernels.panel import Array
from model.types import TextFeatures

SHARD_SEGMENTS = 65_536
SEGMENTS_PER_VIDEO = 16
SEGMENT_S = 4.0
NUM_CLUSTERS = 2000
NOISES = 8192
"""Different noise vectors; drawing a fresh one for every frame of a million segments takes minutes."""

Build = Callable[[FeatureBlock], CoarseIndex]


@dataclass(frozen=True)
class Library:
    """A view, with as much of a catalogue as a search asks for."""

    view: IndexView
    num_frames: int
    dim: int

    def last_seq(self) -> int:
        """The view's."""
        return self.view.generation

    def allowed_numbers(
        self, filter: Mapping[str, object] | None, video_ids: Sequence[str] | None
    ) -> NDArray[np.int64]:
        """Every second video, whatever is asked."""
        numbers = np.concatenate([shard.videos.numbers for shard in self.view.shards])
        even: NDArray[np.int64] = np.sort(numbers[numbers % 2 == 0])
        return even

    def live_videos(self, ids: Sequence[str]) -> dict[str, Video]:
        """A made-up row for each id."""
        return {
            video_id: Video(
                id=video_id,
                sha256=video_id,
                title=video_id,
                path=Path(video_id),
                is_managed=False,
                size_bytes=1,
                metadata={},
                status="ready",
                created_at=0.0,
                indexed_at=0.0,
                num_segments=SEGMENTS_PER_VIDEO,
                media=None,
            )
            for video_id in ids
        }


def library(
    num_segments: int,
    build: Build | None = None,
    *,
    num_frames: int = 12,
    dim: int = 512,
    store: Store = "fp16",
    open_segments: int = 8192,
    seed: int = 0,
) -> Library:
    """num_segments in shards as an index has them: full ones and smaller ones with a coarse index, and an open one.

    build: makes the coarse index of a sealed shard; None: none has one.
    """
    rng = np.random.default_rng(seed)
    noises, centres = unit(rng, NOISES, dim), unit(rng, NUM_CLUSTERS, dim)
    sizes = [SHARD_SEGMENTS] * (num_segments // SHARD_SEGMENTS)
    rest = num_segments % SHARD_SEGMENTS
    sizes += [open_segments] * (rest // open_segments) + ([rest % open_segments] if rest % open_segments else [])
    shards, first_video = [], 0
    for size in sizes:
        block = random_block(rng, size, noises, centres, num_frames, store)
        is_sealed = size >= open_segments
        shards.append(_shard(block, first_video, build(block) if build and is_sealed else None))
        first_video += len(shards[-1].videos.numbers)
    view = IndexView(tuple(shards), 1, num_segments, first_video, {}, 0)
    return Library(view, num_frames, dim)


def random_block(
    rng: np.random.Generator, size: int, noises: Array, centres: Array, num_frames: int, store: Store
) -> FeatureBlock:
    """Segments around cluster centres, their frames around the segments."""
    dim = noises.shape[1]
    frames = np.empty((size * num_frames, dim), np.int8 if store == "int8" else np.float16)
    pooled = np.empty((size, dim), frames.dtype)
    frame_scales, pooled_scales = np.empty(len(frames), np.float32), np.empty(size, np.float32)
    for at in range(0, size, 1024):
        count = min(1024, size - at)
        segments = centres[rng.integers(0, len(centres), count)] + noises[rng.integers(0, len(noises), count)]
        rows = np.repeat(segments, num_frames, axis=0) + 0.6 * noises[rng.integers(0, len(noises), count * num_frames)]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        mean = rows.reshape(count, num_frames, dim).mean(1)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        some, one = slice(at * num_frames, (at + count) * num_frames), slice(at, at + count)
        if store == "int8":
            frames[some], frame_scales[some] = quantize(rows)
            pooled[one], pooled_scales[one] = quantize(mean)
        else:
            frames[some], pooled[one] = rows, mean
    counts = np.full(size, num_frames, np.int32)
    first = np.arange(size, dtype=np.int64) * num_frames
    scales = (frame_scales, pooled_scales) if store == "int8" else (None, None)
    return FeatureBlock(frames, pooled, first, counts, *scales)


def sentences(given: Library, count: int, num_words: int, *, num_slots: int = 32, seed: int = 1) -> list[TextFeatures]:
    """Queries of num_words real words, each pointing at one frame of a segment with a cosine of about 0.3."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        block = given.view.shards[int(rng.integers(len(given.view.shards)))].block
        frame = block.frames[int(rng.integers(len(block.frames)))].astype(np.float32)
        frame /= np.linalg.norm(frame)
        near = 0.3 * frame[None] + 0.95 * unit(rng, num_words + 1, given.dim)
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        words = np.zeros((1, num_slots, given.dim), np.float32)
        words[0, :num_words] = near[1:]
        mask = np.arange(num_slots)[None, :] < num_words
        made.append(TextFeatures(torch.from_numpy(near[:1]), torch.from_numpy(words), torch.from_numpy(mask)))
    return made


def unit(rng: np.random.Generator, count: int, dim: int) -> Array:
    """Random unit vectors (count, D)."""
    rows = rng.standard_normal((count, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _shard(block: FeatureBlock, first_video: int, coarse: CoarseIndex | None) -> ShardView:
    size = len(block)
    num_videos = -(-size // SEGMENTS_PER_VIDEO)
    rows = np.arange(size)
    video_rows = (rows // SEGMENTS_PER_VIDEO).astype(np.int32)
    start_s = (rows % SEGMENTS_PER_VIDEO) * SEGMENT_S
    num_frames = int(block.num_frames[0])
    inside = (np.arange(num_frames) + 0.5) * SEGMENT_S / num_frames
    numbers = first_video + np.arange(num_videos, dtype=np.int64)
    table = SegmentTable(rows, video_rows, start_s, start_s + SEGMENT_S, (start_s[:, None] + inside).ravel())
    videos = VideoTable(
        numbers,
        np.array([f"video{number:08}" for number in numbers], dtype="S16"),
        np.arange(num_videos, dtype=np.int64) * SEGMENTS_PER_VIDEO,
        np.bincount(video_rows, minlength=num_videos),
        np.ones(num_videos, np.int64),
    )
    return ShardView(table, videos, block, None, size, coarse)
