"""Calls that wait at the same time are joined into one: a batch costs little more than one of its items.

`Joiner` does it for any function of a list, without a thread of its own: the first caller of those that wait takes them
all and does the work, the others wait for what it finds. `JoinedText` joins the encoding of sentences.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from model.types import TextFeatures, VideoTextModel
from model.wrapped import WrappedModel

T = TypeVar("T")
R = TypeVar("R")

MAX_TEXTS = 32
"""Sentences encoded at once: bounds how long the first of them waits."""


class Joiner(Generic[T, R]):
    """Calls `work` with the items of all callers that wait. Thread-safe.

    One batch is at work at a time; those that come meanwhile are the next. Nobody waits for others to come: a caller
    that is alone is served at once. Items are taken in order of arrival.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], max_items: int) -> None:
        """work: items -> as many results, in their order; may be called from any thread, not from two at once."""
        self._work = work
        self._max_items = max_items
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket[T, R]] = deque()
        self._is_working = False

    def ask(self, item: T) -> R:
        """The result for one item.

        Raises: what `work` raises for it; where a batch fails, each of its items is tried alone.
        """
        mine: _Ticket[T, R] = _Ticket(item)
        with self._lock:
            self._waiting.append(mine)
            is_leader = not self._is_working
            self._is_working = True
        if not is_leader:
            mine.called.wait()
        if not mine.is_done:
            self._lead()
        return mine.result()

    @property
    def num_waiting(self) -> int:
        """Items that wait for the batch that is at work."""
        return len(self._waiting)

    def _lead(self) -> None:
        """Work for those that wait, then let the next of them lead."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_items))]
        try:
            self._settle(batch)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_working = following is not None
            for ticket in batch:
                ticket.finish()
            if following is not None:
                following.called.set()

    def _settle(self, batch: Sequence[_Ticket[T, R]]) -> None:
        try:
            results = self._work([ticket.item for ticket in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")
            for ticket, result in zip(batch, results, strict=True):
                ticket.found = [result]
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for ticket in batch:
                self._settle([ticket])


class _Ticket(Generic[T, R]):
    """An item and what became of it. `called` is set when its caller may go on: it is done, or leads the next batch."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.called = threading.Event()
        self.is_done = False
        self.found: list[R] = []
        self.error: BaseException | None = None

    def finish(self) -> None:
        self.is_done = True
        self.called.set()

    def result(self) -> R:
        if self.error is not None:
            raise self.error
        if not self.found:
            raise RuntimeError("the batch ended before this item was reached")
        return self.found[0]


class JoinedText(WrappedModel):
    """A model whose calls with one sentence are joined; the same sentence asked for by several is encoded once."""

    def __init__(self, inner: VideoTextModel, max_texts: int = MAX_TEXTS) -> None:
        super().__init__(inner)
        self._joiner = Joiner(self._encode, max_texts)

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """As the model's own."""
        return self._joiner.ask(texts[0]) if len(texts) == 1 else self.inner.encode_text(texts)

    def _encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        distinct = list(dict.fromkeys(texts))
        found = self.inner.encode_text(distinct)
        rows = {text: _row(found, number) for number, text in enumerate(distinct)}
        return [rows[text] for text in texts]


def _row(features: TextFeatures, row: int) -> TextFeatures:
    one = slice(row, row + 1)
    return replace(
        features,
        sentence=features.sentence[one],
        words=features.words[one],
        mask=features.mask[one],
        pieces=features.pieces[one],
        is_cut=features.is_cut[one],
    )
