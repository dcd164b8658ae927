"""Sealed shards are merged, compacted and moved to files while videos come and go, and no search sees a part of it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import BackendMissing
from indexer.shards.shard import SealedShard
from indexer.shards.shard_file import Stopped
from indexer.shards.snapshot import CoarseMaker
from tests.support.shards import FAKE_COARSE, FakeCoarse, Library
from tests.support.shelf import random_features
from tests.support.views import check, held, ids


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "shards")


def stored_ids(library: Library) -> dict[str, list[int]]:
    return {key: [segment.id for segment in library.shelf.segments(key)] for key in library.shelf.video_ids()}


def add(library: Library, first: int, last: int) -> None:
    """Publish videos one by one, so that shards of 8 segments are sealed."""
    for number in range(first, last):
        library.publish(f"v{number}")
        library.follow()


def test_small_shards_become_large_ones(library: Library) -> None:
    add(library, 0, 40)
    assert [len(shard) for shard in library.sealed] == [8] * 10
    before, old = library.vectors.view(), held(library.vectors.view())
    library.upkeep.run_once()
    assert [len(shard) for shard in library.sealed] == [32, 32, 8, 8]
    check(library.vectors.view())
    new = held(library.vectors.view())
    assert ids(library.vectors.view()) == stored_ids(library) == ids(before)
    for video_id, segments in new.items():
        for mine, was in zip(segments, old[video_id], strict=True):
            assert (mine.frames == was.frames).all()
            assert mine.times_s == was.times_s


def test_a_shard_with_many_dead_is_compacted_and_one_with_few_is_not(library: Library) -> None:
    add(library, 0, 16)
    library.upkeep.run_once()
    (shard,) = library.sealed
    library.shelf.remove("v1")
    library.kept()
    assert [len(left) for left in library.sealed] == [32]
    for number in range(2, 8):
        library.shelf.remove(f"v{number}")
    library.kept()
    assert [(len(left), left.num_live) for left in library.sealed] == [(18, 18)]
    assert ids(library.vectors.view()) == stored_ids(library)
    assert library.sealed[0].key != shard.key


def test_a_shard_of_which_nothing_is_left_goes(library: Library) -> None:
    add(library, 0, 16)
    library.upkeep.run_once()
    for number in range(16):
        library.shelf.remove(f"v{number}")
    library.kept()
    assert library.sealed == ()
    assert library.vectors.view().shards == ()
    assert not list(library.folder.glob("*.shard"))


def test_removals_during_a_merge_are_in_what_it_makes(tmp_path: Path) -> None:
    library = Library(tmp_path / "shards")
    add(library, 0, 16)
    swap = library.vectors.shards.swap

    def remove_then_swap(*given):  # type: ignore[no-untyped-def]
        library.shelf.remove("v1")
        library.publish("v2", num_segments=1)
        library.follow()
        library.vectors.shards.swap = swap  # type: ignore[method-assign]
        return swap(*given)

    library.vectors.shards.swap = remove_then_swap  # type: ignore[method-assign]
    library.upkeep.run_once()
    assert [(len(shard), shard.num_live) for shard in library.sealed] == [(32, 28)]
    check(library.vectors.view())
    assert ids(library.vectors.view()) == stored_ids(library)


def test_a_coarse_index_is_built_once_and_kept_in_the_file(library: Library) -> None:
    add(library, 0, 16)
    library.upkeep.run_once()
    (shard,) = library.sealed
    assert isinstance(shard.coarse, FakeCoarse) and shard.coarse.num_segments == 32
    library.upkeep.run_once()
    assert library.sealed == (shard,), "there was nothing to do"
    assert library.vectors.view().shards[0].coarse is shard.coarse


def test_without_a_coarse_index_shards_are_kept_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    num_tries = 0

    def fail(_: SealedShard) -> FakeCoarse:
        nonlocal num_tries
        num_tries += 1
        raise BackendMissing("no FAISS")

    library = Library(tmp_path / "shards", coarse=CoarseMaker(build=fail, open=FAKE_COARSE.open))
    add(library, 0, 16)
    library.upkeep.run_once()
    library.upkeep.run_once()
    assert (num_tries, library.num_mapped) == (1, 1)
    assert caplog.messages.count("coarse_failed") == 1
    later = library.again()
    later.upkeep.run_once()
    assert isinstance(later.sealed[0].coarse, FakeCoarse), "once it can be built, it is, and the file is written again"
    assert later.num_mapped == 1
    assert isinstance(later.again().sealed[0].coarse, FakeCoarse)


def test_a_full_disk_is_reported_and_tried_again_later(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    add(library, 0, 16)
    write = library.snapshots.write

    def full(*_: object) -> SealedShard:
        raise OSError(errno.ENOSPC, "No space left on device")

    library.snapshots.write = full  # type: ignore[method-assign, assignment]
    library.upkeep.run_once()
    assert "snapshot_postponed" in caplog.messages
    assert (library.num_mapped, ids(library.vectors.view())) == (0, stored_ids(library))
    library.snapshots.write = write  # type: ignore[method-assign]
    library.upkeep.run_once()
    assert library.num_mapped == 1


def test_a_stop_gives_up_the_writing_of_a_file(library: Library) -> None:
    add(library, 0, 16)
    looks = iter(range(5))
    library.upkeep._go_on = lambda: next(looks, None) is not None  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        library.upkeep.run_once()
    assert library.num_mapped == 0
    assert not library.folder.exists() or not list(library.folder.iterdir())
    assert ids(library.vectors.view()) == stored_ids(library)


def test_readers_see_whole_videos_while_everything_changes(library: Library) -> None:
    """Every segment of a publication starts at its number, so that parts of two show."""
    wrong: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            view = library.vectors.view()
            try:
                check(view)
                for video_id, segments in held(view).items():
                    assert len({segment.id for segment in segments}) == len(segments)
                    starts = [segment.start_s for segment in segments]
                    assert starts == sorted(starts), video_id
                    for segment in segments:
                        assert (segment.frames == segment.pooled).all(), video_id
            except AssertionError as error:
                wrong.append(str(error) or "an invariant")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    library.upkeep.start()
    library.upkeep.start()
    try:
        rng = np.random.default_rng(3)
        for step in range(400):
            name = f"v{rng.integers(60)}"
            if rng.random() < 0.3 and name in library.shelf.video_ids():
                library.shelf.remove(name)
            else:
                features = random_features(rng, int(rng.integers(1, 4)))
                for part in features:
                    part.frames[:] = part.pooled
                library.shelf.publish(name, features)
            if step % 3:
                library.follow()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    library.close()
    assert wrong == []
    library.follow()
    assert ids(library.vectors.view()) == stored_ids(library)
    fresh = library.again()
    check(fresh.vectors.view())
    assert ids(fresh.vectors.view()) == stored_ids(fresh)
