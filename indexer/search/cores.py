"""The processor cores that searches share: a search that is alone uses them all, searches side by side have one each.

It knows nothing of what is computed. The work is expected to release the interpreter's lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Cores:
    """Thread-safe; one for a process. num_cores: those that this process may run on if None."""

    def __init__(self, num_cores: int | None = None) -> None:
        self.num_cores = num_cores or len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._num_busy = 0
        self._pool = ThreadPoolExecutor(max(1, self.num_cores - 1), thread_name_prefix="search-core")

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """work(item) of each item, in order: on the calling thread, and on cores that no other search uses.

        Raises: whatever work raises first; items that weren't begun are then left.
        """
        num_helpers = self._take(len(items) - 1)
        try:
            return self._run(work, items, num_helpers)
        finally:
            with self._lock:
                self._num_busy -= 1 + num_helpers

    def close(self) -> None:
        """End the threads once they have finished what they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, wanted: int) -> int:
        """Count the caller in, and as many idle cores as there are, at most `wanted`."""
        with self._lock:
            self._num_busy += 1
            num_helpers = max(0, min(wanted, self.num_cores - self._num_busy))
            self._num_busy += num_helpers
            return num_helpers

    def _run(self, work: Callable[[T], R], items: Sequence[T], num_helpers: int) -> list[R]:
        found: list[R | None] = [None] * len(items)
        waiting = iter(range(len(items)))  # `next` of a range iterator is atomic under the interpreter's lock
        has_failed = threading.Event()

        def run() -> None:
            for number in waiting:
                if has_failed.is_set():
                    return
                try:
                    found[number] = work(items[number])
                except BaseException:
                    has_failed.set()
                    raise

        futures = [self._pool.submit(run) for _ in range(num_helpers)]
        try:
            run()
        finally:
            errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return found  # type: ignore[return-value]
