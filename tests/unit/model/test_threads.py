"""The number of threads of a call is set in one place and holds in every thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from model.threads import limit_this_thread, limit_threads, threads_of_this_thread


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins without a limit, and leaves torch as it was."""
    count = torch.get_num_threads()
    monkeypatch.setattr("model.threads._limit", None)
    yield
    torch.set_num_threads(count)


def in_a_new_thread() -> tuple[int, list[int]]:
    """What torch takes there, and what another library was set to."""
    seen: list[int] = []
    found: list[int] = []

    def run() -> None:
        limit_this_thread(seen.append)
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0], seen


def test_a_limit_holds_in_threads_that_begin_later() -> None:
    limit_threads(3)
    assert torch.get_num_threads() == 3
    assert in_a_new_thread() == (3, [3])


def test_a_limit_reaches_a_thread_that_began_before_it() -> None:
    begun, set_meanwhile, found = threading.Event(), threading.Event(), list[int]()

    def run() -> None:
        torch.get_num_threads()
        begun.set()
        assert set_meanwhile.wait(30)
        limit_this_thread()
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    limit_threads(3)
    set_meanwhile.set()
    thread.join()
    assert found == [3]


def test_a_thread_may_have_a_number_of_its_own() -> None:
    found: dict[int, tuple[int, int]] = {}
    all_have_set = threading.Barrier(2)

    def run(count: int) -> None:
        threads_of_this_thread(count)
        all_have_set.wait(30)
        before = torch.get_num_threads()
        limit_this_thread()
        found[count] = (before, torch.get_num_threads())

    limit_threads(3)
    threads = [threading.Thread(target=run, args=(count,)) for count in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: (1, 1), 2: (2, 2)}, "neither the others' number nor the limit reaches it"
    assert torch.get_num_threads() == 3


def test_without_a_limit_libraries_choose() -> None:
    count = torch.get_num_threads()
    limit_threads(None)
    assert in_a_new_thread() == (count, [])
