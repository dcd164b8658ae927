"""The compiled kernel's door: what it refuses, what it loads, and how little rounding changes in rank."""

from __future__ import annotations

import threading
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest

from model.compiled import BUILD_COMMAND
from model.errors import ShapeError
from model.kernels import native
from model.kernels.block import Store
from model.kernels.native import NativeKernel, PathName
from tests.support.kernels import random_block, random_case, referee, stored, topical, unit

PATHS = native.paths()
FLOATS: PathName = "avx2" if "avx2" in PATHS else "portable"
"""A path that multiplies in float32."""
is_built = pytest.mark.skipif(not PATHS, reason=native.problem())


def test_without_the_file_it_says_how_to_get_it(tmp_path: Path) -> None:
    library, why_not = native.open_library(tmp_path)
    assert library is None and "C++ compiler" in why_not and BUILD_COMMAND in why_not


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"_native{EXTENSION_SUFFIXES[0]}").write_bytes(b"torn")
    library, why_not = native.open_library(tmp_path)
    assert library is None and "can't be loaded" in why_not and BUILD_COMMAND in why_not


@is_built
def test_a_library_built_from_other_sources_is_refused() -> None:
    library, why_not = native.open_library(Path(native.__file__).parent, version=native.ABI_VERSION + 1)
    assert library is None and "other sources" in why_not and BUILD_COMMAND in why_not


@is_built
def test_the_best_path_is_taken_and_others_can_be_asked_for() -> None:
    loaded = native.load()
    assert loaded is not None and loaded.path == PATHS[0] and loaded.name == f"native {PATHS[0]}"
    assert PATHS[-1] == "portable"
    with pytest.raises(ValueError, match="this CPU has"):
        NativeKernel("sse9")  # type: ignore[arg-type]


@is_built
@pytest.mark.parametrize("rows", [[-1], [20], [0, 3, 2**40]])
def test_rows_outside_the_block_are_refused(rows: list[int]) -> None:
    rng = np.random.default_rng(0)
    case, block = random_case(rng, "aosm"), random_block(rng, np.full(20, 4, np.int32), 32)
    with pytest.raises(IndexError, match="20 segments"):
        NativeKernel().prepare(case.panel).totals(block, np.array(rows))


@is_built
def test_frames_outside_the_block_are_refused() -> None:
    rng = np.random.default_rng(0)
    case, block = random_case(rng, "maxsim"), random_block(rng, np.full(20, 4, np.int32), 32)
    query = NativeKernel().prepare(case.panel)
    for first, count in ((77, 4), (-1, 4), (2**62, 4), (0, 0), (0, 81)):
        starts, counts = block.first_frame.copy(), block.num_frames.copy()
        starts[7], counts[7] = first, count
        with pytest.raises(IndexError, match="frames lie outside"):
            query.totals(replace(block, first_frame=starts, num_frames=counts))


@is_built
def test_blocks_of_another_shape_or_type_are_refused() -> None:
    rng = np.random.default_rng(0)
    case, block = random_case(rng, "aosm"), random_block(rng, np.full(20, 4, np.int32), 32)
    query = NativeKernel().prepare(case.panel)
    wrong = (
        random_block(rng, np.full(20, 4, np.int32), 33),
        replace(block, frames=block.frames.astype(np.float32)),
        replace(block, pooled=np.asfortranarray(block.pooled)),
        replace(block, first_frame=block.first_frame[:-1]),
        replace(block, num_frames=block.num_frames.astype(np.int64)),
        replace(block, pooled_scales=np.ones(20, np.float32)),
    )
    for other in wrong:
        with pytest.raises(ShapeError):
            query.totals(other)


@is_built
def test_more_frames_than_the_model_mixes_are_refused() -> None:
    rng = np.random.default_rng(0)
    case, block = random_case(rng, "aosm", is_mixed=True), random_block(rng, np.full(20, 5, np.int32), 32)
    with pytest.raises(ShapeError, match="more frames"):
        NativeKernel().prepare(case.panel).totals(block)


@is_built
def test_no_rows_and_empty_blocks_give_empty_answers() -> None:
    rng = np.random.default_rng(0)
    case, block = random_case(rng, "aosm", num_rows=2), random_block(rng, np.full(3, 4, np.int32), 32)
    query = NativeKernel().prepare(case.panel)
    none = np.empty(0, np.int64)
    assert query.totals(block, none).shape == (2, 0)
    assert query.grains(block, none).shape == (2, 0, 4)
    assert query.relevance(block, none, 4).shape == (2, 0, 4)
    assert query.totals(random_block(rng, np.empty(0, np.int32), 32)).shape == (2, 0)


@is_built
@pytest.mark.parametrize("path", PATHS)
def test_long_queries_and_long_segments_are_scored(path: PathName) -> None:
    rng = np.random.default_rng(4)
    case = random_case(rng, "aosm", num_words=256, num_slots=256, dim=64, is_mixed=True, is_ragged=False)
    block = random_block(rng, np.array([256, 1, 100], np.int32), 64)
    found = NativeKernel(path).prepare(case.panel).totals(block)
    np.testing.assert_allclose(found, referee(case, block, None, 256)[0], atol=1.2e-2, rtol=0)


@is_built
def test_threads_share_a_query() -> None:
    rng = np.random.default_rng(5)
    case, block = random_case(rng, "aosm", num_words=9, dim=64), random_block(rng, np.full(4000, 4, np.int32), 64)
    query = NativeKernel().prepare(case.panel)
    expected, found = query.totals(block)[0], np.zeros(4000, np.float32)
    parts = np.array_split(rng.permutation(4000), 4)

    def score(rows: np.ndarray) -> None:
        found[rows] = query.totals(block, rows)[0]

    threads = [threading.Thread(target=score, args=(rows,)) for rows in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)


@is_built
@pytest.mark.parametrize("store", ["fp16", "int8"])
def test_rounding_changes_little_in_rank(store: Store) -> None:
    """Top-10 overlap with float32 over 200 queries that look for something of one segment."""
    rng = np.random.default_rng(6)
    frames, pooled = topical(rng, 400, 8, 512)
    counts = np.full(400, 8, np.int32)
    exact, block = (stored(frames.reshape(-1, 512), pooled, counts, kind) for kind in ("fp16", store))
    overlaps = []
    for _ in range(200):
        sought = frames[rng.integers(0, 400)]
        words, whole = 0.5 * sought[0] + 0.9 * unit(rng, 8, 512), 0.6 * sought[:1] + 0.8 * unit(rng, 1, 512)
        words, whole = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (words[None], whole))
        case = random_case(rng, "aosm", num_words=8, dim=512, is_ragged=False)
        panel = replace(case.panel, whole=whole, whole_mixed=whole, parts=words, parts_local=words)
        best = [
            set(np.argsort(-kernel.prepare(panel).totals(features)[0])[:10])
            for kernel, features in ((NativeKernel(FLOATS), exact), (NativeKernel(), block))
        ]
        overlaps.append(len(best[0] & best[1]) / 10)
    assert np.mean(overlaps) >= 0.99
