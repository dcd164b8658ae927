"""What is read ahead comes in order, never too far ahead, with its failures in place, and stops when it is left."""

from __future__ import annotations

import threading

import pytest

from model.read_ahead import read_ahead


def test_in_order_whatever_thread_is_quicker() -> None:
    second_done = threading.Event()

    def read(item: int) -> int:
        if item == 0:
            assert second_done.wait(30)
        elif item == 1:
            second_done.set()
        return item * 10

    with read_ahead(read, range(5), ahead=2, threads=2) as made:
        assert list(made) == [0, 10, 20, 30, 40]


def test_never_further_ahead_than_was_asked() -> None:
    begun: list[int] = []
    with read_ahead(lambda item: begun.append(item) or item, iter(range(100)), ahead=3, threads=3) as made:
        for item in made:
            assert max(begun) <= item + 3
            if item == 20:
                break
    assert max(begun) <= 23


def test_a_failure_comes_where_its_item_would() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    seen = []
    with read_ahead(read, range(9), ahead=4) as made, pytest.raises(KeyError, match="3"):
        for item in made:
            seen.append(item)
    assert seen == [0, 1, 2]


def test_leaving_waits_for_what_has_begun_and_drops_the_rest() -> None:
    begun, ended = [], []
    has_begun, may_end = threading.Event(), threading.Event()

    def read(item: int) -> int:
        begun.append(item)
        if item == 1:
            has_begun.set()
            assert may_end.wait(30)
        ended.append(item)
        return item

    with read_ahead(read, range(50), ahead=10) as made:
        assert next(made) == 0
        assert has_begun.wait(30)
        threading.Timer(0.05, may_end.set).start()
    assert begun == ended and len(begun) <= 2


def test_nothing_to_read() -> None:
    with read_ahead(str, [], ahead=2) as made:
        assert list(made) == []
