"""Searches that share the cores: order, errors, and how many threads each gets."""

from __future__ import annotations

import threading

import pytest

from indexer.search.cores import Cores


def test_results_come_in_the_order_of_the_items() -> None:
    cores = Cores(4)
    assert cores.map(lambda n: n * n, range(100)) == [n * n for n in range(100)]
    assert cores.map(lambda n: n, []) == []
    cores.close()


def test_a_search_that_is_alone_uses_every_core() -> None:
    cores, meeting = Cores(3), threading.Barrier(3)

    def meet(_: int) -> str:
        meeting.wait(10)
        return threading.current_thread().name

    assert len(set(cores.map(meet, range(3)))) == 3
    cores.close()


def test_searches_side_by_side_have_one_core_each() -> None:
    cores, meeting = Cores(2), threading.Barrier(2)
    threads: dict[str, set[str]] = {"a": set(), "b": set()}

    def search(name: str) -> None:
        def work(_: int) -> None:
            threads[name].add(threading.current_thread().name)

        def hold(_: int) -> None:
            meeting.wait(10)  # both searches have begun
            cores.map(work, range(20))
            meeting.wait(10)

        cores.map(hold, [0])

    running = [threading.Thread(target=search, args=(name,), name=name) for name in threads]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert threads == {"a": {"a"}, "b": {"b"}}
    cores.close()


@pytest.mark.parametrize("num_cores", [1, 3])
def test_the_first_error_ends_the_work_and_frees_the_cores(num_cores: int) -> None:
    cores, done = Cores(num_cores), []

    def work(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        done.append(number)
        return number

    with pytest.raises(ValueError, match="five"):
        cores.map(work, range(10_000))
    assert len(done) < 10_000
    assert cores.map(lambda n: n, range(10)) == list(range(10))
    cores.close()
