"""Scoring on a GPU: features that stay there, scored where they lie, and one copy back of what is asked.

Letters: Q query rows, N segments of a block, n segments scored, W words, F frame slots, D width, G parts of a score.
aosm takes two launches for all segments of a block, its pooled grains and those of frames; maxsim, max_frame and mean
take one, multi_grained two. Relevance, which is asked for few segments, is torch on the device. Import this where a GPU
is wanted and nowhere else; triton itself is imported by `load`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.kernels.block import FeatureBlock, Rows
from model.kernels.device_blocks import DeviceBlock, DeviceBlocks
from model.kernels.device_scorers import Aosm, BestOrMean, Scored
from model.kernels.panel import Array, Panel
from model.kernels.query_columns import mean_words, on_device

MEMORY_SHARE = 0.8
"""Of what is free on the device when the kernel is loaded: the bound on copies of features."""

MAX_COLUMNS = 64
"""Columns of queries that a program takes at once: with more, features are read fewer times, and registers run out."""

_RELEVANCE_NUMBERS = 2**26
"""What `relevance` holds at once."""


class Top(NamedTuple):
    """The best of a block for Q query rows, best first."""

    rows: NDArray[np.int64]
    """(Q, k) segments of the block; -1 where there are fewer."""
    totals: NDArray[np.float32]
    """(Q, k), -inf where there are fewer."""


def unavailable(device: torch.device) -> str | None:
    """Why the kernel can't run on a device, in a sentence; None if it can."""
    try:
        from model.kernels import triton_programs
    except ImportError as error:
        return f"Triton can't be imported ({error})."
    if device.type != "cuda":
        return None if triton_programs.is_interpreted() else f"The device {device} is not a GPU."
    if not torch.cuda.is_available():
        return "torch finds no GPU."
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} has a compute capability below 8.0."
    return None


def load(device: torch.device, memory_bytes: int | None = None) -> TritonKernel | None:
    """The kernel on a device, None where it can't run; `unavailable` has the reason.

    memory_bytes: the bound on copies of features; None: MEMORY_SHARE of what is free now.
    """
    if unavailable(device) is not None:
        return None
    if memory_bytes is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**30
        memory_bytes = int(MEMORY_SHARE * free)
    return TritonKernel(device, memory_bytes)


class TritonKernel:
    """The `Kernel` of panel.py on one GPU."""

    takes_whole_blocks = True

    def __init__(self, device: torch.device, memory_bytes: int, max_columns: int = MAX_COLUMNS) -> None:
        self.device = device
        self.max_columns = max_columns
        self.blocks = DeviceBlocks(device, memory_bytes)

    @property
    def name(self) -> str:
        """What it is and what it runs on."""
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "interpreter"
        return f"triton {where}"

    def prepare(self, panel: Panel) -> TritonQuery:
        """The panel, ready to be scored. Raises: KeyError for a scorer that isn't shared."""
        return TritonQuery(panel.trimmed(), self)


class TritonQuery:
    """The `PreparedQuery` of panel.py."""

    def __init__(self, panel: Panel, kernel: TritonKernel) -> None:
        self._panel = panel
        self._device = kernel.device
        self._blocks = kernel.blocks
        self._terms, self._parts = scorers_of(panel, kernel.device, kernel.max_columns)

    def totals(self, block: FeatureBlock, rows: Rows | None = None) -> Array:
        """(Q, n) float32: what ranks."""
        return _to_host(self.device_totals(block, rows))

    def totals_of(self, blocks: Sequence[tuple[FeatureBlock, Rows | None]]) -> list[Array]:
        """`totals` of each block with its rows, copied back at once after the device was given all the work."""
        there = [self.device_totals(block, rows) for block, rows in blocks]
        if not there:
            return []
        together = _to_host(torch.cat(there, dim=1))
        return np.split(together, np.cumsum([part.shape[1] for part in there])[:-1], axis=1)

    def device_totals(self, block: FeatureBlock, rows: Rows | None = None) -> Tensor:
        """(Q, n) float32, left on the device."""
        scored = self._scored(block, rows)
        if scored is None:
            return torch.zeros(len(self._panel), 0, device=self._device)
        total = self._terms[0].score(scored)
        for term in self._terms[1:]:
            total += term.score(scored)
        return total

    def top(
        self, block: FeatureBlock, rows: Rows | None, k: int, video_rows: NDArray[np.integer[Any]] | None = None
    ) -> Top:
        """The k best segments of `rows` (None: all) for each query row; NaN never ranks.

        video_rows: (N,) the video of each segment of the block, so that every video has its best segment only, the
        first of equal ones. Other equal totals come in any order.
        """
        totals = self.device_totals(block, rows)
        k = min(k, totals.shape[1])
        if not k:
            return Top(np.empty((len(totals), 0), np.int64), np.empty((len(totals), 0), np.float32))
        totals = torch.where(totals.isnan(), float("-inf"), totals)
        if video_rows is None:
            best, at = totals.topk(k)
        else:
            videos = np.asarray(video_rows if rows is None else video_rows[rows], np.int64)
            best, at = _best_of_videos(totals, on_device(videos, self._device), k)
        at = torch.where(best > float("-inf"), at, -1)
        both = torch.stack([best.double(), at.double()]).cpu().numpy()
        found = both[1].astype(np.int64)
        return Top(found if rows is None else np.where(found < 0, -1, rows[found]), both[0].astype(np.float32))

    def grains(self, block: FeatureBlock, rows: Rows) -> Array:
        """(Q, n, G) float32: the parts of the score."""
        scored = self._scored(block, rows)
        if scored is None:
            return np.zeros((len(self._panel), 0, 4 if isinstance(self._parts, Aosm) else len(self._parts)), np.float32)
        if isinstance(self._parts, Aosm):
            parts = self._parts.score(scored, as_grains=True)
        else:
            parts = torch.stack([part.score(scored) for part in self._parts])
        return _to_host(parts.permute(1, 2, 0))

    def relevance(self, block: FeatureBlock, rows: Rows, num_slots: int) -> Array:
        """(Q, n, F) float32, F = num_slots: how much each frame supports the query; -inf in padded slots."""
        panel, scored = self._panel, self._scored(block, rows)
        if scored is None or scored.rows is None:
            return np.zeros((len(panel), 0, num_slots), np.float32)
        whole_QD, parts_QWD = on_device(panel.whole, self._device), on_device(panel.parts, self._device)
        mask_QW = on_device(panel.mask, self._device)
        found, numbers = [], num_slots * (panel.parts.shape[2] + panel.mask.size)
        for rows_n in torch.split(scored.rows, max(1, _RELEVANCE_NUMBERS // numbers)):
            frames_nFD, mask_nF = _dense_frames(scored.block, rows_n, num_slots)
            sim_QnF = torch.einsum("qd,nfd->qnf", whole_QD, frames_nFD)
            if panel.parts_are_frames:
                fine_QnFW = torch.einsum("qwd,nfd->qnfw", parts_QWD, frames_nFD)
                sim_QnF = 0.5 * (sim_QnF + fine_QnFW.masked_fill(~mask_QW[:, None, None], float("-inf")).amax(-1))
            found.append(sim_QnF.masked_fill(~mask_nF[None], float("-inf")))
        return _to_host(torch.cat(found, dim=1))

    def _scored(self, block: FeatureBlock, rows: Rows | None) -> Scored | None:
        """What is to be scored, on the device; None where that is nothing."""
        count = len(block) if rows is None else len(rows)
        if not count or not len(self._panel):
            return None
        here = self._blocks.get(block, has_unit_frames=self._panel.has_unit_frames)
        return Scored(here, None if rows is None else on_device(np.asarray(rows, np.int64), self._device), count)


_Parts = tuple[BestOrMean, ...] | Aosm
_Scorer = tuple[tuple[Aosm | BestOrMean, ...], _Parts]
"""What is summed to a total, and what is shown as its parts."""


def scorers_of(panel: Panel, device: torch.device, max_columns: int) -> _Scorer:
    """The terms of a panel's totals, and its parts. Raises: KeyError for a scorer that isn't shared."""
    return _SCORERS[panel.scorer](panel, device, max_columns)


def _aosm(panel: Panel, device: torch.device, max_columns: int) -> _Scorer:
    scorer = Aosm(panel, device, max_columns)
    return (scorer,), scorer


def _maxsim(panel: Panel, device: torch.device, max_columns: int) -> _Scorer:
    shares_QW = panel.mask / np.maximum(panel.mask.sum(1, keepdims=True), 1)
    scorer = BestOrMean(panel.parts_local, shares_QW.astype(np.float32), device, max_columns, is_best=True)
    return (scorer,), (scorer,)


def _max_frame(panel: Panel, device: torch.device, max_columns: int) -> _Scorer:
    scorer = _of_one_vector(panel.whole, device, max_columns, is_best=True)
    return (scorer,), (scorer,)


def _mean(panel: Panel, device: torch.device, max_columns: int) -> _Scorer:
    scorer = _of_one_vector(panel.whole_mixed, device, max_columns, of_pooled=True)
    return (scorer,), (scorer,)


def _multi_grained(panel: Panel, device: torch.device, max_columns: int) -> _Scorer:
    """A mean of cosines is the cosine with the mean vector: a total needs one vector for pooled and one for frames."""
    word_QD, local_QD = mean_words(panel)
    terms = (
        _of_one_vector(0.25 * (panel.whole_mixed + word_QD), device, max_columns, of_pooled=True),
        _of_one_vector(0.25 * (panel.whole + local_QD), device, max_columns),
    )
    parts = tuple(_of_one_vector(x, device, max_columns, of_pooled=True) for x in (panel.whole_mixed, word_QD)) + tuple(
        _of_one_vector(x, device, max_columns) for x in (panel.whole, local_QD)
    )
    return terms, parts


_SCORERS = {
    "aosm": _aosm,
    "multi_grained": _multi_grained,
    "maxsim": _maxsim,
    "max_frame": _max_frame,
    "mean": _mean,
}


def _of_one_vector(
    vectors_QD: Array, device: torch.device, max_columns: int, *, is_best: bool = False, of_pooled: bool = False
) -> BestOrMean:
    shares = np.ones((len(vectors_QD), 1), np.float32)
    return BestOrMean(vectors_QD[:, None], shares, device, max_columns, is_best, of_pooled)


def _best_of_videos(totals_Qn: Tensor, videos_n: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best totals of k videos and where they are: (Q, k) each; -inf for a video without any."""
    queries, count = totals_Qn.shape
    videos_Qn, num_videos = videos_n.expand(queries, -1), int(videos_n.max()) + 1
    best_QV = totals_Qn.new_full((queries, num_videos), float("-inf"))
    best_QV = best_QV.scatter_reduce(1, videos_Qn, totals_Qn, "amax")
    place_n = torch.arange(count, device=totals_Qn.device)
    place_Qn = torch.where(totals_Qn == best_QV.gather(1, videos_Qn), place_n, count)
    place_QV = torch.full_like(best_QV, count, dtype=torch.int64).scatter_reduce(1, videos_Qn, place_Qn, "amin")
    best, video = best_QV.topk(min(k, num_videos))
    return best, place_QV.gather(1, video)


def _dense_frames(block: DeviceBlock, rows_n: Tensor, num_slots: int) -> tuple[Tensor, Tensor]:
    """The frames of some segments in F slots, as they count, and which slots are real: (n, F, D), (n, F)."""
    slot = torch.arange(num_slots, device=rows_n.device)
    mask_nF = slot < block.num_frames[rows_n][:, None]
    at_nF = torch.where(mask_nF, block.first_frame[rows_n][:, None] + slot, 0)
    frames_nFD = block.frames[at_nF].float()
    scales = block.frame_scales if block.unit_scales is None else block.unit_scales
    return frames_nFD if scales is None else frames_nFD * scales[at_nF][..., None], mask_nF


def _to_host(tensor: Tensor) -> Array:
    found: Array = np.ascontiguousarray(tensor.cpu().numpy())
    return found
