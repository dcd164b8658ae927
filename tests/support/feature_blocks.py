"""Small feature blocks for tests of kernels and shards: clusters of similar segments, ragged frames, fp16 or int8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.kernels.block import FeatureBlock, Store, quantize


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors of length 1."""
    scaled: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def ragged_frames(
    num_segments: int, *, width: int = 32, most_frames: int = 12, seed: int = 0
) -> list[NDArray[np.float32]]:
    """For each segment 1 to `most_frames` unit frames close to one another; some segments resemble one another."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((max(2, num_segments // 20), width))
    segments = topics[rng.integers(len(topics), size=num_segments)] + 0.7 * rng.standard_normal((num_segments, width))
    return [
        unit(segment + 0.3 * rng.standard_normal((int(rng.integers(1, most_frames + 1)), width)))
        for segment in segments
    ]


def block_of(
    frames: list[NDArray[np.float32]], *, pooled: NDArray[np.float32] | None = None, store: Store = "fp16"
) -> FeatureBlock:
    """A block of these segments; pooled vectors are the means of the frames if none are given."""
    counts = np.array([len(those) for those in frames], np.int32)
    rows = np.concatenate(frames)
    pooled = unit(np.stack([those.mean(0) for those in frames])) if pooled is None else pooled
    first = np.cumsum(counts, dtype=np.int64) - counts
    if store == "fp16":
        return FeatureBlock(rows.astype(np.float16), pooled.astype(np.float16), first, counts)
    (frame_codes, frame_scales), (pooled_codes, pooled_scales) = quantize(rows), quantize(pooled)
    return FeatureBlock(frame_codes, pooled_codes, first, counts, frame_scales, pooled_scales)
