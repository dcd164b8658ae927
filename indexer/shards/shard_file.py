"""One sealed shard in one file: written once, mapped into memory, never changed.

    8 bytes  "VGSHARD1"
    4 + 4    length of the head, CRC-32 of the head
    head     JSON: for each part its name, dtype, shape, place, and CRC-32
    parts    each at a multiple of 4,096 bytes

The head, the tables and the coarse index are checked whenever a file is opened. The features are not: reading them all
would make opening a matter of the disk; `ShardFile.is_sound` does it later. It knows no catalogue and no FAISS.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.shards.shard import SealedShard
from indexer.shards.sizes import Layout
from indexer.shards.view import SegmentTable, VideoTable
from model.files import writing_atomic
from model.kernels.block import FeatureBlock

MAGIC = b"VGSHARD1"
PREFIX = struct.Struct("<8sII")
ALIGNED_TO = 4096
LARGEST_HEAD = 2**16 - PREFIX.size
CHUNK_BYTES = 2**24
"""Bytes written or checked between two looks at whether to stop."""

LARGE = frozenset({"frames", "pooled"})
"""Parts that aren't checked when a file is opened."""
COARSE = "coarse."

Parts = dict[str, NDArray[Any]]


class DamagedShard(Exception):
    """A file that isn't a whole shard; the message says why."""


class Stopped(Exception):
    """The work was given up because it is to stop."""


@dataclass(frozen=True, slots=True)
class Part:
    """An array within a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    crc32: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class ShardFile:
    """A mapped file. Its memory lives as long as an array of it does, also after the file was deleted."""

    def __init__(
        self, name: str, head_crc32: int, memory: mmap.mmap, arrays: Parts, parts: tuple[Part, ...], is_checked: bool
    ) -> None:
        self._memory = memory
        self.name = name
        self.head_crc32 = head_crc32
        """Of the head, which has the checksums of all parts: it names the content."""
        self.arrays = arrays
        self._parts = parts
        self.is_checked = is_checked
        """Whether the features are known to be sound."""

    def is_sound(self, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Whether the features have their checksums; they are read once. Raises: Stopped."""
        if not self.is_checked:
            for part in self._parts:
                if part.name in LARGE and _crc32(self.arrays[part.name], go_on) != part.crc32:
                    return False
            self.is_checked = True
        return True

    def coarse(self) -> dict[str, NDArray[np.uint8]]:
        """The parts of the coarse index, {} if the file has none."""
        return {name.removeprefix(COARSE): array for name, array in self.arrays.items() if name.startswith(COARSE)}

    def release_coarse(self) -> None:
        """Give back the memory of the coarse index's parts; pages that are still used are mapped again when needed."""
        for part in self._parts:
            first = part.offset - part.offset % mmap.PAGESIZE
            if part.name.startswith(COARSE) and part.size_bytes and hasattr(mmap, "MADV_DONTNEED"):
                self._memory.madvise(mmap.MADV_DONTNEED, first, part.offset + part.size_bytes - first)

    def tables(self) -> tuple[SegmentTable, VideoTable, FeatureBlock]:
        """The parts of the shard, in the file's memory."""
        a = self.arrays
        segments = SegmentTable(*(a[name] for name in SEGMENT_COLUMNS))
        videos = VideoTable(*(a[name] for name in VIDEO_COLUMNS))
        scales = a.get("frame_scales"), a.get("pooled_scales")
        return segments, videos, FeatureBlock(a["frames"], a["pooled"], a["first_frame"], a["num_frames"], *scales)


SEGMENT_COLUMNS = ("segment_ids", "video_rows", "start_s", "end_s", "times_s")
VIDEO_COLUMNS = ("numbers", "ids", "first_row", "num_rows", "features_seq")


def write_shard(
    path: Path,
    shard: SealedShard,
    coarse: Mapping[str, NDArray[np.uint8]],
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Write a shard, with dead segments and all, and the parts of its coarse index; the file is whole or not there.

    Raises: OSError, Stopped.
    """
    arrays = _arrays(shard, coarse)
    parts: list[Part] = []
    offset = PREFIX.size + LARGEST_HEAD
    for name, array in arrays.items():
        offset += -offset % ALIGNED_TO
        part = Part(name, array.dtype.str, array.shape, offset, _crc32(array, go_on))
        parts.append(part)
        offset += part.size_bytes
    head = json.dumps([[p.name, p.dtype, p.shape, p.offset, p.crc32] for p in parts]).encode()
    with writing_atomic(path) as file:
        file.write(PREFIX.pack(MAGIC, len(head), zlib.crc32(head)) + head)
        for part in parts:
            file.seek(part.offset)
            for chunk in _chunks(arrays[part.name], go_on):
                file.write(chunk)


def map_shard(folder: int, name: str, layout: Layout, *, is_checked: bool = False) -> ShardFile:
    """Map a file of a folder, given as a descriptor, without following a link.

    is_checked: whether this process has just written the features, so that they need not be read to be trusted.
    Raises: DamagedShard for anything but a whole shard of this layout, FileNotFoundError, OSError.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size < PREFIX.size:
            raise DamagedShard("it is not a file, or an empty one")
        memory = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    magic, length, crc32 = PREFIX.unpack_from(memory)
    if magic != MAGIC or length > LARGEST_HEAD:
        raise DamagedShard("it has another format")
    head = memory[PREFIX.size : PREFIX.size + length]
    if zlib.crc32(head) != crc32:
        raise DamagedShard("its head is damaged")
    parts = tuple(Part(n, d, tuple(shape), offset, crc) for n, d, shape, offset, crc in json.loads(head))
    if max(part.offset + part.size_bytes for part in parts) > status.st_size:
        raise DamagedShard(f"it ends after {status.st_size} bytes")
    arrays = {part.name: _array(memory, part) for part in parts}
    for part in parts:
        if part.name not in LARGE and _crc32(arrays[part.name]) != part.crc32:
            raise DamagedShard(f"its part {part.name} is damaged")
    _check_layout(arrays, layout)
    return ShardFile(name, crc32, memory, arrays, parts, is_checked)


def _array(memory: mmap.mmap, part: Part) -> NDArray[Any]:
    count = int(np.prod(part.shape, dtype=np.int64))
    flat: NDArray[Any] = np.empty(0, part.dtype)
    if count:
        flat = np.frombuffer(memory, part.dtype, count, part.offset)
    return flat.reshape(part.shape)


def _arrays(shard: SealedShard, coarse: Mapping[str, NDArray[np.uint8]]) -> Parts:
    parts, block = shard.parts, shard.parts.block
    arrays: Parts = {name: getattr(parts.segments, name) for name in SEGMENT_COLUMNS}
    arrays |= {name: getattr(parts.videos, name) for name in VIDEO_COLUMNS}
    arrays |= {"first_frame": block.first_frame, "num_frames": block.num_frames}
    if block.frame_scales is not None and block.pooled_scales is not None:
        arrays |= {"frame_scales": block.frame_scales, "pooled_scales": block.pooled_scales}
    arrays |= {f"{COARSE}{name}": array for name, array in coarse.items()}
    arrays |= {"frames": block.frames, "pooled": block.pooled}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _check_layout(arrays: Parts, layout: Layout) -> None:
    wanted = {*SEGMENT_COLUMNS, *VIDEO_COLUMNS, "first_frame", "num_frames", "frames", "pooled"}
    if layout.store == "int8":
        wanted |= {"frame_scales", "pooled_scales"}
    if missing := wanted - set(arrays):
        raise DamagedShard(f"it has no part {min(missing)}")
    rows, frames = len(arrays["segment_ids"]), len(arrays["times_s"])
    kind = np.dtype(np.int8 if layout.store == "int8" else np.float16)
    for name, shape in (("frames", (frames, layout.dim)), ("pooled", (rows, layout.pooled_dim))):
        if arrays[name].shape != shape or arrays[name].dtype != kind:
            raise DamagedShard(f"its part {name} is {arrays[name].dtype} {arrays[name].shape}")


def _chunks(array: NDArray[Any], go_on: Callable[[], bool]) -> Iterator[memoryview]:
    """The bytes of an array, piece by piece. Raises: Stopped."""
    raw = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    for at in range(0, len(raw), CHUNK_BYTES):
        if not go_on():
            raise Stopped
        yield raw[at : at + CHUNK_BYTES]


def _crc32(array: NDArray[Any], go_on: Callable[[], bool] = lambda: True) -> int:
    crc32 = 0
    for chunk in _chunks(array, go_on):
        crc32 = zlib.crc32(chunk, crc32)
    return crc32
