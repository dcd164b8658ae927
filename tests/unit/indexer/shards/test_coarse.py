"""The coarse index of one shard."""

from __future__ import annotations

import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.errors import BackendMissing, CatalogueUnreadable
from indexer.shards.coarse import Coarse
from indexer.shards.view import FoundRows
from model.kernels.block import FeatureBlock, Store
from tests.support.feature_blocks import block_of, ragged_frames, unit

WIDTH = 32


@pytest.fixture(scope="module")
def block() -> FeatureBlock:
    return block_of(ragged_frames(600, width=WIDTH))


@pytest.fixture(scope="module")
def many_lists() -> tuple[FeatureBlock, Coarse]:
    """Large enough for several lists."""
    block = block_of(ragged_frames(5000, width=WIDTH, most_frames=3))
    return block, Coarse.build(block, has_frame_recall=True)


@pytest.fixture(scope="module")
def coarse(block: FeatureBlock) -> Coarse:
    return Coarse.build(block, has_frame_recall=True)


def queries(number: int, seed: int = 5) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((number, WIDTH)))


def assert_is_sound(found: FoundRows, k: int, allowed: NDArray[np.bool_] | None, num_rows: int) -> None:
    """Rows distinct and allowed, as many as there can be, best first."""
    num_allowed = num_rows if allowed is None else int(allowed.sum())
    for rows, scores in zip(found.rows, found.scores, strict=True):
        real = rows[rows >= 0]
        assert len(real) == len(set(real.tolist())) == min(k, num_allowed)
        assert allowed is None or allowed[real].all()
        assert (np.diff(scores[: len(real)]) <= 0).all() and np.isneginf(scores[len(real) :]).all()


def test_the_frame_that_pooling_hides_is_found_by_its_centre() -> None:
    frames = ragged_frames(400, width=WIDTH, most_frames=12)
    needle = unit(np.random.default_rng(9).standard_normal((1, WIDTH)))
    frames[123] = np.concatenate([np.repeat(frames[123][:1], 11, axis=0), needle])
    found = Coarse.build(block_of(frames), has_frame_recall=True).by_frames(needle, 5, None)
    assert found.rows[0, 0] == 123


@pytest.mark.parametrize("store", ["fp16", "int8"])
def test_scores_are_close_to_the_exact_inner_products(store: Store) -> None:
    frames = ragged_frames(600, width=WIDTH)
    pooled = unit(np.stack([those.mean(0) for those in frames]))
    coarse = Coarse.build(block_of(frames, store=store), has_frame_recall=False)
    asked = queries(20)
    found = coarse.by_pooled(asked, 600, None)
    exact = np.take_along_axis(asked @ pooled.T, found.rows, axis=1)
    assert np.abs(found.scores - exact).max() < 0.35
    assert np.corrcoef(found.scores.ravel(), exact.ravel())[0, 1] > 0.95
    best = (asked @ pooled.T).argsort(1)[:, -5:]
    assert np.isin(best[0], found.rows[0, :60]).all()


@pytest.mark.parametrize("k", [1, 7, 600, 10_000])
def test_rows_are_distinct_and_best_first(coarse: Coarse, k: int) -> None:
    for search in (coarse.by_pooled, coarse.by_frames):
        assert_is_sound(search(queries(3), k, None), k, None, 600)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.6, 1.0])
def test_a_filter_leaves_as_many_rows_as_it_allows(many_lists: tuple[FeatureBlock, Coarse], share: float) -> None:
    block, coarse = many_lists
    allowed = np.random.default_rng(3).random(len(block)) < share
    for search in (coarse.by_pooled, coarse.by_frames):
        for k in (1, 50, 4000):
            assert_is_sound(search(queries(2), k, allowed), k, allowed, len(block))


def test_a_filter_that_leaves_one_far_cluster_is_served_from_all_lists(
    many_lists: tuple[FeatureBlock, Coarse],
) -> None:
    """More than half of the rows may be found, all of them far from the query."""
    block, coarse = many_lists
    asked = queries(1)
    allowed = np.zeros(len(block), np.bool_)
    allowed[(block.pooled.astype(np.float32) @ asked[0]).argsort()[: len(block) * 2 // 3]] = True
    assert_is_sound(coarse.by_pooled(asked, 3000, allowed), 3000, allowed, len(block))


def test_the_number_of_lists_scanned_is_measured(many_lists: tuple[FeatureBlock, Coarse]) -> None:
    about = many_lists[1].describe()
    for channel in ("pooled", "frames"):
        assert about[channel]["lists"] > 1
        assert 1 <= about[channel]["nprobe"] <= about[channel]["lists"]
        assert 0.99 <= about[channel]["recall"] <= 1


@pytest.mark.parametrize("num_segments", [1, 2, 17])
def test_the_smallest_shards_work(num_segments: int) -> None:
    block = block_of(ragged_frames(num_segments, width=7, most_frames=2))
    coarse = Coarse.build(block, has_frame_recall=True)
    asked = unit(np.random.default_rng(0).standard_normal((2, 7)))
    for search in (coarse.by_pooled, coarse.by_frames):
        assert_is_sound(search(asked, 5, None), 5, None, num_segments)


def test_a_query_of_zeros_finds_any_rows(coarse: Coarse) -> None:
    found = coarse.by_frames(np.zeros((1, WIDTH), np.float32), 20, np.arange(600) > 500)
    assert_is_sound(found, 20, np.arange(600) > 500, 600)


def test_segments_that_are_all_equal_are_all_found() -> None:
    frames = [np.repeat(unit(np.ones((1, WIDTH))), 4, axis=0) for _ in range(100)]
    coarse = Coarse.build(block_of(frames), has_frame_recall=True)
    for search in (coarse.by_pooled, coarse.by_frames):
        found = search(frames[0][:1], 100, None)
        assert_is_sound(found, 100, None, 100)
        np.testing.assert_allclose(found.scores, 1, atol=0.01)


def test_pooled_vectors_may_have_a_width_of_their_own() -> None:
    frames = ragged_frames(50, width=12)
    pooled = unit(np.random.default_rng(0).standard_normal((50, 20)))
    coarse = Coarse.build(block_of(frames, pooled=pooled), has_frame_recall=True)
    assert coarse.by_pooled(pooled[7:8], 3, None).rows[0, 0] == 7
    assert 7 in coarse.by_frames(frames[7][:1], 5, None).rows[0]


def test_without_frame_recall_there_is_no_second_index(block: FeatureBlock, coarse: Coarse) -> None:
    smaller = Coarse.build(block, has_frame_recall=False)
    assert set(smaller.describe()) == {"pooled"} and smaller.size_bytes < coarse.size_bytes
    with pytest.raises(ValueError, match="without frames"):
        smaller.by_frames(queries(1), 3, None)


def test_a_segment_of_nan_spoils_no_other() -> None:
    frames = ragged_frames(200, width=WIDTH)
    target = frames[150][0].copy()
    frames[20][:] = np.nan
    coarse = Coarse.build(block_of(frames), has_frame_recall=True)
    found = coarse.by_frames(target[None], 10, None)
    assert 150 in found.rows[0] and np.isfinite(found.scores).all()


def test_the_same_seed_builds_the_same_index(block: FeatureBlock, coarse: Coarse) -> None:
    again = Coarse.build(block, has_frame_recall=True)
    assert all(np.array_equal(part, again.parts()[name]) for name, part in coarse.parts().items())


def test_many_threads_find_what_one_finds(many_lists: tuple[FeatureBlock, Coarse]) -> None:
    block, coarse = many_lists
    allowed = np.arange(len(block)) % 3 > 0
    asked = [queries(1, seed) for seed in range(40)]
    alone = [coarse.by_frames(query, 50, allowed).rows for query in asked]
    with ThreadPoolExecutor(8) as pool:
        together = [found.rows for found in pool.map(lambda query: coarse.by_frames(query, 50, allowed), asked)]
    np.testing.assert_array_equal(alone, together)


def test_one_openmp_thread_is_used_by_the_thread_that_searches_and_no_other_is_changed(coarse: Coarse) -> None:
    import faiss

    def searched() -> int:
        faiss.omp_set_num_threads(5)
        coarse.by_pooled(queries(1), 3, None)
        return int(faiss.omp_get_max_threads())

    def idle() -> int:
        return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        before = other.submit(idle).result()
        assert one.submit(searched).result() == 1
        assert other.submit(idle).result() == before


# ---- snapshots


def test_an_index_opened_from_its_parts_answers_alike(many_lists: tuple[FeatureBlock, Coarse]) -> None:
    coarse = many_lists[1]
    parts = coarse.parts()
    for name, part in parts.items():
        assert part.dtype == np.uint8 and part.ndim == 1
        # as a mapped file is: read-only, and at any address
        parts[name] = np.frombuffer(b"x" + part.tobytes(), np.uint8)[1:]
    opened = Coarse.from_parts(parts)
    del parts
    assert opened.describe() == coarse.describe() and opened.size_bytes == coarse.size_bytes
    for one, other in ((coarse.by_pooled, opened.by_pooled), (coarse.by_frames, opened.by_frames)):
        np.testing.assert_array_equal(one(queries(5), 100, None).rows, other(queries(5), 100, None).rows)


def _changed_head(parts: dict[str, NDArray[np.uint8]], channel: str, **changes: object) -> NDArray[np.uint8]:
    head = json.loads(parts["head"].tobytes())
    head["channels"][channel].update(changes)
    return np.frombuffer(json.dumps(head).encode(), np.uint8)


def test_damaged_parts_are_an_error_that_says_what_to_do(coarse: Coarse) -> None:
    parts = coarse.parts()
    damaged = [
        {},
        parts | {"head": np.zeros(10, np.uint8)},
        parts | {"head": np.frombuffer(b"[]", np.uint8)},
        parts | {"head": np.frombuffer(b'{"format": 0}', np.uint8)},
        parts | {"head": _changed_head(parts, "pooled", entries=599)},
        parts | {"head": _changed_head(parts, "pooled", nprobe=2)},
        parts | {"head": _changed_head(parts, "frames", width=WIDTH + 2)},
        parts | {"head": _changed_head(parts, "frames", more=1)},
        parts | {"head": _changed_head(parts, "frames", rows="many")},
        {name: part for name, part in parts.items() if name != "frames"},
        parts | {"pooled": np.zeros(0, np.uint8)},
        *(parts | {"frames": parts["frames"][:cut].copy()} for cut in (3, 50, 1000, len(parts["frames"]) - 1)),
        parts | {"pooled": parts["pooled"][::-1].copy()},
    ]
    for those in damaged:
        with pytest.raises(CatalogueUnreadable) as caught:
            Coarse.from_parts(those)
        assert "snapshot" in (caught.value.hint or "")


# ---- FAISS itself


def test_without_faiss_the_error_names_both_extras(block: FeatureBlock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BackendMissing) as caught:
        Coarse.build(block, has_frame_recall=False)
    assert "vidgrain[cpu]" in (caught.value.hint or "") and "vidgrain[gpu]" in (caught.value.hint or "")


def test_an_old_faiss_is_refused(block: FeatureBlock, monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.ModuleType("faiss")
    old.__version__ = "1.8.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faiss", old)
    with pytest.raises(BackendMissing, match=r"1\.8\.0 is too old"):
        Coarse.build(block, has_frame_recall=False)
