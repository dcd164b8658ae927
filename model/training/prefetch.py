"""The batches of a training, made ahead of the step that needs them. It knows no data: what makes a batch is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from model.read_ahead import read_ahead
from model.training.batches import Each

Made = TypeVar("Made")

NUM_AHEAD = 2
"""Batches in the making beside the one in use; 300 clips of 12 frames of 224 pixels are half a gigabyte."""


@contextmanager
def made_ahead(
    make: Callable[[int, Each[int, object]], Made], first: int, last: int, workers: int
) -> Iterator[Iterator[Made]]:
    """Iterate make(step, each) for step = first .. last - 1; `each` spreads one batch's parts over `workers` threads.

    Exceptions and leaving: as `read_ahead`.
    """
    parts = ThreadPoolExecutor(workers, thread_name_prefix="clip")
    steps = range(first, last)
    try:
        with read_ahead(lambda step: make(step, parts.map), steps, ahead=NUM_AHEAD, threads=NUM_AHEAD) as batches:
            yield batches
    finally:
        parts.shutdown(cancel_futures=True)
