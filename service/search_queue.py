"""The queue of searches: some run, some wait in order of arrival, and one more is refused at once.

Searches have threads of their own, so that whatever else a server does never waits behind them. More run than there
are cores, because those that wait for an encoder are encoded together (model/batching.py). It knows no route.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from model.threads import limit_this_thread
from service.errors import SearchBusy

T = TypeVar("T")

RUNNING_PER_CORE = 2
"""More join larger batches, but their scoring then competes with the event loop, which answers /healthz."""
RETRY_AFTER_S = 1


class SearchQueue:
    """Runs searches in threads. Belongs to one event loop.

    num_waiting: those that may wait; one more raises SearchBusy. num_running: threads; None for a few per core.
    """

    def __init__(self, num_waiting: int, num_running: int | None = None) -> None:
        num_running = num_running or RUNNING_PER_CORE * _num_cores()
        self._threads = CapacityLimiter(num_running)
        self.num_places = num_running + num_waiting
        """Searches that may run or wait."""
        self._num_inside = 0

    async def run(self, search: Callable[[], T]) -> T:
        """What search() returns. Raises: SearchBusy, and what it raises."""
        if self._num_inside >= self.num_places:
            raise SearchBusy(
                f"{self._num_inside} searches are running or waiting.",
                "Try again in a moment; VIDGRAIN_SEARCH_QUEUE sets how many may wait.",
                headers={"retry-after": str(RETRY_AFTER_S)},
            )
        self._num_inside += 1
        try:
            return await run_sync(_limited, search, limiter=self._threads)
        finally:
            self._num_inside -= 1


def _num_cores() -> int:
    """Those that this process may run on; where the system doesn't say, all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limited(search: Callable[[], T]) -> T:
    limit_this_thread()
    return search()
