"""From numbers and ids of videos to rows of a shard. It knows no catalogue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.shards.view import ShardView
from model.kernels.block import Rows

Numbers = NDArray[np.int64]
"""Sorted numbers of videos."""


def among(values: NDArray[np.int64], numbers: Numbers) -> NDArray[np.bool_]:
    """Which of the values are in a sorted array."""
    if not len(numbers):
        return np.zeros(len(values), dtype=np.bool_)
    at = np.minimum(np.searchsorted(numbers, values), len(numbers) - 1)
    found: NDArray[np.bool_] = numbers[at] == values
    return found


def rows_allowed(shard: ShardView, numbers: Numbers) -> NDArray[np.bool_]:
    """(N,) the live segments of those videos, whose numbers are sorted."""
    allowed = np.repeat(among(shard.videos.numbers, numbers), shard.videos.num_rows)
    return allowed if shard.is_live is None else allowed & shard.is_live


def rows_live(shard: ShardView) -> NDArray[np.bool_]:
    """(N,) the live segments."""
    return np.ones(len(shard), dtype=np.bool_) if shard.is_live is None else shard.is_live


def rows_of_video(shard: ShardView, video_id: str) -> Rows:
    """The live segments of one video, in order of time; empty if it isn't in this shard."""
    try:
        held = np.flatnonzero(shard.videos.ids == np.bytes_(video_id.encode("ascii")))
    except UnicodeEncodeError:
        held = np.empty(0, np.int64)
    for video_row in held[::-1]:
        first = int(shard.videos.first_row[video_row])
        if shard.is_live is None or shard.is_live[first]:
            return np.arange(first, first + int(shard.videos.num_rows[video_row]))
    return np.empty(0, np.int64)
