"""The plan of a search: score everything, or recall candidates and score those. Costs are measured, not guessed.

Letters: Q query rows, W words, F frame slots, D width of frames, P width of pooled vectors.
It knows scorers and blocks of features; it knows no shard and no catalogue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from indexer.records import RecallMode
from indexer.search.scoring import SegmentScorer
from model.kernels.block import FeatureBlock

SAMPLE_SEGMENTS = 1024
"""Segments of the synthetic block on which a kernel's cost is measured."""
SAMPLE_OF_DEVICE = 16_384
"""Segments of the block on which a GPU is measured: with fewer it would be the launch that is measured."""
SAMPLE_COPIES = 64
"""Segments of it on which the model itself is measured: it may take a millisecond each."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search does, and why."""

    mode: Literal["exact", "ann"]
    """exact: every allowed segment is scored in full. ann: those that recall finds."""
    reason: str
    """In a sentence for people."""
    exact_ms: float | None
    """What scoring everything is expected to take, in milliseconds; None where nobody asked."""
    budget_ms: float
    """How long it may take before `auto` recalls."""


def choose(
    asked: RecallMode,
    num_allowed: int,
    segment_us: Callable[[], float],
    num_cores: int,
    budget_ms: float,
    *,
    can_recall: bool,
    few: int,
) -> Plan:
    """The plan for num_allowed segments that cost segment_us() each on one core.

    can_recall: whether recall would cost less than scoring everything does. few: as many segments are scored in full
    without a look at the cost, which takes longer to measure.
    """
    size = f"{num_allowed:,} segments"
    if asked == "exact":
        return Plan("exact", f"As asked: {size}.", None, budget_ms)
    if not can_recall:
        return Plan("exact", f"No part of the library has a coarse index: {size}.", None, budget_ms)
    if asked == "auto" and num_allowed <= few:
        return Plan("exact", f"Few enough to score them all: {size}.", None, budget_ms)
    exact_ms = num_allowed * segment_us() / 1e3 / num_cores
    cost = f"{size} would take about {exact_ms:.3g} ms"
    if asked == "ann":
        return Plan("ann", f"As asked; scoring all {cost}.", exact_ms, budget_ms)
    if exact_ms <= budget_ms:
        return Plan("exact", f"Within the budget of {budget_ms:g} ms: {cost}.", exact_ms, budget_ms)
    return Plan("ann", f"Beyond the budget of {budget_ms:g} ms: {cost}.", exact_ms, budget_ms)


class Costs:
    """What scoring one segment takes on one core, measured once for each kind of query. Thread-safe."""

    def __init__(self, dim: int, pooled_dim: int, num_slots: int) -> None:
        self._shape = dim, pooled_dim, num_slots
        self._lock = threading.Lock()
        self._sample: FeatureBlock | None = None
        self._segment_us: dict[str, float] = {}

    def segment_us(self, kind: str, scorer: SegmentScorer) -> float:
        """Microseconds per segment of queries of this kind, of which `scorer` holds one."""
        with self._lock:
            if kind not in self._segment_us:
                self._segment_us[kind] = self._measured(scorer)
            return self._segment_us[kind]

    def measured(self) -> dict[str, float]:
        """Microseconds per segment by kind of query, so far."""
        with self._lock:
            return {kind: round(cost, 4) for kind, cost in self._segment_us.items()}

    def _measured(self, scorer: SegmentScorer) -> float:
        if self._sample is None:
            size = SAMPLE_OF_DEVICE if scorer.takes_whole_blocks else SAMPLE_SEGMENTS
            self._sample = sample_block(*self._shape, size)
        rows = None if scorer.reads_in_place else np.arange(SAMPLE_COPIES)
        count = len(self._sample) if rows is None else len(rows)
        scorer.totals(self._sample, rows)  # the first call settles memory
        took_s = []
        for _ in range(3):
            started = time.perf_counter()
            scorer.totals(self._sample, rows)
            took_s.append(time.perf_counter() - started)
        return min(took_s) / count * 1e6


def sample_block(dim: int, pooled_dim: int, num_slots: int, size: int = SAMPLE_SEGMENTS) -> FeatureBlock:
    """A synthetic block of `size` segments with all F slots filled: unit vectors, a few hundred different."""
    rng = np.random.default_rng(0)

    def unit(count: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
        some = rng.standard_normal((256, width), dtype=np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
        return some.astype(np.float16)[rng.integers(0, len(some), count)]

    counts = np.full(size, num_slots, np.int32)
    first = np.arange(size, dtype=np.int64) * num_slots
    return FeatureBlock(unit(size * num_slots, dim), unit(size, pooled_dim), first, counts)
