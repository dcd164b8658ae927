"""The kernel in torch: where no faster one fits. Blocks that stay in the cache, real words only, one matrix product.

Letters: Q query rows, N segments, B segments of a chunk, F frame slots, W real words, D width, G parts of a score.
Features are read as float32. Masks enter as biases.
Source of the arithmetic: model/kernels/aosm_reference.py and model/shared_scorers.py, which it is held to by tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from model.kernels.block import FeatureBlock, Rows
from model.kernels.panel import Array, Panel
from model.threads import limit_this_thread

SEGMENTS_PER_CHUNK = 128
"""Segments scored at once: their features and similarities stay in the second-level cache (128 x 12 x 512 floats)."""


MAX_EXPONENT = 80.0
"""exp(-80) is still a normal float32."""
TINY = 1e-38
"""Divides the sums of padded slots, which are 0."""


class TorchKernel:
    """On the CPU, in float32: turning float16 into bfloat16 costs more than faster products give back
    (docs/experiments.md)."""

    name = "torch fp32"
    takes_whole_blocks = False

    def prepare(self, panel: Panel) -> TorchQuery:
        """The panel as tensors."""
        return TorchQuery(panel)


class TorchQuery:
    """A panel that torch scores. Thread-safe."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._rows = [_QueryRow(panel, q) for q in range(len(panel))]

    def totals(self, block: FeatureBlock, rows: Rows | None = None) -> Array:
        """(Q, n): see PreparedQuery."""
        count = len(block) if rows is None else len(rows)
        found = np.empty((len(self._rows), count), np.float32)
        for at, features in self._chunks(block, rows):
            for q, row in enumerate(self._rows):
                found[q, at] = row.grains(features).mean(-1).numpy()
        return found

    def grains(self, block: FeatureBlock, rows: Rows) -> Array:
        """(Q, n, G): see PreparedQuery."""
        parts = [torch.stack([row.grains(features) for row in self._rows]) for _, features in self._chunks(block, rows)]
        if not parts:
            return np.empty(
                (len(self._rows), 0, 4 if self._panel.scorer in ("aosm", "multi_grained") else 1), np.float32
            )
        found: Array = torch.cat(parts, dim=1).numpy()
        return found

    def relevance(self, block: FeatureBlock, rows: Rows, num_slots: int) -> Array:
        """(Q, n, F): see PreparedQuery."""
        found = np.full((len(self._rows), len(rows), num_slots), -np.inf, np.float32)
        for at, features in self._chunks(block, rows):
            slots = features.num_slots
            for q, row in enumerate(self._rows):
                found[q, at, :slots] = row.relevance(features, self._panel.parts_are_frames).numpy()
        return found

    def _chunks(self, block: FeatureBlock, rows: Rows | None) -> Iterator[tuple[slice, _Features]]:
        count = len(block) if rows is None else len(rows)
        limit_this_thread()
        with torch.inference_mode():
            for start in range(0, count, SEGMENTS_PER_CHUNK):
                at = slice(start, min(count, start + SEGMENTS_PER_CHUNK))
                chosen = at if rows is None else rows[at]
                yield at, _Features(block, chosen, is_unit=self._panel.has_unit_frames)


class _Features:
    """The features of B segments: R frames under one another, pooled rows, and where padding is once they are apart."""

    def __init__(self, block: FeatureBlock, chosen: Rows | slice, *, is_unit: bool) -> None:
        counts = block.num_frames[chosen]
        first = block.first_frame[chosen]
        slots = int(counts.max(initial=1))
        self.num_slots = slots
        self._real = np.arange(slots)[None, :] < counts[:, None]
        self._is_full = bool(self._real.all())
        if isinstance(chosen, slice) and len(counts):
            at: Rows | slice = slice(int(first[0]), int(first[-1] + counts[-1]))
        else:
            at = (first[:, None] + np.arange(slots)[None, :])[self._real]
        self._frames = _tensor(block.frames[at], None if block.frame_scales is None else block.frame_scales[at])
        self._pooled = _tensor(
            block.pooled[chosen], None if block.pooled_scales is None else block.pooled_scales[chosen]
        )
        if not is_unit:
            self._frames, self._pooled = normalize(self._frames, dim=-1), normalize(self._pooled, dim=-1)
        mask = torch.from_numpy(self._real)
        self.mask_BF = mask.float()
        self.bias_BF = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        self.counts_B = self.mask_BF.sum(1)

    def against_frames(self, columns_CD: Tensor) -> Tensor:
        """(B, F, C) cosines, 0 in padded slots."""
        sim_RC = self._frames @ columns_CD.T
        if self._is_full:
            return sim_RC.reshape(*self._real.shape, len(columns_CD))
        sim_BFC = torch.zeros(*self._real.shape, len(columns_CD))
        sim_BFC[torch.from_numpy(self._real)] = sim_RC
        return sim_BFC

    def against_pooled(self, columns_CP: Tensor) -> Tensor:
        """(B, C) cosines."""
        return self._pooled @ columns_CP.T


def _tensor(stored: NDArray[Any], scales: Array | None) -> Tensor:
    rows = torch.from_numpy(stored if stored.flags.writeable else stored.copy()).float()  # torch warns of the others
    return rows if scales is None else rows * torch.from_numpy(scales)[:, None]


class _QueryRow:
    """One query row: its real words alone."""

    def __init__(self, panel: Panel, q: int) -> None:
        real = np.flatnonzero(panel.mask[q])
        self._scorer, self._temperature = panel.scorer, panel.temperature
        self._whole_1D = torch.from_numpy(panel.whole[q : q + 1])
        self._mixed_1D = torch.from_numpy(panel.whole_mixed[q : q + 1])
        self._parts_WD = torch.from_numpy(panel.parts[q, real])
        self._local_WD = torch.from_numpy(panel.parts_local[q, real])
        mixing = panel.mixing
        self._words = [_cut(matrix, real) for matrix in (mixing.words_coarse, mixing.words_first, mixing.words_second)]
        self._frames = [
            None if matrix is None else torch.from_numpy(matrix)
            for matrix in (mixing.frames_coarse, mixing.frames_first, mixing.frames_second)
        ]

    def grains(self, given: _Features) -> Tensor:
        """(B, G)"""
        if self._scorer == "mean":
            return given.against_pooled(self._mixed_1D)
        if self._scorer == "max_frame":
            sim_BF = given.against_frames(self._whole_1D)[..., 0] + given.bias_BF
            return sim_BF.amax(1, keepdim=True)
        if self._scorer == "maxsim":
            fine_BFW = given.against_frames(self._local_WD) + given.bias_BF[..., None]
            return fine_BFW.amax(1).mean(1, keepdim=True)
        if self._scorer == "multi_grained":
            return self._multi_grained(given)
        return self._aosm(given)

    def relevance(self, given: _Features, parts_are_frames: bool) -> Tensor:
        """(B, F)"""
        sim_BF = given.against_frames(self._whole_1D)[..., 0]
        if parts_are_frames:
            sim_BF = 0.5 * (sim_BF + given.against_frames(self._parts_WD).amax(-1))
        return sim_BF + given.bias_BF

    def _multi_grained(self, given: _Features) -> Tensor:
        columns = torch.cat([self._whole_1D, self._local_WD.mean(0, keepdim=True)])
        by_frame_B2 = (given.against_frames(columns) * given.mask_BF[..., None]).sum(1) / given.counts_B[:, None]
        words = self._parts_WD.mean(0, keepdim=True)
        by_pooled_B2 = given.against_pooled(torch.cat([self._mixed_1D, words]))
        return torch.cat([by_pooled_B2, by_frame_B2], dim=1)

    def _aosm(self, given: _Features) -> Tensor:
        by_pooled_B1W = given.against_pooled(torch.cat([self._mixed_1D, self._parts_WD]))
        sim_BFW1 = given.against_frames(torch.cat([self._local_WD, self._whole_1D]))
        fine_BFW, sentence_BF = sim_BFW1[..., :-1], sim_BFW1[..., -1]
        bias_BF = given.bias_BF
        by_frame_BF, by_word_BW = self._both_ways(fine_BFW, given)
        frame_word_B = 0.5 * (
            self._attend(by_frame_BF, self._frames[2], bias_BF) + self._attend(by_word_BW, self._words[2])
        )
        video_word_B = self._attend(by_pooled_B1W[:, 1:], self._words[0])
        frame_sentence_B = self._attend(sentence_BF, self._frames[0], bias_BF)
        return torch.stack([by_pooled_B1W[:, 0], video_word_B, frame_sentence_B, frame_word_B], dim=1)

    def _both_ways(self, fine_BFW: Tensor, given: _Features) -> tuple[Tensor, Tensor]:
        """The words of each frame (B, F) and the frames of each word (B, W) summed out by attention.

        One exponential serves both softmaxes, unless similarities lie so far apart that a row of it would vanish.
        """
        bias_BF1 = given.bias_BF[..., None]
        highest_B11 = (fine_BFW + bias_BF1).amax((1, 2), keepdim=True)
        spread = (highest_B11 - fine_BFW).nan_to_num_(0.0)  # a segment of NaN says nothing about the others
        if float(spread.max()) > MAX_EXPONENT * self._temperature:
            by_word_BW = self._attend(fine_BFW.transpose(1, 2), self._frames[1], given.bias_BF[:, None, :])
            return self._attend(fine_BFW, self._words[1]), by_word_BW
        shares_BFW = ((fine_BFW + bias_BF1 - highest_B11) / self._temperature).exp_()
        words, frames = self._words[1], self._frames[1]
        by_words_BFW = fine_BFW if words is None else fine_BFW @ words.T
        slots = fine_BFW.shape[1]
        by_frames_BFW = fine_BFW if frames is None else frames[:slots, :slots] @ fine_BFW
        by_frame_BF = (shares_BFW * by_words_BFW).sum(2) / shares_BFW.sum(2).clamp_min_(TINY)
        return by_frame_BF, (shares_BFW * by_frames_BFW).sum(1) / shares_BFW.sum(1)

    def _attend(self, sim: Tensor, mix: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The last axis summed out by attention; bias is -inf where there is padding, whose sim then counts nothing."""
        logits = sim / self._temperature
        if bias is None:
            weights = torch.softmax(logits, dim=-1)
        else:
            weights = torch.softmax(logits + bias, dim=-1)
            sim = sim.masked_fill(bias.isneginf(), 0.0)
        if mix is not None:
            size = sim.shape[-1]
            weights = weights @ mix[:size, :size]
        return (sim * weights).sum(-1)


def _cut(matrix: Array | None, real: Rows) -> Tensor | None:
    return None if matrix is None else torch.from_numpy(np.ascontiguousarray(matrix[np.ix_(real, real)]))
