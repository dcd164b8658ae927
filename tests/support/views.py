"""What is in a view of the shards, as plain Python: what tests compare, and what must hold for every view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.shards.rows import rows_live
from indexer.shards.view import IndexView, ShardView
from model.kernels.block import gather


@dataclass(frozen=True)
class HeldSegment:
    """A live segment."""

    id: int
    start_s: float
    end_s: float
    times_s: tuple[float, ...]
    pooled: NDArray[np.float32]
    frames: NDArray[np.float32]


def held(view: IndexView) -> dict[str, list[HeldSegment]]:
    """The live segments of every video, in order of time; a video that lies in two places is an error."""
    videos: dict[str, list[HeldSegment]] = {}
    for shard in view.shards:
        for video_id, segments in _held_in(shard).items():
            assert video_id not in videos, f"{video_id} is in two shards"
            videos[video_id] = segments
    return videos


def ids(view: IndexView) -> dict[str, list[int]]:
    """The ids of the live segments of every video."""
    return {video_id: [segment.id for segment in segments] for video_id, segments in held(view).items()}


def check(view: IndexView) -> None:
    """Raises AssertionError where the counts, tables and live bits of a view contradict one another."""
    assert view.num_segments == sum(shard.num_live for shard in view.shards)
    num_videos = 0
    for shard in view.shards:
        live, table, videos = rows_live(shard), shard.segments, shard.videos
        assert live.sum() == shard.num_live
        num_videos += int(live[videos.first_row].sum())
        assert (np.repeat(np.arange(len(videos.numbers)), videos.num_rows) == table.video_rows).all()
        assert (np.repeat(live[videos.first_row], videos.num_rows) == live).all(), "a video is live as a whole"
        assert len(table.segment_ids) == len(shard) == len(shard.block.pooled) == videos.num_rows.sum()
        ends = shard.block.first_frame + shard.block.num_frames
        assert (shard.block.first_frame[1:] == ends[:-1]).all()
        assert ends[-1] == len(shard.block.frames) == len(table.times_s)
    assert view.num_videos == num_videos


def _held_in(shard: ShardView) -> dict[str, list[HeldSegment]]:
    rows = np.flatnonzero(rows_live(shard))
    dense = gather(shard.block, rows, int(shard.block.num_frames.max()))
    videos: dict[str, list[HeldSegment]] = {}
    for n, row in enumerate(rows):
        first = shard.block.first_frame[row]
        times_s = shard.segments.times_s[first : first + shard.block.num_frames[row]]
        table = shard.segments
        videos.setdefault(shard.videos.id_of(table.video_rows[row]), []).append(
            HeldSegment(
                int(table.segment_ids[row]),
                float(table.start_s[row]),
                float(table.end_s[row]),
                tuple(times_s.tolist()),
                dense.pooled[n],
                dense.frames[n][dense.mask[n]],
            )
        )
    return videos
