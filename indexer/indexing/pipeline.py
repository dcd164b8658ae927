"""From videos' files to their features: readers decode, encoders encode, several videos at a time.

    submit -> StretchQueue -> Readers -> SegmentQueue -> Encoders -> ended

Each queue is bounded, so that a slow stage holds up the one before it and memory stays within limits. A video that
fails, or is slow, costs the others nothing but its reader's time. It knows no database and no job: the worker
publishes what has ended.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from indexer import defaults, machine
from indexer.errors import FileChanged, FileMissing, MediaError
from indexer.indexing.content import ContentCheck
from indexer.indexing.core_share import CoreShare
from indexer.indexing.encoders import Encoders
from indexer.indexing.readers import Readers, ReadingPlan
from indexer.indexing.segment_queue import SegmentQueue
from indexer.indexing.stretches import StretchQueue
from indexer.indexing.task import IndexedVideo, VideoTask
from indexer.media.frame_source import ReleasableSource
from indexer.records import Sampling, Video
from model.types import VideoTextModel


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How videos are cut up, and how much of them is in memory at once."""

    max_segment_s: float = defaults.MAX_SEGMENT_S
    """Longest segment."""
    max_video_s: float = defaults.MAX_VIDEO_S
    """Longer videos are refused."""
    sampling: Sampling = "exact"
    """Which frames of a segment are read."""
    batch_segments: int | None = None
    """Segments encoded in one call of the model at most; None for the model's own preference."""
    frame_bytes: int = defaults.FRAME_BYTES
    """Resized pixels in memory: being read, waiting and being encoded."""
    num_cores: int | None = None
    """Cores that encoding and decoding share; None for those that this process may run on."""


class Pipeline:
    """Works on the videos that are submitted; for use in one `with` block. Thread-safe."""

    def __init__(
        self, sources: Sequence[ReleasableSource], model: VideoTextModel, config: PipelineConfig = PipelineConfig()
    ) -> None:
        """sources: each is used by one thread at a time, and not closed."""
        from model.picture_tower import preferred_frames  # here, because it imports torch

        num_cores = config.num_cores or machine.num_cores()
        is_cpu = model.device.type == "cpu"
        self._ended: queue.SimpleQueue[VideoTask] = queue.SimpleQueue()
        self._hashers = ThreadPoolExecutor(len(sources) + 1, thread_name_prefix="hasher")
        self._stretches = StretchQueue()
        self._segments = SegmentQueue(config.frame_bytes)
        cores = CoreShare(num_cores)
        plan = ReadingPlan(
            model.spec.num_frames, model.resize, config.max_segment_s, config.max_video_s, config.sampling
        )
        self._readers = Readers(
            sources, plan, self._stretches, self._segments, cores, fail=self.fail, compare_hash=self._compare_hash
        )
        self._encoders = Encoders(
            model,
            self._segments,
            cores,
            fail=self.fail,
            ended=self._conclude,
            num_threads=num_cores if is_cpu else 1,
            batch_segments=config.batch_segments or max(1, preferred_frames(model.device) // model.spec.num_frames),
        )

    def __enter__(self) -> Self:
        self._readers.start()
        self._encoders.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop: videos that haven't ended stay unended. Waits for the segments that are being read and encoded."""
        self._stretches.close()
        self._segments.close()
        self._readers.join()
        self._encoders.join()
        self._hashers.shutdown(cancel_futures=True)

    def submit(self, task: VideoTask) -> None:
        """Start work on a video; returns at once."""
        self._stretches.add(task)

    def fail(self, task: VideoTask, error: BaseException) -> None:
        """End a task with this error, unless it has ended."""
        if task.fail(error):
            self._segments.drop(task)
            self._conclude(task)

    def next_ended(self, timeout_s: float) -> VideoTask | None:
        """A task that has ended, with its features or an error; None if none ends within timeout_s."""
        try:
            return self._ended.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _compare_hash(self, content: ContentCheck, task: VideoTask) -> None:
        """While the file is decoded."""

        def compare() -> None:
            try:
                if not task.is_over:
                    content.compare_hash()
            except BaseException as error:
                self.fail(task, error)

        self._hashing(compare)

    def _conclude(self, task: VideoTask) -> None:
        """Give a task back, after the last check of its file: other content than what was added has no features.

        Media errors are checked too: they may be the fault of other content.
        """
        content, error = task.content, task.error

        def conclude() -> None:
            try:
                if content is not None:
                    content.look_again()
            except BaseException as error:
                task.spoil(error)
            self._ended.put(task)

        is_to_check = isinstance(error, MediaError) and not isinstance(error, FileChanged | FileMissing)
        if content is not None and (is_to_check or (error is None and not content.is_unchanged)):
            self._hashing(conclude)
        else:
            self._ended.put(task)

    def _hashing(self, work: Callable[[], None]) -> None:
        """Run work that may read a whole file in a thread of its own: a slow disk holds up this file only."""
        try:
            self._hashers.submit(work)
        except RuntimeError:
            if not self._stretches.is_closed:  # otherwise nobody waits for it; the system has no thread to spare
                work()


def index_video(
    video: Video,
    sources: Sequence[ReleasableSource],
    model: VideoTextModel,
    config: PipelineConfig = PipelineConfig(),
) -> IndexedVideo:
    """The features of one video: the content that was added, never other content that has replaced it.

    Raises: FileMissing, FileChanged, VideoTooLong, other MediaErrors of the sources, and what the model raises.
    """
    with Pipeline(sources, model, config) as pipeline:
        pipeline.submit(VideoTask(video))
        while (task := pipeline.next_ended(60.0)) is None:
            pass
        return task.result()
