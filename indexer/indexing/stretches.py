"""What is to be read: stretches of videos, handed to readers. It knows no file and no frame.

A file is one stretch, read forwards by one reader. A reader that finds no other file takes the later half of what is
left of one, so that a single long video keeps every reader at work. As soon as another file waits, it leaves what it
has not read yet to the others that read the same video, so that no file waits for a long one to end.
"""

from __future__ import annotations

import threading
from collections import deque

from indexer.indexing.task import VideoTask

LEAST_SHARED = 4
"""Segments that must be left of a stretch before another reader takes half of them: opening a file costs time too."""

INDEXED_CONTAINERS = frozenset({"mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm"})
"""Containers that list their key frames, so that reading may begin in the middle; others are read by one reader."""


class Stretch:
    """Segments of one video, read in order by one reader; made and changed by StretchQueue."""

    def __init__(self, task: VideoTask, first: int = 0, stop: int | None = None) -> None:
        self.task = task
        self.next = first
        """The segment to be read next."""
        self.stop = stop
        """The segment after the last; None until the video was probed."""

    @property
    def num_left(self) -> int:
        """Segments that nobody has begun to read."""
        return 0 if self.stop is None else self.stop - self.next

    @property
    def can_share(self) -> bool:
        """Whether another reader may take half of what is left."""
        media = self.task.media
        is_indexed = media is not None and media.container in INDEXED_CONTAINERS
        return is_indexed and self.num_left >= LEAST_SHARED and not self.task.is_over


class StretchQueue:
    """Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._files: deque[Stretch] = deque()
        self._in_work: list[Stretch] = []
        self._left: list[Stretch] = []
        """Left by a reader to the others that read the same video."""
        self._is_closed = False

    def add(self, task: VideoTask) -> None:
        """Queue a video that nobody has opened yet."""
        with self._changed:
            self._files.append(Stretch(task))
            self._changed.notify()

    def take(self, patience_s: float | None = None) -> Stretch | None:
        """The next stretch for a reader, which calls `finish` after it; waits for one, but no longer than patience_s.

        New files come first. None if there was none in time, or the queue is closed.
        """
        found: list[Stretch] = []

        def find() -> bool:
            if not self._is_closed:
                stretch = self._take_file() or self._take_left() or self._half()
                found.extend([] if stretch is None else [stretch])
            return bool(found) or self._is_closed

        with self._changed:
            self._changed.wait_for(find, patience_s)
            self._in_work += found
            return found[0] if found else None

    def plan(self, stretch: Stretch, num_segments: int) -> None:
        """Set how many segments the video has: all belong to this stretch, and may be shared from now on."""
        with self._changed:
            stretch.stop = num_segments
            self._changed.notify_all()

    def step(self, stretch: Stretch) -> int | None:
        """The position of the segment to be read now; None at the end of the stretch, or if the video needs no more."""
        with self._changed:
            if self._is_closed or stretch.task.is_over:
                return None
            if not stretch.num_left:
                self._take_up(stretch)
            elif self._files and self._is_shared(stretch):
                self._leave(stretch)
            if not stretch.num_left:
                return None
            stretch.next += 1
            return stretch.next - 1

    @property
    def is_closed(self) -> bool:
        """Whether readers are to end."""
        return self._is_closed

    def finish(self, stretch: Stretch) -> None:
        """The reader is done with a stretch."""
        with self._changed:
            self._in_work.remove(stretch)

    def close(self) -> None:
        """Let every reader end after the segment that it is reading."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _take_file(self) -> Stretch | None:
        """The oldest file; none of a video that is over."""
        while self._files:
            stretch = self._files.popleft()
            if not stretch.task.is_over:
                return stretch
        return None

    def _is_shared(self, stretch: Stretch) -> bool:
        """Whether another reader will go on reading the same video."""
        return any(s.task is stretch.task and s is not stretch and s.num_left for s in self._in_work)

    def _leave(self, stretch: Stretch) -> None:
        self._left.append(Stretch(stretch.task, stretch.next, stretch.stop))
        stretch.stop = stretch.next

    def _take_up(self, stretch: Stretch) -> None:
        """Go on with what another reader has left of the same video."""
        for left in self._left:
            if left.task is stretch.task:
                self._left.remove(left)
                stretch.next, stretch.stop = left.next, left.stop
                return

    def _take_left(self) -> Stretch | None:
        """What a reader has left, the oldest first; nothing of a video that is over."""
        self._left = [left for left in self._left if not left.task.is_over]
        return self._left.pop(0) if self._left else None

    def _half(self) -> Stretch | None:
        """The later half of what is left of the longest stretch."""
        shared = max((s for s in self._in_work if s.can_share), key=lambda s: s.num_left, default=None)
        if shared is None or shared.stop is None:
            return None
        middle = shared.stop - shared.num_left // 2
        half = Stretch(shared.task, middle, shared.stop)
        shared.stop = middle
        return half
