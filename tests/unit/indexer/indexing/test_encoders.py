"""Encoders: how many threads a call takes."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.indexing.core_share import CoreShare
from indexer.indexing.encoders import LONG_CALL_S, Encoders
from indexer.indexing.segment_queue import ReadSegment, SegmentQueue
from indexer.indexing.task import VideoTask
from indexer.records import Frames
from indexer.segments import plan_segments
from model.types import Pixels, VideoFeatures
from tests.support.catalogues import MEDIA
from tests.support.fake_sandbox import write_fake_video
from tests.support.fakes import FakeModel
from tests.unit.indexer.indexing.test_pipeline import WAIT_S, video_at, wait_until


class SlowAtFirst(FakeModel):
    """Its first call takes long; notes the threads of each."""

    def __init__(self) -> None:
        super().__init__()
        self.num_threads: list[int] = []

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        if not self.num_threads:
            time.sleep(1.1 * LONG_CALL_S)
        self.num_threads.append(torch.get_num_threads())
        return super().encode_video(segments)


@contextmanager
def encoding(model: FakeModel, segments: SegmentQueue, task: VideoTask) -> Iterator[threading.Event]:
    """One encoder beside three idle cores; gives the event that the task has ended."""
    task.plan(MEDIA, plan_segments(12.0, 4, 2.0))
    ended = threading.Event()
    encoders = Encoders(
        model,
        segments,
        CoreShare(4),
        fail=lambda task, error: ended.set(),
        ended=lambda task: ended.set(),
        num_threads=1,
        batch_segments=1,
    )
    encoders.start()
    yield ended
    segments.close()
    encoders.join()


def put(segments: SegmentQueue, task: VideoTask, position: int) -> weakref.ref[NDArray[np.uint8]]:
    """Queue a segment; gives what dies with its frames."""
    frames = Frames(np.zeros((1, 8, 8, 3), dtype=np.uint8), np.zeros(1))
    assert segments.reserve(task, 1)
    segments.put(ReadSegment(task, position, frames, 1))
    return weakref.ref(frames.pixels)


def test_one_call_that_took_long_does_not_decide_for_ever(tmp_path: Path) -> None:
    """The next takes the idle cores too; it is quick, and those after it take one thread again."""
    model, segments = SlowAtFirst(), SegmentQueue(2**20)
    task = VideoTask(video_at(write_fake_video(tmp_path / "v", 12.0, "red")))
    with encoding(model, segments, task) as ended:
        for position in range(len(task.plans)):
            put(segments, task, position)
        assert ended.wait(WAIT_S)
    assert task.error is None
    assert model.num_threads == [1, 4, 1, 1, 1, 1]


def test_an_encoder_that_waits_holds_no_frames(tmp_path: Path) -> None:
    segments = SegmentQueue(2**20)
    task = VideoTask(video_at(write_fake_video(tmp_path / "v", 12.0, "red")))
    with encoding(FakeModel(), segments, task):
        pixels = put(segments, task, 0)
        wait_until(lambda: task.progress()[1].segments_done == 1)
        wait_until(lambda: pixels() is None)
