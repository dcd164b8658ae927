"""The two ways in which the programs of triton_programs.py score a block: by AOSM, or by best or mean frames.

Letters: Q query rows, n segments scored, W words, WS slots of a query's columns, FS slots of a segment's frames,
D width. What a program reads of the queries is made when first needed, and kept; making it twice does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.kernels.device_blocks import DeviceBlock
from model.kernels.panel import Array, Panel
from model.kernels.query_columns import (
    QueryColumns,
    frame_columns,
    in_slots,
    lay_out,
    mixes_frames,
    mixes_words,
    on_device,
    padded,
    pooled_columns,
    power_of_two,
)

T = TypeVar("T")

_TILE_ROWS = 128
_READ_AHEAD_BYTES = 72 * 1024
"""Shared memory of a program for the tiles that it reads ahead."""
_NUMBERS_PER_THREAD = 16
"""Similarities that a thread holds, four warps being enough; with more, eight share them."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What is to be scored: n > 0 segments of a block."""

    block: DeviceBlock
    rows: Tensor | None
    """(n,) int64 segments of the block; None for the first n."""
    count: int
    """n."""


class Tile(NamedTuple):
    """What one program takes, and what it is given."""

    segments: int
    queries: int
    depth: int
    """Numbers of a vector that are read at a time."""
    warps: int
    stages: int


def choose_tile(
    frame_slots: int, word_slots: int, num_queries: int, width: int, max_columns: int, *, twins: int, is_int8: bool
) -> Tile:
    """Tiles of _TILE_ROWS frames by at most max_columns columns, at least 16 of both, which the tensor cores take.

    The sizes were chosen by the registers that a compiler for compute capability 9.0 uses (none spilled up to 64 words)
    and await a measurement.
    """
    rows = _TILE_ROWS if word_slots <= 64 else _TILE_ROWS // 2
    segments = max(1, rows // frame_slots)
    products = word_slots * twins * (2 if is_int8 else 1)  # of a row with a query
    fitting = min(power_of_two(num_queries), max_columns // word_slots, 2 * max_columns // products)
    queries = max(fitting, 16 // word_slots, 1)
    columns = queries * word_slots
    depth = min(128 if is_int8 else 64, power_of_two(width, 32))
    stage = (segments * frame_slots + queries * products) * depth * (1 if is_int8 else 2)
    warps = 4 if segments * frame_slots * columns <= 128 * _NUMBERS_PER_THREAD else 8
    return Tile(segments, queries, depth, warps, min(4, max(2, _READ_AHEAD_BYTES // stage)))


@dataclass(frozen=True, slots=True)
class Aosm:
    """A panel for AOSM."""

    panel: Panel
    device: torch.device
    max_columns: int
    _kept: dict[str, Any] = field(default_factory=dict)

    def score(self, scored: Scored, *, as_grains: bool = False) -> Tensor:
        """(Q, n), or the four grains (4, Q, n)."""
        panel, block = self.panel, scored.block
        word_slots, frame_slots = power_of_two(panel.mask.shape[1] + 1, 16), power_of_two(block.most_frames)
        is_mixed, width = self._keep("is_mixed", lambda: mixes_words(panel.mixing)), panel.whole.shape[1]
        twins = 2 if is_mixed else 1
        tile = choose_tile(
            frame_slots, word_slots, len(panel), width, self.max_columns, twins=twins, is_int8=block.is_int8
        )
        out = torch.empty(4 if as_grains else 1, len(panel), scored.count, device=self.device)
        both = _arguments(scored, out, len(panel), tile) | {
            "is_word": self._keep("is_word", lambda: self._word_flags(word_slots)),
            "sharpness": math.log2(math.e) / panel.temperature,
            "D": width,
            "WS": word_slots,
            "IS_MIXED": is_mixed,
            "AS_GRAINS": as_grains,
        }
        at_once = min(64, tile.segments * frame_slots)
        columns = self._columns("pooled", pooled_columns, word_slots, block)
        features = {"pooled": block.pooled, "scales": _or_any(block.pooled_scales, columns.scales)}
        _launch("pooled_grains", at_once, scored, tile, both | _panel(columns) | features | {"M": at_once})
        columns = self._columns("frames", frame_columns, word_slots, block)
        mixing = self._keep(f"mixing {frame_slots}", lambda: self._mixing(word_slots, frame_slots))
        has_mixing = self._keep("has_frame_mixing", lambda: mixes_frames(panel.mixing))
        flags = {"S": tile.segments, "FS": frame_slots, "HAS_FRAME_MIXING": has_mixing}
        features = _frames(block, columns)
        _launch("frame_grains", tile.segments, scored, tile, both | _panel(columns) | features | mixing | flags)
        return out if as_grains else out[0]

    def _columns(
        self, name: str, made: Callable[[Panel, int], Array], word_slots: int, block: DeviceBlock
    ) -> QueryColumns:
        return self._keep(
            f"{name} {block.is_int8}",
            lambda: lay_out(padded(made(self.panel, word_slots)), self.device, is_int8=block.is_int8),
        )

    def _word_flags(self, word_slots: int) -> Tensor:
        flags = np.zeros((len(self.panel), word_slots), np.int8)
        flags[:, : self.panel.mask.shape[1]] = self.panel.mask
        return on_device(padded(flags), self.device)

    def _mixing(self, word_slots: int, frame_slots: int) -> dict[str, Tensor]:
        """The matrices that the program applies; the first over frames as float16, without the identity."""
        mixing = self.panel.mixing
        first = in_slots(mixing.frames_first, frame_slots) - np.eye(frame_slots, dtype=np.float32)
        found: dict[str, NDArray[Any]] = {
            "words_second": in_slots(mixing.words_second, word_slots),
            "frames_first": first.astype(np.float16),
            "frames_coarse": in_slots(mixing.frames_coarse, frame_slots),
            "frames_second": in_slots(mixing.frames_second, frame_slots),
        }
        return {name: on_device(matrix, self.device) for name, matrix in found.items()}

    def _keep(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found


@dataclass(frozen=True, slots=True)
class BestOrMean:
    """Words, each compared with the best or the mean frame, or with the pooled vector, and summed by their shares."""

    words: Array
    """(Q, W, D)"""
    shares: Array
    """(Q, W): 1 / the number of words for a mean, 0 for padding."""
    device: torch.device
    max_columns: int
    is_best: bool = False
    of_pooled: bool = False
    _kept: dict[str, Any] = field(default_factory=dict)

    def score(self, scored: Scored) -> Tensor:
        """(Q, n)"""
        queries, words, width = self.words.shape
        block = scored.block
        word_slots, frame_slots = power_of_two(words), 1 if self.of_pooled else power_of_two(block.most_frames)
        tile = choose_tile(frame_slots, word_slots, queries, width, self.max_columns, twins=1, is_int8=block.is_int8)
        columns = self._columns(word_slots, is_int8=block.is_int8)
        shares = self._shares(word_slots)
        out = torch.empty(queries, scored.count, device=self.device)
        if self.of_pooled:
            first = torch.arange(len(block.pooled), device=self.device)
            features = {
                "frames": block.pooled,
                "scales": _or_any(block.pooled_scales, columns.scales),
                "first_frame": first,
                "num_frames": torch.ones_like(first, dtype=torch.int32),
                "HAS_SCALES": block.is_int8,
            }
        else:
            features = _frames(block, columns)
        rest = {
            "word_shares": shares,
            "D": width,
            "S": tile.segments,
            "FS": frame_slots,
            "WS": word_slots,
            "IS_BEST": self.is_best,
        }
        arguments = _arguments(scored, out, queries, tile) | _panel(columns) | features | rest
        _launch("best_or_mean", tile.segments, scored, tile, arguments)
        return out

    def _columns(self, word_slots: int, *, is_int8: bool) -> QueryColumns:
        name = f"columns {is_int8}"
        if name not in self._kept:
            words = np.pad(self.words, ((0, 0), (0, word_slots - self.words.shape[1]), (0, 0)))
            self._kept[name] = lay_out(padded(words, 16), self.device, is_int8=is_int8)
        found: QueryColumns = self._kept[name]
        return found

    def _shares(self, word_slots: int) -> Tensor:
        if "shares" not in self._kept:
            shares = np.pad(self.shares, ((0, 0), (0, word_slots - self.shares.shape[1])))
            self._kept["shares"] = on_device(padded(shares, 16), self.device)
        found: Tensor = self._kept["shares"]
        return found


def _arguments(scored: Scored, out: Tensor, num_queries: int, tile: Tile) -> dict[str, Any]:
    """What every program takes."""
    return {
        "out": out,
        "rows": scored.block.first_frame if scored.rows is None else scored.rows,
        "num_segments": scored.count,
        "num_queries": num_queries,
        "num_query_blocks": -(-num_queries // tile.queries),
        "BLOCK_D": tile.depth,
        "B": tile.queries,
        "IS_INT8": scored.block.is_int8,
        "HAS_ROWS": scored.rows is not None,
    }


def _panel(columns: QueryColumns) -> dict[str, Any]:
    return {"panel": columns.values, "panel_scales": columns.scales}


def _frames(block: DeviceBlock, columns: QueryColumns) -> dict[str, Any]:
    """Frames are stored as they count, or have scales that bring them there."""
    scales = block.frame_scales if block.unit_scales is None else block.unit_scales
    return {
        "frames": block.frames,
        "scales": _or_any(scales, columns.scales),
        "first_frame": block.first_frame,
        "num_frames": block.num_frames,
        "HAS_SCALES": scales is not None,
    }


def _or_any(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A program takes a pointer also where it doesn't read."""
    return other if tensor is None else tensor


def _launch(name: str, segments: int, scored: Scored, tile: Tile, arguments: Mapping[str, Any]) -> None:
    from model.kernels import triton_programs

    grid = (-(-scored.count // segments) * int(arguments["num_query_blocks"]),)
    device = scored.block.frames.device
    here: AbstractContextManager[object] = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with here:
        getattr(triton_programs, name)[grid](
            **arguments, num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True
        )
