"""How segments are scored: by a kernel where they lie, or by the model itself on copies where only it can.

Letters: Q query rows, N segments, F frame slots, G parts of a score.
It knows the model's interface and blocks of features; it knows no shard, no catalogue and no plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.kernels.block import FeatureBlock, Rows, gather
from model.kernels.panel import Array, Kernel, Panel, PreparedQuery
from model.scorers import SCORERS
from model.types import Query, ScorerName, TextFeatures, VideoFeatures, VideoTextModel

CELLS_PER_BLOCK = 256 * 32 * 12
"""Rows x words x frames that the model scores at once: they stay in the cache, and memory is bounded."""
JOINT_FRAMES_PER_BLOCK = 1024 * 12
"""Frames that a transformer reads at once together with the sentence: each costs layers of activations, not a cell."""


class SegmentScorer(Protocol):
    """A query ready to score segments. Thread-safe; rows None means the whole block."""

    @property
    def name(self) -> str:
        """What computes the scores, for `effective`."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the G parts."""
        ...

    @property
    def takes_whole_blocks(self) -> bool:
        """Whether one call should score a whole block, and not a part of it per core."""
        ...

    @property
    def reads_in_place(self) -> bool:
        """Whether scoring costs about what reading the features costs."""
        ...

    def totals(self, block: FeatureBlock, rows: Rows | None) -> Array:
        """(Q, n) float32."""
        ...

    def grains(self, block: FeatureBlock, rows: Rows) -> Array:
        """(Q, n, G) float32."""
        ...

    def relevance(self, block: FeatureBlock, rows: Rows) -> Array:
        """(n, F): how much a frame supports the query, the best over its rows; -inf in padded slots."""
        ...


class KernelScorer:
    """One of the shared scorers, by a kernel."""

    reads_in_place = True

    def __init__(self, kernel: Kernel, panel: Panel, num_slots: int) -> None:
        self.name = kernel.name
        self.takes_whole_blocks = kernel.takes_whole_blocks
        self.names = SCORERS[panel.scorer].parts
        self._prepared: PreparedQuery = kernel.prepare(panel.trimmed())
        self._num_slots = num_slots
        self.panel = panel

    def totals(self, block: FeatureBlock, rows: Rows | None) -> Array:
        """See SegmentScorer."""
        return self._prepared.totals(block, rows)

    def grains(self, block: FeatureBlock, rows: Rows) -> Array:
        """See SegmentScorer."""
        return self._prepared.grains(block, rows)

    def relevance(self, block: FeatureBlock, rows: Rows) -> Array:
        """See SegmentScorer."""
        best: Array = self._prepared.relevance(block, rows, self._num_slots).max(0)
        return best


class ModelScorer:
    """Any scorer of a model, by its `score`, on copies of the features."""

    reads_in_place = False
    takes_whole_blocks = False

    def __init__(self, model: VideoTextModel, query: Query, scorer: ScorerName) -> None:
        self.names = SCORERS[scorer].parts
        self._model, self._query, self._scorer = model, query, scorer
        self._like = query.sentence if isinstance(query, TextFeatures) else query.pooled
        self._num_slots = model.spec.num_frames
        num_rows, num_parts = query.mask.shape
        per_segment = num_rows * self._num_slots
        if SCORERS[scorer].cost == "joint":
            self._size = max(32, JOINT_FRAMES_PER_BLOCK // max(1, per_segment))
        else:
            self._size = max(32, CELLS_PER_BLOCK // max(1, per_segment * num_parts))

    @property
    def name(self) -> str:
        """The model, with its device."""
        return f"model on {self._like.device}"

    def totals(self, block: FeatureBlock, rows: Rows | None) -> Array:
        """See SegmentScorer."""
        parts = [
            self._model.score(self._query, videos, self._scorer).total.float().cpu().numpy()
            for videos in self._copies(block, rows)
        ]
        return np.concatenate(parts, axis=1) if parts else np.empty((len(self._query.mask), 0), np.float32)

    def grains(self, block: FeatureBlock, rows: Rows) -> Array:
        """See SegmentScorer."""
        parts = [
            self._model.score(self._query, videos, self._scorer).grains.float().cpu().numpy()
            for videos in self._copies(block, rows)
        ]
        empty = np.empty((len(self._query.mask), 0, len(self.names)), np.float32)
        return np.concatenate(parts, axis=1) if parts else empty

    def relevance(self, block: FeatureBlock, rows: Rows) -> Array:
        """See SegmentScorer."""
        parts = []
        for videos in self._copies(block, rows):
            best = self._model.frame_relevance(self._query, videos).amax(0)
            parts.append(best.masked_fill(~videos.mask, float("-inf")).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self._num_slots), np.float32)

    def _copies(self, block: FeatureBlock, rows: Rows | None) -> Iterator[VideoFeatures]:
        count = len(block) if rows is None else len(rows)
        with torch.inference_mode():
            for at in range(0, count, self._size):
                chosen = slice(at, min(count, at + self._size))
                dense = gather(block, chosen if rows is None else rows[chosen], self._num_slots)
                yield VideoFeatures(self._tensor(dense.pooled), self._tensor(dense.frames), self._tensor(dense.mask))

    def _tensor(self, array: NDArray[np.float32] | NDArray[np.bool_]) -> torch.Tensor:
        tensor = torch.from_numpy(array).to(self._like.device)
        return tensor if tensor.dtype == torch.bool else tensor.to(self._like.dtype)
