"""Encoders: how many threads a call takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

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
from tests.unit.indexer.indexing.test_pipeline import WAIT_S, video_at


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


def test_one_call_that_took_long_does_not_decide_for_ever(tmp_path: Path) -> None:
    """The next takes the idle cores too; it is quick, and those after it take one thread again."""
    model, segments, ended = SlowAtFirst(), SegmentQueue(2**20), threading.Event()
    task = VideoTask(video_at(write_fake_video(tmp_path / "v", 12.0, "red")))
    task.plan(MEDIA, plan_segments(12.0, 4, 2.0))
    encoders = Encoders(
        model,
        segments,
        CoreShare(4),
        fail=lambda task, error: ended.set(),
        ended=lambda task: ended.set(),
        num_threads=1,
        batch_segments=1,
    )
    frames = Frames(np.zeros((1, 8, 8, 3), dtype=np.uint8), np.zeros(1))
    for position in range(len(task.plans)):
        assert segments.reserve(task, 1)
        segments.put(ReadSegment(task, position, frames, 1))
    encoders.start()
    assert ended.wait(WAIT_S)
    segments.close()
    encoders.join()
    assert task.error is None
    assert model.num_threads == [1, 4, 1, 1, 1, 1]
