"""Reading ahead: what is needed next is made in threads while the present one is worked on, and handed out in order.

Threads suffice: decoding happens in child processes, and numpy, PIL and torch let go of the interpreter at work.
It knows no data: what makes an item is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


@contextmanager
def read_ahead(
    read: Callable[[Item], Made], items: Iterable[Item], *, ahead: int, threads: int = 1
) -> Iterator[Iterator[Made]]:
    """Iterate read(item) for every item, in order; beside the one in use at most `ahead` are made or waiting.

    `items` is drawn from in the caller's thread, one at a time. What `read` raises is raised where its result would
    have come. On leaving, nothing that hasn't begun is read, and what has begun is waited for.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
    try:
        yield _in_order(pool, read, iter(items), ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, read: Callable[[Item], Made], items: Iterator[Item], ahead: int
) -> Iterator[Made]:
    waiting = deque(pool.submit(read, item) for item in islice(items, ahead))
    while waiting:
        made = waiting.popleft().result()
        waiting.extend(pool.submit(read, item) for item in islice(items, 1))
        yield made
