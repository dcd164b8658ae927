"""Several decode children shared by many threads, each use of them with a queue and limits of its own.

A lane is one use: clip queries, thumbnails, the clips of an evaluation. Whoever needs a child takes a turn in a lane. A
lane that is full refuses at once instead of letting threads pile up, and no lane can take all children from another
that is allowed more of them.

This file knows no decoder and no file; sandbox.py does the work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from indexer.errors import DecodeBusy, DecodeTimeout, SandboxClosed
from indexer.media.sandbox import DecodeSandbox, SandboxLimits
from indexer.records import Frames, MediaInfo
from model.resize import FrameResize

if TYPE_CHECKING:
    from indexer.media.reading import Decoder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How much one use of the children may take. None: no limit."""

    max_running: int | None = None
    """Turns at the same time."""
    max_waiting: int | None = None
    """Threads that wait for their turn; one more is refused at once."""
    patience_s: float | None = None
    """How long a thread waits before it is refused."""
    budget_s: float | None = None
    """Seconds of decoding in one turn, all its requests together."""

    def num_places(self, num_children: int) -> int:
        """How many turns of a pool may be taken or waited for at once, if the waiting is limited."""
        return min(num_children, self.max_running or num_children) + (self.max_waiting or 0)


THUMBNAIL_LANE = LaneLimits(max_waiting=64, patience_s=60.0)
"""Thumbnails: a page of results asks for some thirty at once."""


class DecodePool:
    """`size` decode children, each started when it is first needed; safe for threads.

    Its own probe and read_frames wait as long as it takes, for programs whose threads are counted by themselves.
    """

    def __init__(self, size: int, decoder: Decoder = "pyav", limits: SandboxLimits | None = None) -> None:
        self._all = [DecodeSandbox(decoder, limits) for _ in range(size)]
        self._free = list(self._all)
        self._changed = threading.Condition()
        self._is_closed = False
        self._unlimited = self.lane(LaneLimits())

    def lane(self, limits: LaneLimits) -> Lane:
        """A queue of its own for one use of the children."""
        return Lane(self._changed, self._free, limits, lambda: self._is_closed)

    def probe(self, path: Path) -> MediaInfo:
        """As reading.probe."""
        with self._unlimited.turn() as source:
            return source.probe(path)

    def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
        """As reading.read_frames."""
        with self._unlimited.turn() as source:
            return source.read_frames(path, instants_s, resize)

    @property
    def child_pids(self) -> list[int]:
        """The process ids of the children that run now."""
        return [pid for sandbox in self._all if (pid := sandbox.child_pid) is not None]

    def close(self) -> None:
        """End all children, also in the middle of requests, and all waiting. Harmless when repeated."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for sandbox in self._all:
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lane:
    """One use of a pool's children; made by `DecodePool.lane`. Turns are given in the order of asking."""

    def __init__(
        self,
        changed: threading.Condition,
        free: list[DecodeSandbox],
        limits: LaneLimits,
        is_closed: Callable[[], bool],
    ) -> None:
        self._changed = changed
        self._free = free  # shared by the lanes of a pool, guarded by `changed`
        self._limits = limits
        self._is_closed = is_closed
        self._num_running = 0
        self._waiting: deque[object] = deque()

    @property
    def num_waiting(self) -> int:
        """Threads that wait for their turn now."""
        return len(self._waiting)

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A child for the length of the block. Raises: DecodeBusy, SandboxClosed."""
        sandbox = self._enter()
        try:
            yield Turn(sandbox, self._limits.budget_s)
        finally:
            sandbox.release()  # a child that waits for its next turn holds no file and no frames
            with self._changed:
                self._num_running -= 1
                self._free.append(sandbox)
                self._changed.notify_all()

    def _enter(self) -> DecodeSandbox:
        place, limit = object(), self._limits.max_waiting
        with self._changed:
            must_wait = bool(self._waiting) or not self._has_room()
            if must_wait and limit is not None and len(self._waiting) >= limit:
                raise DecodeBusy(f"All decoders are at work, and {len(self._waiting)} requests wait for one already.")
            self._waiting.append(place)
            try:
                if not self._changed.wait_for(lambda: self._is_next(place), self._limits.patience_s):
                    raise DecodeBusy(f"No decoder was free within {self._limits.patience_s:g} s.")
                if self._is_closed():
                    raise SandboxClosed("Decoding was stopped: the pool is closed.")
                self._num_running += 1
                return self._free.pop()  # the one used last, so that no more are started than are needed
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()

    def _is_next(self, place: object) -> bool:
        return self._is_closed() or (self._waiting[0] is place and self._has_room())

    def _has_room(self) -> bool:
        limit = self._limits.max_running
        return bool(self._free) and (limit is None or self._num_running < limit)


class Turn:
    """The verbs of DecodeSandbox on the child of one turn, within the turn's budget of time.

    Every verb raises what DecodeSandbox's raise; DecodeTimeout also when the budget is spent.
    """

    def __init__(self, sandbox: DecodeSandbox, budget_s: float | None) -> None:
        self._sandbox = sandbox
        self._budget_s = budget_s
        self._spent_s = 0.0

    def probe(self, path: Path) -> MediaInfo:
        """As reading.probe."""
        return self._ask(path, lambda timeout_s: self._sandbox.probe(path, timeout_s=timeout_s))

    def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
        """As reading.read_frames."""
        return self._ask(
            path, lambda timeout_s: self._sandbox.read_frames(path, instants_s, resize, timeout_s=timeout_s)
        )

    def thumbnail(self, path: Path, at_s: float, max_side: int = 320) -> bytes:
        """As reading.thumbnail."""
        return self._ask(path, lambda timeout_s: self._sandbox.thumbnail(path, at_s, max_side, timeout_s=timeout_s))

    def _ask(self, path: Path, request: Callable[[float | None], T]) -> T:
        if self._budget_s is None:
            return request(None)
        began_s = time.monotonic()
        try:
            left_s = self._budget_s - self._spent_s
            if left_s <= 0:
                raise DecodeTimeout("The time for decoding is over.")
            return request(left_s)
        except DecodeTimeout as error:
            if self._spent_s + time.monotonic() - began_s < self._budget_s:
                raise
            raise DecodeTimeout(
                f"Decoding took longer than {self._budget_s:g} s in all and was stopped.",
                "A shorter range, or a smaller file, takes less.",
                path=path,
            ) from error
        finally:
            self._spent_s += time.monotonic() - began_s
