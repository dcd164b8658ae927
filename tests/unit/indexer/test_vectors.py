"""FAISS's door: what is recalled and gathered is what the catalogue holds, also while it changes."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from indexer.errors import BackendMissing
from indexer.vectors import VectorIndex
from tests.support.shelf import MemoryShelf, random_features

DIM, SLOTS = 16, 4


def filled(num_videos: int = 30, seed: int = 0) -> tuple[MemoryShelf, VectorIndex]:
    rng = np.random.default_rng(seed)
    shelf, vectors = MemoryShelf(), VectorIndex(DIM, SLOTS)
    for number in range(num_videos):
        shelf.publish(f"v{number}", random_features(rng, int(rng.integers(1, 4))))
    vectors.follow(shelf)
    return shelf, vectors


def queries(num: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, DIM)).astype(np.float32)


def by_hand(vectors: VectorIndex, query: np.ndarray, ids: np.ndarray, *, by_frames: bool) -> list[int]:
    block = vectors.features(ids)
    if by_frames:
        scores = np.where(block.mask, block.frames.astype(np.float32) @ query, -np.inf).max(1)
    else:
        scores = block.pooled.astype(np.float32) @ query
    return [int(i) for i in block.table.segment_ids[np.argsort(-scores)]]


@pytest.mark.parametrize("by_frames", [False, True])
@pytest.mark.parametrize("is_filtered", [False, True])
def test_recall_is_the_largest_inner_products_after_the_filter(by_frames: bool, is_filtered: bool) -> None:
    _, vectors = filled()
    allowed = vectors.all_ids()[::3] if is_filtered else None
    recall = vectors.recall_frames if by_frames else vectors.recall
    found = recall(queries(3), 5, allowed)
    assert found.segment_ids.shape == (3, 5)
    for query, ids in zip(queries(3), found.segment_ids, strict=True):
        among = vectors.all_ids() if allowed is None else allowed
        assert list(ids) == by_hand(vectors, query, among, by_frames=by_frames)[:5]


@pytest.mark.parametrize("pooled_dim", [8, 32])
def test_pooled_vectors_may_have_a_width_of_their_own(pooled_dim: int) -> None:
    rng = np.random.default_rng(4)
    shelf, vectors = MemoryShelf(), VectorIndex(DIM, SLOTS, pooled_dim=pooled_dim)
    assert vectors.features(np.empty(0, np.int64)).pooled.shape == (0, pooled_dim)
    for number in range(12):
        shelf.publish(f"v{number}", random_features(rng, 2, pooled_dim=pooled_dim))
    vectors.follow(shelf)
    query = rng.standard_normal((1, pooled_dim)).astype(np.float32)
    expected = by_hand(vectors, query[0], vectors.all_ids(), by_frames=False)
    assert list(vectors.recall(query, 24).segment_ids[0]) == expected
    by_frame = by_hand(vectors, queries(1)[0], vectors.all_ids(), by_frames=True)
    assert list(vectors.recall_frames(queries(1), 24).segment_ids[0]) == by_frame
    shelf.remove("v3")
    vectors.follow(shelf)
    segment = shelf.segments("v7")[1]
    block = vectors.features(np.array([segment.id]))
    assert (block.pooled[0] == segment.features.pooled).all()
    assert (block.frames[0][block.mask[0]] == segment.features.frames).all()


def test_asking_for_more_than_there_is_gives_what_there_is() -> None:
    _, vectors = filled(3)
    allowed = vectors.all_ids()[:2]
    for recall in (vectors.recall, vectors.recall_frames):
        assert sorted(recall(queries(1), 1000, allowed).segment_ids[0]) == sorted(allowed)
        assert recall(queries(2), 5, np.empty(0, np.int64)).segment_ids.shape == (2, 0)
        assert recall(queries(2), 5, np.array([999_999])).segment_ids.shape == (2, 0)


def test_an_empty_index_answers() -> None:
    vectors = VectorIndex(DIM, SLOTS)
    assert vectors.follow(MemoryShelf()) == 0
    assert vectors.recall(queries(1), 5, None).segment_ids.size == 0
    assert vectors.recall_frames(queries(1), 5, None).segment_ids.size == 0
    assert vectors.features(np.array([1, 2])).pooled.shape == (0, DIM)
    assert (vectors.num_segments, vectors.num_videos) == (0, 0)


def test_features_come_back_bit_for_bit_in_the_order_asked() -> None:
    shelf, vectors = filled()
    ids = vectors.all_ids()[::-2]
    block = vectors.features(np.append(ids, 999_999))
    assert list(block.table.segment_ids) == list(ids)
    stored = {s.id: s for n in range(30) for s in shelf.segments(f"v{n}")}
    for row, segment_id in enumerate(ids):
        segment = stored[int(segment_id)]
        count = len(segment.features.frames)
        assert (block.pooled[row] == segment.features.pooled).all()
        assert (block.frames[row, :count] == segment.features.frames).all()
        assert not block.frames[row, count:].any()
        assert list(block.mask[row]) == [slot < count for slot in range(SLOTS)]
        assert tuple(block.table.times_s[row, :count]) == segment.features.times_s
        assert vectors.video_id(int(block.table.video_codes[row])) == segment.video_id


def test_following_removes_replaces_and_adds() -> None:
    shelf, vectors = filled(5)
    rng = np.random.default_rng(3)
    old = {s.id for s in (*shelf.segments("v1"), *shelf.segments("v3"))}
    shelf.remove("v1")
    shelf.publish("v3", random_features(rng, 2))
    shelf.publish("new", random_features(rng, 1))
    shelf.touch("v0")
    seq = vectors.follow(shelf)
    assert (seq, vectors.generation) == (9, 9)
    assert vectors.all_ids()[-1] == shelf.segments("v0")[-1].id
    assert list(vectors.features(np.sort(vectors.all_ids())).table.segment_ids) == sorted(vectors.all_ids())
    assert sorted(vectors.all_ids()) == sorted(shelf.segment_ids(None, None))
    assert not old & set(vectors.all_ids())
    assert vectors.num_videos == 5
    assert sorted(vectors.all_ids(without_video_id="new")) == sorted(shelf.segment_ids(None, ["v0", "v2", "v3", "v4"]))


def test_a_damaged_video_is_left_out_named_and_comes_back_when_it_is_published_anew() -> None:
    shelf, _ = filled(3)
    shelf.damaged.add("v1")
    fresh = VectorIndex(DIM, SLOTS)
    fresh.follow(shelf)
    assert list(fresh.unreadable) == ["v1"]
    assert fresh.num_videos == 2
    shelf.damaged.clear()
    shelf.publish("v1", random_features(np.random.default_rng(0), 1))
    fresh.follow(shelf)
    assert (fresh.unreadable, fresh.num_videos) == ({}, 3)


def test_many_pages_and_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, vectors = filled(30)
    monkeypatch.setattr("indexer.vectors.FEED_PAGE", 7)
    monkeypatch.setattr("indexer.vectors.SEGMENTS_PER_BATCH", 4)
    paged = VectorIndex(DIM, SLOTS)
    assert paged.follow(shelf) == vectors.generation
    assert (paged.all_ids() == vectors.all_ids()).all()
    assert (paged.features(paged.all_ids()).frames == vectors.features(vectors.all_ids()).frames).all()


def test_searching_while_following_never_mixes_rows() -> None:
    """Every segment's frames carry its number, so a row read from the wrong place shows."""
    shelf, vectors = MemoryShelf(), VectorIndex(DIM, SLOTS)
    rng = np.random.default_rng(5)
    wrong: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = vectors.recall_frames(queries(2), 20, None).segment_ids
            block = vectors.features(np.unique(found[found >= 0]))
            for row, segment_id in enumerate(block.table.segment_ids):
                expected = block.pooled[row]
                if not (block.frames[row][block.mask[row]] == expected).all():
                    wrong.append(f"segment {segment_id}")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for step in range(150):
            features = random_features(rng, 2)
            for part in features:
                part.frames[:] = part.pooled
            shelf.publish(f"v{step % 12}", features)
            if step % 5 == 4:
                shelf.remove(f"v{step % 12}")
            vectors.follow(shelf)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert sorted(vectors.all_ids()) == sorted(shelf.segment_ids(None, None))


def test_without_faiss_the_error_names_both_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BackendMissing) as caught:
        VectorIndex(DIM, SLOTS)
    assert "vidgrain[cpu]" in caught.value.hint
    assert "vidgrain[gpu]" in caught.value.hint


def test_a_faiss_that_cannot_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    old = types.ModuleType("faiss")
    old.__version__ = "1.7.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faiss", old)
    with pytest.raises(BackendMissing, match=r"1\.7\.2 is too old"):
        VectorIndex(DIM, SLOTS)
