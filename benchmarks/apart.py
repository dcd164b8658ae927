"""A measurement in a process of its own, so that it inherits no threads, caches and memory of the one before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def apart(call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Call a function of a module in a fresh process and wait for it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *given, **named).result()
