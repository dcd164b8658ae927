"""How many CPU threads one call may take, of torch and of libraries with an OpenMP of their own; set here only.

A server answers requests side by side, each on one thread: two threads per request would wait for one another as soon
as several requests are at work. Training and evaluation leave the choice to torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

SERVING_THREADS = 1
"""Threads of one call in a server, unless the settings say otherwise."""

_limit: int | None = None
_own = threading.local()


def limit_threads(count: int | None) -> None:
    """From now on each call takes `count` threads, here and in threads that begin later; None changes nothing."""
    global _limit
    if count is None:
        return
    import torch

    _limit = count
    torch.set_num_threads(count)


def threads_of_this_thread(count: int) -> None:
    """From now on each call of the calling thread takes `count` threads, whatever holds for the others.

    So an encoder thread per core takes one each, while a thread that is alone may take all cores. torch and oneDNN
    count per thread; threads that begin later begin with the last number that any thread set.
    """
    import torch

    _own.count = count
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def limit_this_thread(set_threads: Callable[[int], object] | None = None) -> None:
    """Make the limit hold in the calling thread, whenever it began. Costs nothing.

    OpenMP counts per thread: torch passes its number on to a thread when it is first asked there, which code that calls
    OpenMP itself doesn't do, and never to a thread that had one before the limit was set. set_threads: sets the number
    of a library that brings its own OpenMP (faiss.omp_set_num_threads).
    """
    import torch

    limit: int | None = getattr(_own, "count", _limit)
    num_threads = torch.get_num_threads()
    if limit is not None and num_threads != limit:
        torch.set_num_threads(limit)
    if limit is not None and set_threads is not None:
        set_threads(limit)
