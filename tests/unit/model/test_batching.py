"""Calls that wait are joined: none is lost, none waits for others to come, and one that fails fails alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from model.batching import JoinedText, Joiner
from model.types import TextFeatures
from tests.support.fakes import FakeModel


class Gate:
    """Doubles numbers; the first batch waits until it is let go. Negative numbers fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if len(self.batches) == 1:
            self.has_begun.set()
            assert self.may_end.wait(30)
        if min(items) < 0:
            raise ValueError(f"{min(items)} is negative")
        return [2 * item for item in items]


def joined(gate: Gate, numbers: Sequence[int], max_items: int) -> list[int | str]:
    """Each number asked for by a thread of its own, all but the first while the first is at work."""
    joiner = Joiner(gate, max_items)

    def ask(number: int) -> int | str:
        try:
            return joiner.ask(number)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers)) as pool:
        asked = [pool.submit(ask, numbers[0])]
        assert gate.has_begun.wait(30)
        for count, number in enumerate(numbers[1:], 1):
            asked.append(pool.submit(ask, number))
            while joiner.num_waiting < count:
                pass
        gate.may_end.set()
        return [future.result(30) for future in asked]


def test_those_that_wait_are_one_batch_in_order_of_arrival() -> None:
    gate = Gate()
    assert joined(gate, [1, 2, 3, 4, 5, 6], max_items=3) == [2, 4, 6, 8, 10, 12]
    assert gate.batches == [[1], [2, 3, 4], [5, 6]]


def test_an_item_that_fails_fails_alone() -> None:
    gate = Gate()
    assert joined(gate, [1, 2, -3, 4], max_items=8) == [2, 4, "-3 is negative", 8]
    assert gate.batches == [[1], [2, -3, 4], [2], [-3], [4]]


def test_who_is_alone_is_served_at_once_and_again_after_a_failure() -> None:
    gate = Gate()
    gate.may_end.set()
    joiner = Joiner(gate, 4)
    assert joiner.ask(3) == 6
    with pytest.raises(ValueError, match="-1 is negative"):
        joiner.ask(-1)
    assert joiner.ask(4) == 8


def test_an_interrupted_batch_leaves_nobody_waiting() -> None:
    gate = Gate()

    def work(items: Sequence[int]) -> list[int]:
        if gate(items) and len(gate.batches) == 2:
            raise KeyboardInterrupt
        return list(items)

    joiner = Joiner(work, 8)
    ended: list[BaseException | int] = []

    def ask(number: int) -> None:
        try:
            ended.append(joiner.ask(number))
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    threads[0].start()
    assert gate.has_begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    while joiner.num_waiting < 2:
        pass
    gate.may_end.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert {type(end) for end in ended} == {int, KeyboardInterrupt, RuntimeError}
    assert joiner.ask(7) == 7


def test_many_threads_get_what_they_asked_for() -> None:
    joiner = Joiner(lambda items: [item * item for item in items], 5)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(joiner.ask, range(2000))) == [n * n for n in range(2000)]


class Counting(FakeModel):
    """Notes what it encodes; the first call waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.asked: list[list[str]] = []

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        self.asked.append(list(texts))
        self.gate([1])
        return super().encode_text(texts)


def test_sentences_are_encoded_together_and_the_same_one_once() -> None:
    inner = Counting()
    model = JoinedText(inner)
    texts = ["red", "blue", "red green", "blue"]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(model.encode_text, [texts[0]])]
        assert inner.gate.has_begun.wait(30)
        for count, text in enumerate(texts[1:], 1):
            asked.append(pool.submit(model.encode_text, [text]))
            while model._joiner.num_waiting < count:
                pass
        inner.gate.may_end.set()
        found = [future.result(30) for future in asked]
    assert inner.asked == [["red"], ["blue", "red green"]]
    for text, features in zip(texts, found, strict=True):
        alone = FakeModel().encode_text([text])
        assert torch.equal(features.sentence, alone.sentence) and torch.equal(features.words, alone.words)
        assert torch.equal(features.mask, alone.mask)
        assert (features.pieces, features.is_cut) == (alone.pieces, alone.is_cut)


def test_calls_with_several_sentences_pass() -> None:
    inner = Counting()
    inner.gate.may_end.set()
    assert len(JoinedText(inner).encode_text(["red", "blue"]).sentence) == 2
    assert inner.asked == [["red", "blue"]]
