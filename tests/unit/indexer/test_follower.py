"""What others publish reaches the vectors without a search paying for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from indexer.errors import CatalogueUnreadable
from indexer.follower import Follower
from indexer.vectors import VectorIndex
from tests.support.shelf import MemoryShelf, random_features


def publish(shelf: MemoryShelf, video_id: str) -> None:
    shelf.publish(video_id, random_features(np.random.default_rng(0), 2))


class SlowShelf(MemoryShelf):
    """Lets nobody look before `opened` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    @contextmanager
    def snapshot(self) -> Iterator[MemoryShelf]:
        assert self.opened.wait(30)
        yield self


def test_without_a_thread_the_caller_follows_by_itself() -> None:
    shelf, vectors = MemoryShelf(), VectorIndex(16, 4)
    publish(shelf, "a")
    assert Follower(vectors, shelf).catch_up()
    assert vectors.num_videos == 1


def test_the_thread_follows_when_it_is_woken_and_by_itself() -> None:
    shelf, vectors = MemoryShelf(), VectorIndex(16, 4)
    follower = Follower(vectors, shelf, poll_s=0.01)
    follower.start()
    follower.start()
    publish(shelf, "a")
    moved = threading.Event()
    waiting = threading.Thread(target=lambda: [moved.wait(0.005) for _ in iter(lambda: vectors.num_videos, 1)])
    waiting.start()
    waiting.join(30)
    assert vectors.num_videos == 1, "found by polling"
    follower.stop()
    follower.stop()
    slow = Follower(vectors, shelf, poll_s=3600)
    slow.start()
    publish(shelf, "b")
    assert slow.catch_up(patience_s=30), "found at once, long before the next look"
    assert vectors.num_videos == 2
    slow.stop()


def test_a_search_does_not_wait_for_a_long_catching_up() -> None:
    shelf, vectors = SlowShelf(), VectorIndex(16, 4)
    follower = Follower(vectors, shelf, poll_s=3600)
    follower.start()
    publish(shelf, "a")
    assert not follower.catch_up(patience_s=0.01)
    assert vectors.num_videos == 0
    shelf.opened.set()
    assert follower.catch_up(patience_s=30)
    assert vectors.num_videos == 1
    follower.stop()


def test_a_catalogue_that_fails_for_a_while_is_looked_at_again(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryShelf):
        num_failures = 2

        def last_seq(self) -> int:
            if threading.current_thread().name == "follower" and self.num_failures:
                self.num_failures -= 1
                raise CatalogueUnreadable("not now")
            return super().last_seq()

    shelf, vectors = Failing(), VectorIndex(16, 4)
    publish(shelf, "a")
    follower = Follower(vectors, shelf, poll_s=0.01)
    follower.start()
    assert follower.catch_up(patience_s=30)
    follower.stop()
    assert [record.message for record in caplog.records] == ["follow_failed"] * 2
