"""Copies of feature blocks on a device, made once and kept while the arrays that they were made of live.

Letters: N segments, R frames of all of them, D width of frames, P width of pooled vectors.
A block that grew over the same memory (an open shard after an append) has its new rows copied and no others. Beyond a
bound on memory the copies that were used longest ago are dropped; a block larger than the bound is copied for one call.
It knows torch and the layout of block.py; it knows no kernel.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.kernels.block import FeatureBlock

_STEP_BYTES = 64 * 2**20
"""Copied at a time: the copies through which mapped files reach a device stay small."""

_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DeviceBlock:
    """A FeatureBlock on a device; the tensors may have more rows than the block."""

    frames: Tensor
    """(>= R, D) float16 or int8."""
    pooled: Tensor
    """(>= N, P)"""
    first_frame: Tensor
    """(>= N,) int64"""
    num_frames: Tensor
    """(>= N,) int32"""
    frame_scales: Tensor | None
    """(>= R,) float32; None for float16."""
    pooled_scales: Tensor | None
    """(>= N,)"""
    unit_scales: Tensor | None
    """(>= R,): what makes stored frames unit vectors, where that was asked for."""
    most_frames: int
    """Frames of the longest segment."""

    @property
    def is_int8(self) -> bool:
        """How features are stored."""
        return self.frame_scales is not None


class DeviceBlocks:
    """The copies on one device. Safe to share by threads, which all use the device's current stream."""

    def __init__(self, device: torch.device, memory_bytes: int) -> None:
        self.device = device
        self.memory_bytes = memory_bytes
        self._copies: OrderedDict[_Key, _Copy] = OrderedDict()
        self._lock = threading.RLock()  # the death of an array may be noticed inside of `get`

    @property
    def size_bytes(self) -> int:
        """Bytes of all copies that are kept."""
        with self._lock:
            return sum(copy.size_bytes for copy in self._copies.values())

    def __len__(self) -> int:
        return len(self._copies)

    def get(self, block: FeatureBlock, *, has_unit_frames: bool = True) -> DeviceBlock:
        """The copy of a block, made or brought up to date first. has_unit_frames False: with `unit_scales`."""
        key = (_address(block.frames), _address(block.pooled))
        with self._lock:
            copy = self._copies.pop(key, None)
            if copy is None:
                self._make_room(_needed_bytes(block))
                copy = _Copy(self.device)
                for array in (block.frames, block.pooled):
                    copy.watch(array, self, key)
            elif copy.num_segments < len(block):
                self._make_room(_needed_bytes(block))
            copy.follow(block)
            found = copy.as_block(has_unit_frames)
            if copy.size_bytes <= self.memory_bytes:
                self._copies[key] = copy
            else:
                copy.unwatch()
            return found

    def _make_room(self, needed: int) -> None:
        while self._copies and self.size_bytes + needed > self.memory_bytes:
            _, copy = self._copies.popitem(last=False)
            copy.unwatch()

    def forget(self, key: _Key) -> None:
        """Drop a copy whose arrays are gone: their memory may be given to others."""
        with self._lock:
            if (copy := self._copies.pop(key, None)) is not None:
                copy.unwatch()


class _Copy:
    """The tensors of one block, which grow."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._columns: dict[str, _Column] = {}
        self._unit_scales: Tensor | None = None
        self._watched: list[weakref.finalize[..., NDArray[np.generic]]] = []
        self.most_frames = 1
        self.num_segments = 0

    def watch(self, array: NDArray[np.generic], blocks: DeviceBlocks, key: _Key) -> None:
        """Have the copy forgotten when the array's memory is given back."""
        watched = weakref.finalize(_owner(array), _forget, weakref.ref(blocks), key)
        watched.atexit = False
        self._watched.append(watched)

    def unwatch(self) -> None:
        """The copy is forgotten already."""
        for watched in self._watched:
            watched.detach()

    @property
    def size_bytes(self) -> int:
        """Bytes on the device."""
        scales = 0 if self._unit_scales is None else self._unit_scales.nbytes
        return scales + sum(column.tensor.nbytes for column in self._columns.values())

    def follow(self, block: FeatureBlock) -> None:
        """Copy what the block has beyond what is here."""
        if len(block) <= self.num_segments:
            return
        for name in ("frames", "pooled", "first_frame", "num_frames", "frame_scales", "pooled_scales"):
            array = getattr(block, name)
            if array is None:
                continue
            if name not in self._columns:
                self._columns[name] = _Column(array, self._device)
            self._columns[name].follow(array)
        self.most_frames = max(self.most_frames, int(block.num_frames[self.num_segments :].max(initial=1)))
        self.num_segments = len(block)

    def as_block(self, has_unit_frames: bool) -> DeviceBlock:
        """The tensors."""
        columns = {name: column.tensor for name, column in self._columns.items()}
        return DeviceBlock(
            columns["frames"],
            columns["pooled"],
            columns["first_frame"],
            columns["num_frames"],
            columns.get("frame_scales"),
            columns.get("pooled_scales"),
            None if has_unit_frames else self._normalised(),
            self.most_frames,
        )

    def _normalised(self) -> Tensor:
        """1 / the length of each stored row; a row of zeros stays zero. An int8 row's own scale cancels out."""
        frames = self._columns["frames"]
        done = 0 if self._unit_scales is None else len(self._unit_scales)
        if done < frames.filled or self._unit_scales is None:
            step = max(1, _STEP_BYTES // (4 * frames.tensor.shape[1]))
            parts = [] if self._unit_scales is None else [self._unit_scales]
            for start in range(done, frames.filled, step):
                lengths = frames.tensor[start : min(start + step, frames.filled)].float().norm(dim=1)
                parts.append(torch.where(lengths > 0, 1.0 / lengths.clamp_min(1e-12), 0.0))
            self._unit_scales = torch.cat(parts)
        return self._unit_scales


class _Column:
    """One array on the device, with room to grow once it has grown."""

    def __init__(self, array: NDArray[np.generic], device: torch.device) -> None:
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        self.tensor = torch.empty(array.shape, dtype=dtype, device=device)
        self.filled = 0

    def follow(self, array: NDArray[np.generic]) -> None:
        """Copy the rows that aren't here yet."""
        if len(array) > len(self.tensor):
            larger = self.tensor.new_empty((max(len(array), 2 * len(self.tensor)), *array.shape[1:]))
            larger[: self.filled] = self.tensor[: self.filled]
            self.tensor = larger
        step = max(1, _STEP_BYTES // max(1, array.nbytes // max(1, len(array))))
        for start in range(self.filled, len(array), step):
            piece = np.array(array[start : start + step])  # torch takes no array that can't be written
            self.tensor[start : start + len(piece)].copy_(torch.from_numpy(piece))
        self.filled = max(self.filled, len(array))


def _address(array: NDArray[np.generic]) -> int:
    return int(array.__array_interface__["data"][0])


def _owner(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array that keeps the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _needed_bytes(block: FeatureBlock) -> int:
    return block.size_bytes + block.first_frame.nbytes + block.num_frames.nbytes


def _forget(blocks: weakref.ref[DeviceBlocks], key: _Key) -> None:
    if (living := blocks()) is not None:
        living.forget(key)
