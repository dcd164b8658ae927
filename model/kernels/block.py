"""The features of many segments as they lie in memory, which every kernel reads in place.

Letters: N segments, R frames of all of them, D width of frames, P width of pooled vectors.
It knows no model, no file and no index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Store = Literal["fp16", "int8"]
"""How features are kept in memory: half precision, or one byte a number and a scale for each vector."""

Rows = NDArray[np.int64]
"""Numbers of segments within a block."""


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """Features of N segments: all frames under one another in the order of the segments, and a pooled row for each.

    Nothing in it changes once it was made; a block that grows is a new block over the same memory.
    """

    frames: NDArray[np.float16] | NDArray[np.int8]
    """(R, D), C-contiguous."""
    pooled: NDArray[np.float16] | NDArray[np.int8]
    """(N, P), C-contiguous."""
    first_frame: NDArray[np.int64]
    """(N,): where the frames of a segment begin."""
    num_frames: NDArray[np.int32]
    """(N,): how many there are, at least one."""
    frame_scales: NDArray[np.float32] | None = None
    """(R,): frame = int8 row x scale; None for float16."""
    pooled_scales: NDArray[np.float32] | None = None
    """(N,): likewise."""

    def __len__(self) -> int:
        return len(self.num_frames)

    @property
    def store(self) -> Store:
        """How the features are kept."""
        return "int8" if self.frame_scales is not None else "fp16"

    @property
    def size_bytes(self) -> int:
        """Bytes of the features, without the two columns that say where they lie."""
        scales = sum(s.nbytes for s in (self.frame_scales, self.pooled_scales) if s is not None)
        return self.frames.nbytes + self.pooled.nbytes + scales


@dataclass(frozen=True, slots=True)
class DenseFeatures:
    """Copies of the features of V segments in F slots, float32: what the torch code takes."""

    pooled: NDArray[np.float32]
    """(V, P)"""
    frames: NDArray[np.float32]
    """(V, F, D), zeros in padded slots."""
    mask: NDArray[np.bool_]
    """(V, F), True = real."""


def gather(block: FeatureBlock, rows: Rows | slice, num_slots: int) -> DenseFeatures:
    """Copy some segments out of a block, F = num_slots."""
    counts, first = block.num_frames[rows], block.first_frame[rows]
    mask = np.arange(num_slots)[None, :] < counts[:, None]
    at = (first[:, None] + np.arange(num_slots)[None, :])[mask]
    frames = np.zeros((len(counts), num_slots, block.frames.shape[1]), np.float32)
    pooled = block.pooled[rows].astype(np.float32)
    real = block.frames[at].astype(np.float32)
    if block.frame_scales is not None and block.pooled_scales is not None:
        real *= block.frame_scales[at][:, None]
        pooled *= block.pooled_scales[rows][:, None]
    frames[mask] = real
    return DenseFeatures(pooled, frames, mask)


def quantize(vectors: NDArray[np.floating]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(R, D) -> int8 rows in -127..127 and their scales (R,), so that row x scale is nearest; zeros have scale 0."""
    vectors = np.asarray(vectors, dtype=np.float32)
    scales = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(127.0)
    unit = vectors / np.where(scales > 0, scales, 1.0)[:, None]
    return np.rint(unit).astype(np.int8), scales.astype(np.float32)
