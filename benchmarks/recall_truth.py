"""Which ten segments have the best totals of AOSM: exactly, for many sentences over many shards, without scoring all.

Letters: T sentences, W words, N segments of a shard, F frames, D width.
Each of the four grains is a weighted mean of cosines, so none exceeds the largest of them. That bound takes one product
of matrices in bf16 for all sentences; only segments whose bound reaches the tenth best total so far are scored by the
reference in float32. MARGIN covers the rounding of bf16, so that the ten are those of the reference over all segments.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recall_data import Sentences
from model.kernels.aosm_reference import Mixing, four_grains
from model.kernels.block import FeatureBlock, gather

BEST = 10
SEGMENTS_AT_ONCE = 128
FIRST_SCORED = 64
"""Segments of the highest bounds in a shard, scored first so that there is a tenth best to compare with."""
MARGIN = 0.004
"""bf16 keeps eight bits: cosines up to 0.5 are off by at most 0.002, of operands and result together."""


class ExactTop:
    """The running top ten of each sentence."""

    def __init__(self, sentences: Sentences, num_frames: int) -> None:
        self._whole, self._words = torch.from_numpy(sentences.whole), torch.from_numpy(sentences.words)
        self._num_frames = num_frames
        num, words, width = sentences.words.shape
        parts = torch.cat([self._whole[:, None], self._words], 1).reshape(num * (words + 1), width)
        self._panel = parts.T.to(torch.bfloat16).contiguous()
        self._shape = (num, words + 1)
        self.rows = np.full((num, BEST), -1, np.int64)
        """(T, 10) numbers through all shards, best first."""
        self.totals = np.full((num, BEST), -np.inf, np.float32)
        self.num_scored = 0
        """Pairs of a sentence and a segment that the bound could not rule out."""

    def add(self, block: FeatureBlock, offset: int) -> None:
        """Take in a shard of fp16, each segment with all of its frames, whose first has the number `offset`."""
        bounds = self._bounds(block)
        for query, bound in enumerate(bounds.T):
            first = np.argsort(-bound)[:FIRST_SCORED]
            self._score(block, query, first, offset)
            others = np.flatnonzero(bound + MARGIN >= self.totals[query, -1])
            self._score(block, query, np.setdiff1d(others, first), offset)

    def _bounds(self, block: FeatureBlock) -> NDArray[np.float32]:
        """(N, T)"""
        found = np.empty((len(block), self._shape[0]), np.float32)
        with torch.inference_mode():
            for at in range(0, len(block), SEGMENTS_AT_ONCE):
                some = np.arange(at, min(at + SEGMENTS_AT_ONCE, len(block)))
                frames = torch.from_numpy(block.frames[some[0] * self._num_frames : (some[-1] + 1) * self._num_frames])
                frames, pooled = frames.to(torch.bfloat16), torch.from_numpy(block.pooled[some]).to(torch.bfloat16)
                by_frame = (frames @ self._panel).view(len(some), self._num_frames, *self._shape).amax(1)
                by_pooled = (pooled @ self._panel).view(len(some), *self._shape)
                sides = [side.float() for side in (by_frame, by_pooled)]
                bound = torch.stack([part for side in sides for part in (side[..., 0], side[..., 1:].amax(-1))])
                found[some] = bound.mean(0).numpy()
        return found

    def _score(self, block: FeatureBlock, query: int, rows: NDArray[np.int64], offset: int) -> None:
        if not len(rows):
            return
        self.num_scored += len(rows)
        features = gather(block, rows, self._num_frames)
        with torch.inference_mode():
            grains = four_grains(
                self._whole[query : query + 1],
                self._words[query : query + 1],
                torch.from_numpy(features.pooled),
                torch.from_numpy(features.frames),
                Mixing(),
                frame_mask_VF=torch.from_numpy(features.mask),
            ).grains_TV4
        totals = np.concatenate([self.totals[query], grains.mean(-1)[0].numpy()])
        numbers = np.concatenate([self.rows[query], rows + offset])
        best = np.argsort(-totals, kind="stable")[:BEST]
        self.rows[query], self.totals[query] = numbers[best], totals[best]
