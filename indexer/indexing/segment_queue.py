"""Segments that are read and wait to be encoded, of any videos, within a limit of bytes.

It knows no decoder and no model.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from indexer.indexing.task import VideoTask
from indexer.records import Frames


@dataclass(frozen=True, slots=True)
class ReadSegment:
    """A segment with its frames."""

    task: VideoTask
    position: int
    """Which of the video's segments."""
    frames: Frames
    num_bytes: int
    """What it holds of the queue's limit until it is encoded."""


class SegmentQueue:
    """Thread-safe. Room is reserved before a segment is read, and returned once it is encoded or dropped."""

    def __init__(self, max_bytes: int) -> None:
        """max_bytes: of pixels being read, waiting and being encoded; one segment always fits."""
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._waiting: deque[ReadSegment] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def reserve(self, task: VideoTask, num_bytes: int) -> bool:
        """Wait for room. False, with nothing reserved, if the video needs no more or the queue was closed."""

        def may_go_on() -> bool:
            is_over = self._is_closed or task.is_over
            return is_over or not self._held_bytes or self._held_bytes + num_bytes <= self._max_bytes

        with self._changed:
            self._changed.wait_for(may_go_on)
            if self._is_closed or task.is_over:
                return False
            self._held_bytes += num_bytes
            return True

    def put(self, segment: ReadSegment) -> None:
        """Queue a segment, whose bytes are reserved."""
        with self._changed:
            self._waiting.append(segment)
            self._changed.notify_all()

    def take(self, max_segments: int) -> list[ReadSegment]:
        """The oldest segments, as many as wait, up to max_segments; waits for one. Empty once closed.

        They take up at most half of the room, so that reading goes on while they are encoded. The caller returns their
        bytes.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return []
            taken = [self._waiting.popleft()]
            num_bytes = taken[0].num_bytes
            while self._waiting and len(taken) < max_segments:
                num_bytes += self._waiting[0].num_bytes
                if num_bytes > self._max_bytes // 2:
                    break
                taken.append(self._waiting.popleft())
            return taken

    def release(self, num_bytes: int) -> None:
        """Return room."""
        with self._changed:
            self._held_bytes -= num_bytes
            self._changed.notify_all()

    def drop(self, task: VideoTask) -> None:
        """Drop the waiting segments of a video that is over, and wake the readers that wait to read more of it."""
        with self._changed:
            kept = deque(segment for segment in self._waiting if segment.task is not task)
            self._held_bytes -= sum(s.num_bytes for s in self._waiting) - sum(s.num_bytes for s in kept)
            self._waiting = kept
            self._changed.notify_all()

    def close(self) -> None:
        """Wake every waiting thread; nothing more is read or encoded."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()
