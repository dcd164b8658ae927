"""Which rows of a shard a search may find: live ones, of videos that pass its filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.shards.view import ShardView


def rows_allowed(
    shard: ShardView, numbers: NDArray[np.int64] | None, without_video_id: str | None = None
) -> NDArray[np.bool_] | None:
    """(N,) True for rows that may be found; None where all may.

    numbers: sorted numbers of the videos that pass, None for every video. without_video_id: a video to leave out.
    """
    if numbers is None and without_video_id is None:
        return shard.is_live
    videos = shard.videos
    passes = np.ones(len(videos.numbers), np.bool_)
    if numbers is not None:
        at = np.searchsorted(numbers, videos.numbers)
        passes = numbers[np.minimum(at, len(numbers) - 1)] == videos.numbers if len(numbers) else ~passes
    if without_video_id is not None:
        passes = passes & (videos.ids != without_video_id.encode("ascii", "replace"))
    allowed = np.repeat(passes, videos.num_rows)
    return allowed if shard.is_live is None else allowed & shard.is_live
