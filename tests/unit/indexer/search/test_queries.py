"""Stored segments as a query: whole, cut by a range, and of models whose pooled vectors aren't as wide as frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexer.records import SegmentFeatures, StoredSegment
from indexer.search.queries import stored_features
from model.transformer import pool

SLOTS = 4
CPU = torch.device("cpu")


def stored(num_segments: int, pooled_dim: int = 8, scale: float = 1.0) -> list[StoredSegment]:
    """Segments of 4 s with a frame each second, 8 wide."""
    rng = np.random.default_rng(3)
    made = []
    for n in range(num_segments):
        times_s = tuple(4.0 * n + 0.5 + f for f in range(4))
        frames = scale * rng.standard_normal((4, 8)) * rng.uniform(1, 9, (4, 1))
        features = SegmentFeatures(
            4.0 * n,
            4.0 * n + 4,
            times_s,
            rng.standard_normal(pooled_dim).astype(np.float16),
            frames.astype(np.float16),
        )
        made.append(StoredSegment(n + 1, "v", n, features))
    return made


@pytest.mark.parametrize("pooled_dim", [8, 16])
def test_whole_segments_are_what_was_stored(pooled_dim: int) -> None:
    segments = stored(2, pooled_dim)
    query = stored_features(segments, 0.0, 8.0, SLOTS, CPU)
    assert query is not None and query.pooled.shape == (2, pooled_dim) and query.frames.shape == (2, SLOTS, 8)
    assert query.mask.all()
    for row, segment in enumerate(segments):
        np.testing.assert_array_equal(query.pooled[row].numpy(), segment.features.pooled.astype(np.float32))
        np.testing.assert_array_equal(query.frames[row].numpy(), segment.features.frames.astype(np.float32))


@pytest.mark.parametrize("pooled_dim", [8, 16])
def test_a_range_keeps_the_frames_inside_of_it(pooled_dim: int) -> None:
    segments = stored(3, pooled_dim)
    query = stored_features(segments, 2.0, 8.0, SLOTS, CPU)
    assert query is not None and query.mask.sum(1).tolist() == [2, 4]
    inside = torch.from_numpy(segments[0].features.frames[2:].astype(np.float32))
    torch.testing.assert_close(query.frames[0, :2], inside)
    assert not query.frames[0, 2:].any()
    whole = torch.from_numpy(segments[0].features.pooled.astype(np.float32))
    if pooled_dim == 8:  # frames that aren't normalised count alike, as where the model pools them
        expected = pool(inside[None], torch.ones(1, 2, dtype=torch.bool))[0]
        torch.testing.assert_close(query.pooled[0], expected)
        assert not torch.allclose(query.pooled[0], whole)
    else:
        torch.testing.assert_close(query.pooled[0], whole)


def test_a_range_between_frames_is_none() -> None:
    assert stored_features(stored(2), 0.6, 0.9, SLOTS, CPU) is None
    assert stored_features([], 0.0, 9.0, SLOTS, CPU) is None
