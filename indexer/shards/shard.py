"""A sealed shard: its parts never change; a removal makes another one that shares them and has other dead bits.

Letters: N segments, R frames of all of them, V videos. It knows no catalogue and no file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.shards.rows import rows_live
from indexer.shards.view import CoarseIndex, SegmentTable, ShardView, VideoTable
from model.kernels.block import FeatureBlock

Mask = NDArray[np.bool_]

_keys = itertools.count(1)


class Backing(Protocol):
    """The file that a shard's memory is mapped from; ShardFile is the real one."""

    @property
    def name(self) -> str:
        """The name of the file."""
        ...

    @property
    def head_crc32(self) -> int:
        """What tells its content from any other's."""
        ...

    @property
    def is_checked(self) -> bool:
        """Whether the features are known to be sound."""
        ...

    def is_sound(self, go_on: Callable[[], bool]) -> bool:
        """Whether the features have their checksums; they are read if they weren't yet."""
        ...


class ShardParts:
    """What is in a sealed shard, which never changes, and where its videos are found."""

    def __init__(self, segments: SegmentTable, videos: VideoTable, block: FeatureBlock) -> None:
        self.segments = segments
        self.videos = videos
        self.block = block
        self.key = next(_keys)
        """Another one for all parts that this process ever makes."""

    @cached_property
    def _by_number(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers in order, and the rows of the videos; a video that came twice has its newest row last."""
        order = np.argsort(self.videos.numbers, kind="stable")
        return self.videos.numbers[order], order

    @cached_property
    def _range(self) -> tuple[int, int]:
        """The least and the largest number."""
        return int(self.videos.numbers.min()), int(self.videos.numbers.max())

    def may_have(self, numbers: NDArray[np.int64]) -> bool:
        """Whether any of these videos can be here, by the range of the numbers: quick, where most shards have none."""
        least, largest = self._range
        return len(numbers) > 0 and bool(numbers.min() <= largest and numbers.max() >= least)

    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest row of each video, -1 for those that never came here."""
        held, rows = self._by_number
        at = np.searchsorted(held, numbers, side="right") - 1
        found: NDArray[np.int64] = np.where((at >= 0) & (held[at] == numbers), rows[at], -1)
        return found


@dataclass(frozen=True)
class SealedShard:
    """A shard that takes no more videos, at one moment."""

    parts: ShardParts
    is_live: Mask | None
    """(N,); None where all are live."""
    num_live: int
    """Segments."""
    num_videos: int
    """Live ones."""
    coarse: CoarseIndex | None = None
    backing: Backing | None = None
    """The file that holds all of it; None where there is none."""

    @property
    def key(self) -> int:
        """The same for all stages of a shard that have the same parts."""
        return self.parts.key

    def __len__(self) -> int:
        return len(self.parts.block)

    @cached_property
    def view(self) -> ShardView:
        """What a search reads; the same object for as long as nothing changes."""
        parts = self.parts
        return ShardView(parts.segments, parts.videos, parts.block, self.is_live, self.num_live, self.coarse)

    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of live videos, -1 for those that aren't here."""
        return only_live(self.parts.find(numbers), self.is_live, self.parts.videos)

    def without(self, numbers: NDArray[np.int64]) -> SealedShard:
        """The same shard, without those of the videos that are live in it."""
        if not self.parts.may_have(numbers):
            return self
        found = self.find(numbers)
        video_rows = found[found >= 0]
        if not len(video_rows):
            return self
        is_live, num_gone = without(self.is_live, len(self), self.parts.videos, video_rows)
        return replace(
            self, is_live=is_live, num_live=self.num_live - num_gone, num_videos=self.num_videos - len(video_rows)
        )


def sealed(
    segments: SegmentTable,
    videos: VideoTable,
    block: FeatureBlock,
    is_live: Mask | None,
    backing: Backing | None = None,
) -> SealedShard:
    """A shard of these parts; its live ones are counted."""
    num_live, num_videos = len(block), len(videos.numbers)
    if is_live is not None:
        num_live, num_videos = int(is_live.sum()), int(is_live[videos.first_row].sum())
        if num_live == len(block):
            is_live = None
    return SealedShard(ShardParts(segments, videos, block), is_live, num_live, num_videos, backing=backing)


def only_live(rows: NDArray[np.int64], is_live: Mask | None, videos: VideoTable) -> NDArray[np.int64]:
    """Rows of videos, -1 in place of those that aren't live; a video's segments live and die together."""
    if is_live is None or not len(rows):
        return rows
    found: NDArray[np.int64] = np.where((rows >= 0) & is_live[videos.first_row[rows]], rows, -1)
    return found


def without(is_live: Mask | None, length: int, videos: VideoTable, rows: NDArray[np.int64]) -> tuple[Mask, int]:
    """A copy of the live bits without some videos' segments, and how many those are."""
    left = np.ones(length, dtype=np.bool_) if is_live is None else is_live.copy()
    num_gone = 0
    for row in rows:
        first, count = int(videos.first_row[row]), int(videos.num_rows[row])
        left[first : first + count] = False
        num_gone += count
    left.flags.writeable = False
    return left, num_gone


def merged(shards: Sequence[SealedShard]) -> SealedShard:
    """One shard with copies of what is live in several, in their order; at least one segment must be live."""
    parts = [shard.parts for shard in shards]
    blocks = [part.block for part in parts]
    rows = [rows_live(shard.view) for shard in shards]
    frames = [np.repeat(live, block.num_frames) for live, block in zip(rows, blocks, strict=True)]
    held = [live[part.videos.first_row] for live, part in zip(rows, parts, strict=True)]
    num_rows = _joined([part.videos.num_rows for part in parts], held)
    num_frames = _joined([block.num_frames for block in blocks], rows)
    segments = SegmentTable(
        segment_ids=_joined([part.segments.segment_ids for part in parts], rows),
        video_rows=np.repeat(np.arange(len(num_rows), dtype=np.int32), num_rows),
        start_s=_joined([part.segments.start_s for part in parts], rows),
        end_s=_joined([part.segments.end_s for part in parts], rows),
        times_s=_joined([part.segments.times_s for part in parts], frames),
    )
    videos = VideoTable(
        numbers=_joined([part.videos.numbers for part in parts], held),
        ids=_joined([part.videos.ids for part in parts], held),
        first_row=np.cumsum(num_rows) - num_rows,
        num_rows=num_rows,
        features_seq=_joined([part.videos.features_seq for part in parts], held),
    )
    frame_scales = [block.frame_scales for block in blocks if block.frame_scales is not None]
    pooled_scales = [block.pooled_scales for block in blocks if block.pooled_scales is not None]
    block = FeatureBlock(
        frames=_joined([block.frames for block in blocks], frames),
        pooled=_joined([block.pooled for block in blocks], rows),
        first_frame=np.cumsum(num_frames, dtype=np.int64) - num_frames,
        num_frames=num_frames,
        frame_scales=_joined(frame_scales, frames) if frame_scales else None,
        pooled_scales=_joined(pooled_scales, rows) if pooled_scales else None,
    )
    return sealed(segments, videos, block, None)


def _joined(columns: Sequence[NDArray[Any]], masks: Sequence[Mask]) -> NDArray[Any]:
    """The rows of several columns that pass their masks, under one another; copied once."""
    counts = [int(mask.sum()) for mask in masks]
    dtype = np.result_type(*columns)
    whole = np.empty((sum(counts), *columns[0].shape[1:]), dtype)
    at = 0
    for column, mask, count in zip(columns, masks, counts, strict=True):
        if count == len(column):
            whole[at : at + count] = column
        elif count:
            np.compress(mask, column.astype(dtype, copy=False), axis=0, out=whole[at : at + count])
        at += count
    whole.flags.writeable = False
    return whole
