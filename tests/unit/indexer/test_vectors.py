"""What a view of the vectors holds is what the catalogue holds, also while it changes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from indexer.records import PackedSegment
from indexer.shards.sizes import ShardSizes
from indexer.vectors import VectorIndex
from tests.support.shelf import MemoryShelf, random_features
from tests.support.views import check, held, ids

DIM, SLOTS = 16, 4
TINY = ShardSizes(open_segments=8, shard_segments=32)


def filled(num_videos: int = 30, seed: int = 0, **options: object) -> tuple[MemoryShelf, VectorIndex]:
    rng = np.random.default_rng(seed)
    shelf, vectors = MemoryShelf(), VectorIndex(DIM, SLOTS, **options)  # type: ignore[arg-type]
    for number in range(num_videos):
        shelf.publish(f"v{number}", random_features(rng, int(rng.integers(1, 4))))
    vectors.follow(shelf)
    return shelf, vectors


def stored_ids(shelf: MemoryShelf) -> dict[str, list[int]]:
    return {key: [segment.id for segment in shelf.segments(key)] for key in shelf.video_ids()}


@pytest.mark.parametrize("sizes", [ShardSizes(), TINY])
@pytest.mark.parametrize("pooled_dim", [None, 8, 32])
def test_features_are_held_bit_for_bit(sizes: ShardSizes, pooled_dim: int | None) -> None:
    rng = np.random.default_rng(4)
    shelf, vectors = MemoryShelf(), VectorIndex(DIM, SLOTS, pooled_dim=pooled_dim, sizes=sizes)
    for number in range(30):
        shelf.publish(f"v{number}", random_features(rng, 2, pooled_dim=pooled_dim))
        if number == 10:
            vectors.follow(shelf)
    vectors.follow(shelf)
    check(vectors.view())
    videos = held(vectors.view())
    assert set(videos) == set(shelf.video_ids())
    for video_id, segments in videos.items():
        for mine, stored in zip(segments, shelf.segments(video_id), strict=True):
            features = stored.features
            assert (mine.id, mine.start_s, mine.end_s) == (stored.id, features.start_s, features.end_s)
            assert mine.times_s == features.times_s
            assert (mine.pooled == features.pooled).all()
            assert (mine.frames == features.frames).all()


def test_one_byte_a_number_is_near_what_is_stored() -> None:
    shelf, vectors = filled(store="int8", sizes=TINY)
    check(vectors.view())
    assert {shard.block.store for shard in vectors.view().shards} == {"int8"}
    for video_id, segments in held(vectors.view()).items():
        for mine, stored in zip(segments, shelf.segments(video_id), strict=True):
            bound = np.abs(stored.features.frames.astype(np.float32)).max(1, keepdims=True) / 253
            assert (np.abs(mine.frames - stored.features.frames) <= bound).all()


def test_an_empty_index_has_an_empty_view() -> None:
    vectors = VectorIndex(DIM, SLOTS)
    assert vectors.follow(MemoryShelf()) == 0
    assert vectors.view().shards == ()
    assert (vectors.num_segments, vectors.num_videos, vectors.generation, vectors.is_whole) == (0, 0, 0, True)


@pytest.mark.parametrize("sizes", [ShardSizes(), TINY])
def test_following_removes_replaces_and_adds(sizes: ShardSizes) -> None:
    shelf, vectors = filled(5, sizes=sizes)
    rng = np.random.default_rng(3)
    before, old = vectors.view(), ids(vectors.view())
    shelf.remove("v1")
    shelf.publish("v3", random_features(rng, 2))
    shelf.publish("new", random_features(rng, 1))
    shelf.touch("v0")
    assert (vectors.follow(shelf), vectors.generation) == (9, 9)
    check(vectors.view())
    assert ids(vectors.view()) == stored_ids(shelf)
    assert vectors.num_videos == 5
    assert ids(before) == old, "a view stays as it is"


def test_a_new_title_moves_nothing() -> None:
    shelf, vectors = filled(5)
    shards = vectors.view().shards
    shelf.touch("v0")
    shelf.touch("v3")
    assert vectors.follow(shelf) == 7
    assert len(vectors.view().shards[0]) == len(shards[0])
    assert vectors.view().num_segments == len(shards[0]), "nothing is dead"


def test_a_damaged_video_is_left_out_named_and_comes_back_when_it_is_published_again() -> None:
    shelf, _ = filled(3)
    shelf.damaged.add("v1")
    fresh = VectorIndex(DIM, SLOTS)
    fresh.follow(shelf)
    assert list(fresh.unreadable) == ["v1"]
    assert (fresh.num_videos, fresh.num_lost, fresh.is_whole) == (2, 0, False)
    shelf.damaged.clear()
    shelf.publish("v1", random_features(np.random.default_rng(0), 1))
    fresh.follow(shelf)
    assert (fresh.unreadable, fresh.num_videos, fresh.is_whole) == ({}, 3, True)


def test_damaged_features_do_not_leave_the_old_ones() -> None:
    shelf, vectors = filled(3)
    shelf.publish("v1", random_features(np.random.default_rng(0), 1))
    shelf.damaged.add("v1")
    vectors.follow(shelf)
    assert set(ids(vectors.view())) == {"v0", "v2"}
    assert list(vectors.unreadable) == ["v1"]
    shelf.remove("v1")
    vectors.follow(shelf)
    assert vectors.unreadable == {}


def test_features_of_another_width_are_left_out_and_named() -> None:
    shelf, rng = MemoryShelf(), np.random.default_rng(0)
    shelf.publish("fits", random_features(rng, 1))
    shelf.publish("wide", random_features(rng, 1, dim=32))
    shelf.publish("long", random_features(rng, 8, num_slots=12))
    vectors = VectorIndex(DIM, SLOTS)
    vectors.follow(shelf)
    assert set(ids(vectors.view())) == {"fits"}
    assert set(vectors.unreadable) == {"wide", "long"}


def test_stored_segments_without_a_video_are_counted() -> None:
    class Losing(MemoryShelf):
        def num_stored(self) -> int:
            return super().num_stored() + 3

    shelf, vectors = Losing(), VectorIndex(DIM, SLOTS)
    shelf.publish("a", random_features(np.random.default_rng(0), 2))
    vectors.follow(shelf)
    assert (vectors.num_lost, vectors.is_whole) == (3, False)


def test_many_pages_and_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, vectors = filled(30)
    monkeypatch.setattr("indexer.vectors.FEED_PAGE", 7)
    monkeypatch.setattr("indexer.vectors.SEGMENTS_PER_BATCH", 4)
    paged = VectorIndex(DIM, SLOTS, sizes=TINY)
    assert paged.follow(MemoryShelf()) == 0
    assert paged.follow(shelf) == vectors.generation
    assert ids(paged.view()) == ids(vectors.view())


def test_an_opening_that_fails_goes_on_where_it_was() -> None:
    class Failing(MemoryShelf):
        num_left = 10

        def videos(self, first_number: int, last_number: int):  # type: ignore[no-untyped-def]
            for video in super().videos(first_number, last_number):
                self.num_left -= 1
                if not self.num_left:
                    raise OSError("the disk is gone")
                yield video

    shelf, rng = Failing(), np.random.default_rng(0)
    for number in range(20):
        shelf.publish(f"v{number}", random_features(rng, 2))
    vectors = VectorIndex(DIM, SLOTS, sizes=TINY)
    with pytest.raises(OSError, match="gone"):
        vectors.follow(shelf)
    shelf.remove("v3")
    shelf.publish("v4", random_features(rng, 1))
    assert vectors.follow(shelf) == 22
    check(vectors.view())
    assert ids(vectors.view()) == stored_ids(shelf)


def test_reading_while_following_never_mixes_rows() -> None:
    """Every segment's frames equal its pooled vector, so that a row read from the wrong place shows."""
    shelf, vectors = MemoryShelf(), VectorIndex(DIM, SLOTS, sizes=TINY)
    rng = np.random.default_rng(5)
    wrong: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            view = vectors.view()
            try:
                check(view)
                for segments in held(view).values():
                    assert all((segment.frames == segment.pooled).all() for segment in segments)
            except AssertionError as error:
                wrong.append(str(error))

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
    assert ids(vectors.view()) == stored_ids(shelf)


def test_bytes_that_are_no_whole_features_do_not_fit() -> None:
    from indexer.shards.open_shard import fits
    from indexer.shards.sizes import Layout

    layout = Layout(DIM, DIM, SLOTS)
    whole = PackedSegment(1, 0.0, 1.0, b"\0" * 16, b"\0" * 2 * DIM, b"\0" * 4 * DIM)
    assert fits([whole], layout)
    for field in ("times", "pooled", "frames"):
        assert not fits([whole, whole._replace(**{field: getattr(whole, field)[:-1]})], layout)
    assert not fits([whole._replace(times=b"", frames=b"")], layout)
