"""How many lists are scanned."""

from __future__ import annotations

import numpy as np

from indexer.shards.probes import choose_nprobe, probe_queries, recall_of
from tests.support.feature_blocks import unit


def test_the_fewest_lists_that_find_nearly_all_are_chosen() -> None:
    def search(nprobe: int) -> np.ndarray:
        found = np.tile(np.arange(100), (4, 1))
        found[:, 100 - max(0, 40 - nprobe) :] = -1
        return found

    assert choose_nprobe(search, 160) == (40, 1.0)  # a quarter


def test_all_lists_are_scanned_where_fewer_never_suffice() -> None:
    nprobe, recall = choose_nprobe(lambda n: np.full((2, 5), 7 if n == 64 else -1), 64)
    assert (nprobe, recall) == (64, 1.0)


def test_a_few_bad_queries_ask_for_more_lists_whatever_the_mean() -> None:
    def search(nprobe: int) -> np.ndarray:
        found = np.tile(np.arange(100), (20, 1))
        if nprobe < 32:
            found[:2, 85:] = -1  # a mean of 0.985, and yet 0.85 for two of them
        return found

    assert choose_nprobe(search, 64) == (32, 1.0)


def test_sampled_queries_lie_at_the_angle_that_sentences_have() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((100, 512)))
    queries = probe_queries(vectors, 80, rng)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-4)
    best = (queries @ vectors.T).max(axis=1)
    assert (best > 0.19).all() and (best < 0.36).all()


def test_recall_ignores_missing_ids() -> None:
    found, wanted = np.array([[1, 2, -1], [5, -1, -1]]), np.array([[2, 3, -1], [-1, -1, -1]])
    assert recall_of(found, wanted).tolist() == [0.5, 1.0]
