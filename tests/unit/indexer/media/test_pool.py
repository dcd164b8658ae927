"""Several decode children: who gets one, who waits, who is refused."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from indexer.config import CLIPS_WAITING, IndexConfig
from indexer.errors import DecodeBusy, DecodeTimeout, SandboxClosed, UnsupportedMedia
from indexer.media import reading as media
from indexer.media.pool import DecodePool, Lane, LaneLimits
from model.resize import FrameResize
from tests.support.clips import numbered_frames, read_number, write_clip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a.mp4", numbered_frames(5), 5)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@contextmanager
def held(lane: Lane, threads: ThreadPoolExecutor, num: int = 1) -> Iterator[None]:
    """`num` turns of the lane are taken until the end of the block."""
    begun, is_over = threading.Barrier(num + 1), threading.Event()

    def hold() -> None:
        with lane.turn():
            begun.wait(30)
            is_over.wait(30)

    holding = [threads.submit(hold) for _ in range(num)]
    begun.wait(30)
    try:
        yield
    finally:
        is_over.set()
        for each in holding:
            each.result(30)


def take(lane: Lane) -> bool:
    with lane.turn():
        return True


def test_threads_share_the_children_and_get_their_own_answers(tmp_path: Path) -> None:
    paths = [write_clip(tmp_path / f"{n}.mp4", numbered_frames(5, first=100 * n), 5) for n in range(3)]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with DecodePool(2) as pool, ThreadPoolExecutor(4) as threads:
        assert pool.child_pids == []
        assert pool.probe(paths[0]) == media.probe(paths[0])
        with pytest.raises(UnsupportedMedia):
            pool.probe(broken)
        assert len(pool.child_pids) == 1, "another child is started only when one is not enough"
        found = list(threads.map(lambda n: pool.read_frames(paths[n % 3], [0.1, 0.9]), range(12)))
        for n, frames in enumerate(found):
            assert [read_number(picture) for picture in frames.pixels] == [100 * (n % 3), 100 * (n % 3) + 4]
        assert np.array_equal(found[0].pixels, found[3].pixels)
        small = pool.read_frames(paths[0], [0.1], FrameResize(32))
        assert small.pixels.shape == (1, 32, 32, 3)
        with pool.lane(LaneLimits()).turn() as source:
            assert source.thumbnail(paths[0], 0.5, 100) == media.thumbnail(paths[0], 0.5, 100)
    with pytest.raises(SandboxClosed):
        pool.probe(paths[0])


def test_a_full_lane_refuses_at_once_and_another_goes_on(threads: ThreadPoolExecutor) -> None:
    with DecodePool(2) as pool:
        clips, pictures = pool.lane(LaneLimits(max_running=1, max_waiting=2)), pool.lane(LaneLimits(max_waiting=2))
        with held(clips, threads):
            waiting = [threads.submit(take, clips) for _ in range(3)]
            refused = _first_done(waiting)
            with pytest.raises(DecodeBusy) as caught:
                refused.result()
            assert caught.value.is_retryable and caught.value.retry_after_s > 0
            assert take(pictures), "one child is left"
            assert sum(future.done() for future in waiting) == 1
        assert all(future.result(30) for future in waiting if future is not refused)
        assert take(clips)


def test_patience_comes_to_an_end(threads: ThreadPoolExecutor) -> None:
    with DecodePool(1) as pool:
        lane = pool.lane(LaneLimits(patience_s=0.05))
        with held(lane, threads), pytest.raises(DecodeBusy, match=r"within 0\.05 s"):
            take(lane)
        assert take(lane)


def test_turns_are_given_in_order(threads: ThreadPoolExecutor) -> None:
    order: list[int] = []

    def note(number: int) -> None:
        with lane.turn():
            order.append(number)

    with DecodePool(1) as pool:
        lane = pool.lane(LaneLimits())
        futures = []
        with held(lane, threads):
            for number in range(5):
                futures.append(threads.submit(note, number))
                _until(lambda n=number: lane.num_waiting == n + 1)
        for future in futures:
            future.result(30)
    assert order == list(range(5))


def test_a_turn_has_a_budget_of_time(path: Path) -> None:
    with DecodePool(1) as pool:
        lane = pool.lane(LaneLimits(budget_s=0.5))
        pool.probe(path)
        os.kill(pool.child_pids[0], signal.SIGSTOP)
        with lane.turn() as source:
            for _ in range(2):  # the second finds it spent
                with pytest.raises(DecodeTimeout, match=r"a\.mp4: Decoding took longer than 0\.5 s in all"):
                    source.probe(path)
        assert pool.probe(path).codec == "h264"


def test_close_ends_those_who_wait(threads: ThreadPoolExecutor) -> None:
    pool = DecodePool(1)
    lane = pool.lane(LaneLimits())
    with held(lane, threads):
        waiting = threads.submit(take, lane)
        _until(lambda: lane.num_waiting == 1)
        pool.close()
        with pytest.raises(SandboxClosed):
            waiting.result(30)
    with pytest.raises(SandboxClosed):
        take(lane)


@pytest.mark.parametrize(("num_children", "num_running"), [(1, 1), (2, 1), (3, 2), (8, 7)])
def test_clips_leave_one_child_to_thumbnails(num_children: int, num_running: int) -> None:
    config = IndexConfig(decode_children=num_children)
    assert config.clip_lane().max_running == num_running
    assert config.num_clip_places == num_running + CLIPS_WAITING
    assert config.num_thumbnail_places > 30 + num_children


def _first_done(futures: list[Future[bool]]) -> Future[bool]:
    done, _ = wait_for(futures, timeout=30, return_when="FIRST_COMPLETED")
    return done.pop()


def _until(is_so: object) -> None:
    assert callable(is_so)
    for _ in range(3000):
        if is_so():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")
