"""How many threads one call may take: the number of cores divided by the calls in progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CoreShare:
    """Thread-safe."""

    def __init__(self, num_cores: int) -> None:
        self.num_cores = num_cores
        self._lock = threading.Lock()
        self._num_busy = 0

    @contextmanager
    def taken(self) -> Iterator[int]:
        """Count a call as in progress while the block runs; gives its share of threads, at least one."""
        with self._lock:
            self._num_busy += 1
            share = max(1, self.num_cores // self._num_busy)
        try:
            yield share
        finally:
            with self._lock:
                self._num_busy -= 1
