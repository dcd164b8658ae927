"""Centres of a segment's frames."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.shards.centres import frame_centres
from model.kernels.block import FeatureBlock, Store
from tests.support.feature_blocks import block_of, ragged_frames, unit


def test_a_frame_unlike_all_others_is_a_centre_of_its_own() -> None:
    frames = ragged_frames(200, width=32, most_frames=12)
    rng = np.random.default_rng(1)
    odd = unit(rng.standard_normal((200, 32)))
    for row, those in enumerate(frames):
        those[rng.integers(len(those))] = odd[row]
    centres, owners = frame_centres(block_of(frames), np.arange(200), 3)
    best = np.array([(centres[owners == row] @ odd[row]).max() for row in range(200)])
    assert (best > 0.97).all()


def test_segments_of_few_frames_are_described_by_the_frames_themselves() -> None:
    frames = [unit(np.random.default_rng(count).standard_normal((count, 16))) for count in (1, 2, 3)]
    centres, owners = frame_centres(block_of(frames), np.arange(3), 3)
    assert owners.tolist() == [0, 1, 1, 2, 2, 2]
    for row, those in enumerate(frames):
        similarity = centres[owners == row] @ those.T
        np.testing.assert_allclose(similarity.max(0), 1, atol=2e-3)


@pytest.mark.parametrize("store", ["fp16", "int8"])
def test_every_frame_is_nearest_to_the_centre_that_it_is_in(store: Store) -> None:
    """With as many centres as there are shots in a segment, each is found."""
    rng = np.random.default_rng(2)
    shots = unit(rng.standard_normal((50, 3, 24)))
    frames = [unit(np.repeat(three, 4, axis=0) + 0.05 * rng.standard_normal((12, 24))) for three in shots]
    centres, owners = frame_centres(block_of(frames, store=store), np.arange(50), 3)
    assert np.bincount(owners).tolist() == [3] * 50
    for row in range(50):
        assert ((centres[owners == row] @ shots[row].T).max(0) > 0.98).all()
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=0.01)


def test_equal_frames_make_one_centre() -> None:
    frames = [np.repeat(unit(np.ones((1, 8))), 5, axis=0)]
    centres, owners = frame_centres(block_of(frames), np.arange(1), 3)
    assert owners.tolist() == [0]
    np.testing.assert_allclose(centres, frames[0][:1], atol=1e-3)


def test_numbers_that_are_not_finite_count_as_zero() -> None:
    frames = ragged_frames(4, width=8)
    frames[2][:] = np.nan
    centres, owners = frame_centres(block_of(frames), np.arange(4), 2)
    assert np.isfinite(centres).all()
    assert not centres[owners == 2].any()


def test_no_segments_have_no_centres() -> None:
    block = block_of(ragged_frames(2, width=8))
    nothing = FeatureBlock(block.frames[:0], block.pooled[:0], block.first_frame[:0], block.num_frames[:0])
    centres, owners = frame_centres(nothing, np.arange(0), 3)
    assert centres.shape == (0, 8) and owners.shape == (0,)
