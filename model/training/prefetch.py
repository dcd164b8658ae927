"""Batches made ahead of the step that needs them, in threads, handed out in order.

Threads suffice: decoding happens in child processes, and numpy, PIL and torch let go of the interpreter at work.
It knows no data: what makes a batch is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from model.training.batches import Each

Made = TypeVar("Made")

NUM_AHEAD = 2
"""Batches in the making beside the one in use; 300 clips of 12 frames of 224 pixels are half a gigabyte."""


class _Ahead(Generic[Made]):
    def __init__(self, make: Callable[[int], Made], first: int, last: int, pool: ThreadPoolExecutor) -> None:
        self._make, self._pool = make, pool
        self._next, self._last = first, last
        self._waiting: deque[Future[Made]] = deque()

    def __iter__(self) -> Iterator[Made]:
        self._fill()
        while self._waiting:
            made = self._waiting.popleft().result()
            self._fill()
            yield made

    def _fill(self) -> None:
        while self._next < self._last and len(self._waiting) < NUM_AHEAD:
            self._waiting.append(self._pool.submit(self._make, self._next))
            self._next += 1


@contextmanager
def made_ahead(
    make: Callable[[int, Each[int, object]], Made], first: int, last: int, workers: int
) -> Iterator[Iterator[Made]]:
    """Iterate make(step, each) for step = first .. last - 1; `each` spreads one batch's parts over `workers` threads.

    What making raises is raised where the batch would have come. On leaving, what isn't begun is dropped and what is,
    is waited for.
    """
    parts = ThreadPoolExecutor(workers, thread_name_prefix="clip")
    whole = ThreadPoolExecutor(NUM_AHEAD, thread_name_prefix="batch")
    try:
        yield iter(_Ahead(lambda step: make(step, parts.map), first, last, whole))
    finally:
        parts.shutdown(cancel_futures=True)
        whole.shutdown(cancel_futures=True)
