"""How many threads one call may take: the cores that there are, divided by the calls that are at work."""

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
        """At work while the block runs; gives the number of threads that are this call's share, at least one."""
        with self._lock:
            self._num_busy += 1
            share = max(1, self.num_cores // self._num_busy)
        try:
            yield share
        finally:
            with self._lock:
                self._num_busy -= 1
