"""One video in work: its plan, what is encoded of it so far, and what ended it.

It knows no thread, but is safe for several.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.indexing.content import ContentCheck
from indexer.records import JobProgress, JobStage, MediaInfo, SegmentFeatures, SegmentPlan, Video


@dataclass(frozen=True, slots=True)
class IndexedVideo:
    """A video's features, ready to be published."""

    media: MediaInfo
    """What the file holds."""
    segments: tuple[SegmentFeatures, ...]
    """Its segments in order of time."""


class VideoTask:
    """A video from the moment that it is given to a Pipeline until it comes back, with features or an error."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.media: MediaInfo | None = None
        """What the file holds; None until it was probed."""
        self.plans: tuple[SegmentPlan, ...] = ()
        """Its segments in order of time; empty until it was probed."""
        self.content: ContentCheck | None = None
        """The check of its file; None until it was opened."""
        self.error: BaseException | None = None
        """Why it has no features, once it has ended."""
        self._lock = threading.Lock()
        self._features: list[SegmentFeatures | None] = []
        self._num_done = 0
        self._frames_done = 0
        self._seconds_done = 0.0
        self._planned_s = 0.0
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more needs to be read or encoded for it."""
        return self._is_over

    def plan(self, media: MediaInfo, plans: Sequence[SegmentPlan]) -> None:
        """Take what probing found. Called once."""
        with self._lock:
            self._planned_s = time.monotonic()
            self._features = [None] * len(plans)
            self.media, self.plans = media, tuple(plans)

    def store(self, position: int, features: SegmentFeatures) -> bool:
        """Keep a segment's features; whether that ended the task, because it was the last."""
        with self._lock:
            if self._is_over or self._features[position] is not None:
                return False
            self._features[position] = features
            self._num_done += 1
            self._frames_done += len(features.times_s)
            self._seconds_done += features.end_s - features.start_s
            self._is_over = self._num_done == len(self._features)
            return self._is_over

    def fail(self, error: BaseException) -> bool:
        """End the task with an error; whether it was still going on."""
        with self._lock:
            if self._is_over:
                return False
            self._is_over, self.error = True, error
            self._features = []
            return True

    def spoil(self, error: BaseException) -> None:
        """Give an ended task an error, in place of the one that it may have."""
        with self._lock:
            self.error = error
            self._features = []

    def progress(self) -> tuple[JobStage, JobProgress, float]:
        """Where it is, how far, and how many seconds ago its frames began to be read."""
        with self._lock:
            media, num_segments = self.media, len(self.plans)
            if media is None:
                return "probe", JobProgress(), 0.0
            stage: JobStage = "publish" if self._num_done == num_segments else "encode"
            progress = JobProgress(
                self._num_done, num_segments, self._frames_done, self._seconds_done, media.duration_s
            )
            return stage, progress, time.monotonic() - self._planned_s

    def result(self) -> IndexedVideo:
        """The features of an ended task. Raises: its error."""
        if self.error is not None:
            raise self.error
        assert self.media is not None
        segments = tuple(features for features in self._features if features is not None)
        assert len(segments) == len(self.plans)
        return IndexedVideo(self.media, segments)
