"""How many lists are scanned."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.shards.probes import RECALL, choose_nprobe, probe_queries, recall_of
from tests.support.feature_blocks import unit


def test_the_fewest_lists_that_find_nearly_all_are_chosen() -> None:
    def search(nprobe: int) -> np.ndarray:
        found = np.tile(np.arange(100), (4, 1))
        found[:, 100 - max(0, 40 - nprobe) :] = -1
        return found

    assert choose_nprobe(search, 160) == (40, 1.0)


def test_all_lists_are_scanned_where_fewer_never_suffice() -> None:
    nprobe, recall = choose_nprobe(lambda n: np.full((2, 5), 7 if n == 64 else -1), 64)
    assert (nprobe, recall) == (64, 1.0)


def test_one_bad_query_in_ten_asks_for_more_lists() -> None:
    def search(nprobe: int) -> np.ndarray:
        found = np.tile(np.arange(200), (10, 1))
        if nprobe < 32:
            found[0, 180:] = -1  # a mean of 0.99, and yet 0.9 for one of them
        return found

    nprobe, recall = choose_nprobe(search, 64)
    assert nprobe == 4 and recall == pytest.approx(RECALL)
    found = search(4)
    found[0, 150:] = -1
    assert np.percentile(recall_of(found, search(64)), 5) < 0.9


def test_sampled_queries_lie_at_the_angles_that_real_ones_have() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((300, 64)))
    queries = probe_queries(vectors, 80, rng)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-4)
    best = (queries @ vectors.T).max(1)
    assert (best[:20] > 0.85).all()
    assert (best[20:] > 0.19).all() and (best[20:] < 0.9).all()


def test_recall_ignores_missing_ids() -> None:
    found, wanted = np.array([[1, 2, -1], [5, -1, -1]]), np.array([[2, 3, -1], [-1, -1, -1]])
    assert recall_of(found, wanted).tolist() == [0.5, 1.0]
