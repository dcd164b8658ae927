"""What a search reads of the shards: arrays that never change once they are in a view.

Letters: N segments of a shard, R frames of all of them, V videos of a shard.
A video's segments lie in one shard, side by side and in order of time. It knows no FAISS, no file and no catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.kernels.block import FeatureBlock, Rows


class CoarseIndex(Protocol):
    """Finds candidates of one shard without reading all of it; shards/coarse.py is the real one.

    Safe to be searched by many threads. `allowed` (N,) bool: rows that may be found; None: all.
    """

    def by_pooled(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> FoundRows:
        """The k segments whose pooled vectors have the largest inner product with each query (Q, P)."""
        ...

    def by_frames(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> FoundRows:
        """The k segments whose centres of frames have the largest inner product with each query (Q, D)."""
        ...


@dataclass(frozen=True, slots=True)
class FoundRows:
    """What a coarse index found for Q queries."""

    rows: Rows
    """(Q, K) rows of the shard, each at most once per query, best first; -1 where there are fewer."""
    scores: NDArray[np.float32]
    """(Q, K), -inf where there are fewer."""


@dataclass(frozen=True, slots=True)
class SegmentTable:
    """What each of N rows is."""

    segment_ids: NDArray[np.int64]
    """(N,)"""
    video_rows: NDArray[np.int32]
    """(N,) row in the VideoTable; never falls."""
    start_s: NDArray[np.float64]
    """(N,)"""
    end_s: NDArray[np.float64]
    """(N,)"""
    times_s: NDArray[np.float64]
    """(R,) the time of each frame, in the order of FeatureBlock.frames."""


@dataclass(frozen=True, slots=True)
class VideoTable:
    """The V videos of a shard; a replaced or removed one stays, its segments dead, until the shard is rebuilt."""

    numbers: NDArray[np.int64]
    """(V,) the catalogue's number of the video, which filters give."""
    ids: NDArray[np.bytes_]
    """(V,) ASCII."""
    first_row: NDArray[np.int64]
    """(V,) the video's first segment."""
    num_rows: NDArray[np.int64]
    """(V,)"""
    features_seq: NDArray[np.int64]
    """(V,) the change that brought these features."""

    def id_of(self, video_row: int) -> str:
        """The id of a video."""
        return bytes(self.ids[video_row]).decode("ascii")


@dataclass(frozen=True, slots=True)
class ShardView:
    """One shard at one moment."""

    segments: SegmentTable
    videos: VideoTable
    block: FeatureBlock
    is_live: NDArray[np.bool_] | None
    """(N,) False for segments of removed and replaced videos; None where all are live."""
    num_live: int
    coarse: CoarseIndex | None
    """None for a shard that is open, or whose coarse index isn't built yet: it is scored in full."""

    def __len__(self) -> int:
        return len(self.block)


@dataclass(frozen=True, slots=True)
class IndexView:
    """All shards at one moment: a search holds one view from its start to its end."""

    shards: tuple[ShardView, ...]
    generation: int
    """The newest change of the catalogue that is in here."""
    num_segments: int
    """Live ones."""
    num_videos: int
    """Live ones."""
    unreadable: Mapping[str, str]
    """Videos left out because their features can't be read: id -> why."""
    num_lost: int
    """Stored segments that no video of the change feed claims: more than 0 only in a damaged catalogue."""

    @property
    def is_whole(self) -> bool:
        """Whether everything that is stored could be read."""
        return not self.unreadable and not self.num_lost
