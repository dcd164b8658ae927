"""Exact searches that wait at the same time are scored in one pass: the features are read once for all of them.

It knows panels, kernels and views; it knows no model and no catalogue.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.search.cores import Cores
from indexer.search.scoring import SegmentScorer
from indexer.shards.view import IndexView, ShardView
from model.batching import Joiner
from model.kernels.block import Rows
from model.kernels.panel import Array, Kernel, Panel

MOST_ROWS = 4
"""Query rows of a search that is joined with others; a longer clip has work enough of its own."""
MOST_SEARCHES = 16
"""Searches scored in one pass: bounds how long the first of them waits."""
ROWS_PER_TASK = 1024
"""Segments that one core scores before it takes more."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One search."""

    view: IndexView
    panel: Panel

    @property
    def kind(self) -> Hashable:
        """Equal for those that can be scored together."""
        return id(self.view), self.panel.kind


class JointScoring:
    """Scores all segments of a view. Thread-safe."""

    def __init__(self, kernel: Kernel, cores: Cores) -> None:
        self._kernel = kernel
        self._cores = cores
        self._joiner: Joiner[_Asked, Array] = Joiner(self._score, MOST_SEARCHES)

    def totals(self, panel: Panel, view: IndexView) -> Array:
        """(Q, N) of all segments of all shards, removed ones as well, in the order of shards and rows."""
        return self._joiner.ask(_Asked(view, panel))

    def _score(self, asked: Sequence[_Asked]) -> list[Array]:
        by_kind: dict[Hashable, list[_Asked]] = {}
        for one in asked:
            by_kind.setdefault(one.kind, []).append(one)
        found: dict[int, Array] = {}
        for same in by_kind.values():
            prepared = self._kernel.prepare(Panel.joined([one.panel for one in same]).trimmed())
            shards = same[0].view.shards
            tasks = [(number, part) for number, shard in enumerate(shards) for part in parts(None, shard, self._kernel)]
            totals = self._cores.map(lambda task: prepared.totals(shards[task[0]].block, task[1]), tasks)  # noqa: B023
            joined = np.concatenate(totals, axis=1)
            starts = np.cumsum([0, *(len(one.panel) for one in same)])
            found |= {id(one): joined[at:end] for one, at, end in zip(same, starts, starts[1:], strict=False)}
        return [found[id(one)] for one in asked]


def parts(rows: Rows | None, shard: ShardView, scores: Kernel | SegmentScorer) -> list[Rows | None]:
    """The rows of a shard, None for all, as `scores` takes them: cut for the cores, or as they are."""
    if scores.takes_whole_blocks:
        return [rows]
    rows = np.arange(len(shard)) if rows is None else rows
    return [rows[at : at + ROWS_PER_TASK] for at in range(0, len(rows), ROWS_PER_TASK)]
