"""Query vectors laid out as the columns that the programs on a GPU read.

Letters: Q query rows, W words, WS slots of a query's columns (a power of two), C columns of a query, D width.
AOSM's columns of a query are its words from the first slot on and the sentence in the last; where words are mixed, each
is followed by its twin, the mixed vector, whose inner products are the mixed similarities. Queries are padded with
zeros to a power of two. It knows numpy and torch; it knows no triton.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.kernels.block import quantize
from model.kernels.panel import Array, MixingArrays, Panel

Number = TypeVar("Number", bound=np.generic)

LOW_STEPS = 254
"""Steps of the low byte of an int8 query within one of the high byte."""


@dataclass(frozen=True, slots=True)
class QueryColumns:
    """What a program reads of the queries."""

    values: Tensor
    """(Q x C, D) float16, or (Q x C, 2, D) int8: high and low bytes."""
    scales: Tensor
    """(Q x C,) float32."""


def power_of_two(number: int, least: int = 1) -> int:
    """The smallest power of two that is no less than either; `least` is one itself."""
    return max(least, 1 << max(0, number - 1).bit_length())


def lay_out(vectors_QCD: Array, device: torch.device, *, is_int8: bool) -> QueryColumns:
    """Round query vectors for features of a kind: float16 with a scale, or two bytes a number,
    scale x (high + low / LOW_STEPS), so that int8 features lose nothing more to the query."""
    flat = np.ascontiguousarray(vectors_QCD, np.float32).reshape(-1, vectors_QCD.shape[-1])
    if is_int8:
        high, scales = quantize(flat)
        rest = flat / np.where(scales > 0, scales, 1.0)[:, None] - high
        low = np.clip(np.rint(rest * LOW_STEPS), -127, 127).astype(np.int8)
        values = np.stack([high, low], axis=1)
    else:
        scales = np.abs(flat).max(axis=1, initial=0.0)
        values = (flat / np.where(scales > 0, scales, 1.0)[:, None]).astype(np.float16)
    return QueryColumns(on_device(values, device), on_device(scales, device))


def frame_columns(panel: Panel, slots: int) -> Array:
    """(Q, WS, D), or (Q, 2 WS, D) where words are mixed: what AOSM compares with frames."""
    return _with_twins(panel, panel.parts_local, panel.whole, panel.mixing.words_first, slots)


def pooled_columns(panel: Panel, slots: int) -> Array:
    """The same of what AOSM compares with pooled vectors."""
    return _with_twins(panel, panel.parts, panel.whole_mixed, panel.mixing.words_coarse, slots)


def mixes_words(mixing: MixingArrays) -> bool:
    """Whether any matrix over words is more than the identity."""
    return any(_is_more(x) for x in (mixing.words_coarse, mixing.words_first, mixing.words_second))


def mixes_frames(mixing: MixingArrays) -> bool:
    """Whether any matrix over frames is more than the identity."""
    return any(_is_more(x) for x in (mixing.frames_coarse, mixing.frames_first, mixing.frames_second))


def in_slots(matrix: Array | None, slots: int) -> Array:
    """A matrix over words or frames, cut or with zeros in the slots beyond; None: the identity."""
    found = np.eye(slots, dtype=np.float32)
    if matrix is not None:
        kept = min(len(matrix), slots)
        found[:] = 0.0
        found[:kept, :kept] = matrix[:kept, :kept]
    return found


def padded(array_Q: NDArray[Number], least: int = 1) -> NDArray[Number]:
    """Queries of zeros up to a power of two, no fewer than `least`."""
    found = np.zeros((power_of_two(len(array_Q), least), *array_Q.shape[1:]), array_Q.dtype)
    found[: len(array_Q)] = array_Q
    return found


def mean_words(panel: Panel) -> tuple[Array, Array]:
    """The means of the real words, as they are compared with pooled vectors and with frames: (Q, D) each."""
    real_QW1 = panel.mask[..., None].astype(np.float32)
    count_Q1 = np.maximum(real_QW1.sum(1), 1.0)
    return (panel.parts * real_QW1).sum(1) / count_Q1, (panel.parts_local * real_QW1).sum(1) / count_Q1


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A copy of an array on a device."""
    return torch.from_numpy(np.array(array)).to(device)


def _with_twins(panel: Panel, words_QWD: Array, whole_QD: Array, matrix_WW: Array | None, slots: int) -> Array:
    queries, words, width = words_QWD.shape
    real_QWD = words_QWD * panel.mask[..., None]
    found = np.zeros((queries, slots, 2, width), np.float32)
    found[:, :words, 0] = real_QWD
    found[:, -1, 0] = whole_QD
    found[:, :words, 1] = real_QWD if matrix_WW is None else np.einsum("uw,qwd->qud", matrix_WW, real_QWD)
    return found.reshape(queries, 2 * slots, width) if mixes_words(panel.mixing) else found[:, :, 0]


def _is_more(matrix: Array | None) -> bool:
    return matrix is not None and not np.array_equal(matrix, np.eye(len(matrix), dtype=matrix.dtype))
