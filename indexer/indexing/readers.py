"""Readers: a thread for each decode child, which opens files, plans their segments and reads their frames in order.

Of the model it knows only what happens to frames first; it knows no job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexer import defaults
from indexer.errors import VideoTooLong, VideoUndecodable
from indexer.indexing.content import ContentCheck
from indexer.indexing.core_share import CoreShare
from indexer.indexing.segment_queue import ReadSegment, SegmentQueue
from indexer.indexing.stretches import Stretch, StretchQueue
from indexer.indexing.task import VideoTask
from indexer.media.frame_source import ReleasableSource
from indexer.records import Sampling
from indexer.segments import plan_segments
from model.resize import FrameResize

REST_AFTER_S = 30.0
"""Seconds without work after which a decode child is ended; the next file starts another."""


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """How videos are cut up and read."""

    num_frames: int
    """F, the instants read of a segment."""
    resize: FrameResize
    """What the model does to frames first."""
    max_segment_s: float = defaults.MAX_SEGMENT_S
    """Longest segment."""
    max_video_s: float = defaults.MAX_VIDEO_S
    """Longer videos are refused."""
    sampling: Sampling = "exact"
    """Which frames stand for the instants."""


class Readers:
    """Threads that take stretches and put segments, one for each source."""

    def __init__(
        self,
        sources: Sequence[ReleasableSource],
        plan: ReadingPlan,
        stretches: StretchQueue,
        segments: SegmentQueue,
        cores: CoreShare,
        fail: Callable[[VideoTask, BaseException], None],
        compare_hash: Callable[[ContentCheck, VideoTask], None],
    ) -> None:
        """fail: called with a task and what went wrong. compare_hash: called where a file must be hashed; returns at
        once."""
        self._plan = plan
        self._stretches = stretches
        self._segments = segments
        self._cores = cores
        self._fail = fail
        self._compare_hash = compare_hash
        self._threads = [
            threading.Thread(target=self._read, args=(source,), name=f"reader-{n}", daemon=True)
            for n, source in enumerate(sources)
        ]

    def start(self) -> None:
        """Start the threads; they end once the queue of stretches is closed."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until the threads have ended."""
        for thread in self._threads:
            thread.join()

    def _read(self, source: ReleasableSource) -> None:
        while (stretch := self._next(source)) is not None:
            try:
                if stretch.stop is None:
                    self._open(source, stretch)
                while (position := self._stretches.step(stretch)) is not None:
                    self._read_segment(source, stretch.task, position)
            except BaseException as error:  # a dead thread would leave the rest waiting
                self._fail(stretch.task, error)
            finally:
                self._stretches.finish(stretch)
                source.release()

    def _next(self, source: ReleasableSource) -> Stretch | None:
        """The next stretch. A source that waits for long gives its memory back until there is one."""
        stretch = self._stretches.take(REST_AFTER_S)
        if stretch is None and not self._stretches.is_closed:
            source.rest()
            stretch = self._stretches.take()
        return stretch

    def _open(self, source: ReleasableSource, stretch: Stretch) -> None:
        task = stretch.task
        task.content = content = ContentCheck(task.video)
        if content.needs_hash:
            self._compare_hash(content, task)
        with self._cores.taken():
            media = source.probe(task.video.path)
        limit_s = self._plan.max_video_s
        if media.duration_s > limit_s:
            raise VideoTooLong(
                f"The video lasts {media.duration_s:.0f} s; at most {limit_s:.0f} s are indexed.", path=task.video.path
            )
        plans = plan_segments(media.duration_s, self._plan.num_frames, self._plan.max_segment_s)
        task.plan(media, plans)
        self._stretches.plan(stretch, len(plans))

    def _read_segment(self, source: ReleasableSource, task: VideoTask, position: int) -> None:
        plan, resize = task.plans[position], self._plan.resize
        num_bytes = resize.image_size**2 * 3 * len(plan.instants_s)
        if not self._segments.reserve(task, num_bytes):
            return
        try:
            with self._cores.taken():
                frames = source.read_frames(task.video.path, plan.instants_s, resize, sampling=self._plan.sampling)
            if not len(frames.pixels):
                raise VideoUndecodable(
                    f"No frame could be read between {plan.start_s:.2f} s and {plan.end_s:.2f} s.",
                    path=task.video.path,
                )
        except BaseException:
            self._segments.release(num_bytes)
            raise
        self._segments.put(ReadSegment(task, position, frames, num_bytes))
