"""The recall benchmark: its truth is that of the reference, its library holds what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.recall import Merged
from benchmarks.recall_data import KINDS, NUM_FRAMES, Library
from benchmarks.recall_truth import BEST, ExactTop
from indexer.shards.view import FoundRows
from model.kernels.aosm_reference import Mixing, four_grains
from model.kernels.block import FeatureBlock, gather


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(600, 6, num_shards=2, width=64)


def exact_totals(library: Library, block: FeatureBlock, query: int) -> np.ndarray:
    features, asked = gather(block, slice(None), NUM_FRAMES), library.sentences
    whole, words = (torch.from_numpy(x[query : query + 1]) for x in (asked.whole, asked.words))
    pooled, frames = torch.from_numpy(features.pooled), torch.from_numpy(features.frames)
    return four_grains(whole, words, pooled, frames, Mixing()).grains_TV4.mean(-1)[0].numpy()


def test_the_exact_ten_are_those_of_the_reference_over_all_segments(library: Library) -> None:
    blocks = [library.shard(number) for number in range(2)]
    truth = ExactTop(library.sentences, NUM_FRAMES)
    for number, block in enumerate(blocks):
        truth.add(block, 300 * number)
    for query in range(6):
        totals = np.concatenate([exact_totals(library, block, query) for block in blocks])
        best = np.argsort(-totals)[:BEST]
        np.testing.assert_allclose(truth.totals[query], totals[best], atol=1e-5)
        assert set(truth.rows[query]) == set(best)


def test_a_library_is_the_same_each_time_and_holds_what_was_planted(library: Library) -> None:
    block, again = library.shard(0), Library(600, 6, num_shards=2, width=64).shard(0)
    np.testing.assert_array_equal(block.frames, again.frames)
    asked = library.sentences
    assert asked.kinds.tolist() == list(KINDS) * 2
    frames = np.concatenate([library.shard(number).frames for number in range(2)]).astype(np.float32)
    by_segment = (asked.whole @ frames.T).reshape(6, 600, NUM_FRAMES).max(axis=2)
    for query in np.flatnonzero(asked.kinds != "whole"):
        rank = int((by_segment[query] > by_segment[query, asked.targets[query]]).sum())
        assert rank < 60  # of 600, at a width at which noise is louder than at 512


def test_the_best_of_several_shards_are_merged() -> None:
    merged = Merged(1)
    merged.add(FoundRows(np.array([[3, 1]]), np.array([[0.9, 0.2]], np.float32)), 0)
    merged.add(FoundRows(np.array([[0, -1]]), np.array([[0.5, -np.inf]], np.float32)), 100)
    assert merged.rows[0, :4].tolist() == [3, 100, 1, -1]
    assert merged.ranks(np.array([[1, 100, 7]])).tolist() == [[2, 1, merged.rows.shape[1]]]
