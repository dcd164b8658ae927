"""The compiled kernel: the only door to model/kernels/native, opened by ctypes, which releases the GIL while it runs.

Letters: Q query rows, W words, F frame slots, N segments, D width of frames, P width of pooled vectors, G parts of a
score. The file is built with the package where there is a C++ compiler; without one `load` returns None and `problem`
says why. It has a path for each instruction set and takes the best that the CPU has.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from model.compiled import open_compiled
from model.errors import ShapeError
from model.kernels.block import FeatureBlock, Rows, Store
from model.kernels.panel import Array, Panel

ABI_VERSION: Final = 1
"""What native/shapes.h must have been when the file was built."""

PathName = Literal["amx", "avx512bf16", "avx512", "avx2", "portable"]
"""The instruction sets, best first; an Intel CPU prefers avx512 to avx512bf16."""

_SCORERS: Final = {"aosm": 0, "multi_grained": 1, "maxsim": 2, "max_frame": 3, "mean": 4}
_RELEVANCE: Final = 5
_CLIP_RELEVANCE: Final = 6
_NUM_PARTS: Final = {"aosm": 4, "multi_grained": 4}
_STORES: Final = {"fp16": 0, "int8": 1}
_DTYPES: Final = {"fp16": np.float16, "int8": np.int8}
_TOTALS, _GRAINS = 0, 1


class _Features(ctypes.Structure):
    _fields_ = (
        ("frames", ctypes.c_void_p),
        ("pooled", ctypes.c_void_p),
        ("first_frame", ctypes.c_void_p),
        ("frame_count", ctypes.c_void_p),
        ("frame_scales", ctypes.c_void_p),
        ("pooled_scales", ctypes.c_void_p),
        ("num_segments", ctypes.c_int64),
        ("num_frames", ctypes.c_int64),
    )


class _QueryRow(ctypes.Structure):
    _fields_ = (
        ("frame_columns", ctypes.c_void_p),
        ("pooled_columns", ctypes.c_void_p),
        ("words_coarse", ctypes.c_void_p),
        ("words_first", ctypes.c_void_p),
        ("words_second", ctypes.c_void_p),
        ("num_frame_columns", ctypes.c_int32),
        ("num_pooled_columns", ctypes.c_int32),
        ("num_words", ctypes.c_int32),
    )


class _QuerySettings(ctypes.Structure):
    _fields_ = (
        ("frames_coarse", ctypes.c_void_p),
        ("frames_first", ctypes.c_void_p),
        ("frames_second", ctypes.c_void_p),
        ("temperature", ctypes.c_float),
        ("num_slots", ctypes.c_int32),
        ("scorer", ctypes.c_int32),
        ("store", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("pooled_width", ctypes.c_int32),
        ("num_rows", ctypes.c_int32),
        ("has_unit_frames", ctypes.c_int32),
    )


class NativeKernel:
    """The compiled kernel on one of its paths. Raises: ValueError for a path that this CPU or this build lacks."""

    takes_whole_blocks = False

    def __init__(self, path: PathName | None = None) -> None:
        library, why_not = _library()
        if library is None:
            raise ValueError(why_not)
        names = _paths(library)
        name = path if path is not None else next(iter(names))
        if name not in names:
            raise ValueError(f"the path {name!r} isn't there; this CPU has {', '.join(names)}")
        self.path: PathName = name
        """The instruction set."""
        self._library, self._number = library, names[name]

    @property
    def name(self) -> str:
        """ "native amx", "native avx512" and so on."""
        return f"native {self.path}"

    def prepare(self, panel: Panel) -> NativeQuery:
        """The panel, packed when it first meets a block of a store."""
        return NativeQuery(self._library, self._number, panel)

    def peak(self, store: Store, rounds: int) -> float:
        """Run the multiply-add of this path on registers alone -> how many multiply-adds were done. For benchmarks."""
        done: float = self._library.vidgrain_peak(self._number, _STORES[store], rounds)
        return done


class NativeQuery:
    """A panel that the compiled kernel scores. Thread-safe."""

    def __init__(self, library: ctypes.CDLL, path: int, panel: Panel) -> None:
        if panel.scorer not in _SCORERS:
            raise ShapeError(f"{panel.scorer!r} is no shared scorer", f"There are {', '.join(_SCORERS)}.")
        if not bool(panel.mask.any(axis=1).all()):
            raise ShapeError("a query row has no word", "Each needs at least one.")
        self._library, self._path, self._panel = library, path, panel
        self._lock = threading.Lock()
        self._packed: dict[tuple[int, Store], int] = {}

    def totals(self, block: FeatureBlock, rows: Rows | None = None) -> Array:
        """(Q, n): see PreparedQuery. Raises: IndexError for rows outside the block; ShapeError."""
        count = len(block) if rows is None else len(rows)
        out = np.empty((len(self._panel), count), np.float32)
        self._score(_SCORERS[self._panel.scorer], block, rows, count, _TOTALS, 0, out)
        return out

    def grains(self, block: FeatureBlock, rows: Rows) -> Array:
        """(Q, n, G): see PreparedQuery. Raises: IndexError, ShapeError."""
        parts = _NUM_PARTS.get(self._panel.scorer, 1)
        out = np.empty((len(self._panel), len(rows), parts), np.float32)
        self._score(_SCORERS[self._panel.scorer], block, rows, len(rows), _GRAINS, 0, out)
        return out

    def relevance(self, block: FeatureBlock, rows: Rows, num_slots: int) -> Array:
        """(Q, n, F): see PreparedQuery. Raises: IndexError, ShapeError."""
        out = np.empty((len(self._panel), len(rows), num_slots), np.float32)
        scorer = _CLIP_RELEVANCE if self._panel.parts_are_frames else _RELEVANCE
        self._score(scorer, block, rows, len(rows), _TOTALS, num_slots, out)
        return out

    def _score(
        self, scorer: int, block: FeatureBlock, rows: Rows | None, count: int, mode: int, slots: int, out: Array
    ) -> None:
        if count == 0 or len(self._panel) == 0:
            return
        features = _features_of(block, self._widths(scorer), scorer)
        chosen = None if rows is None else np.ascontiguousarray(rows, dtype=np.int64)
        outcome = self._library.vidgrain_score(
            self._path,
            self._prepared(scorer, block.store),
            ctypes.byref(features),
            None if chosen is None else chosen.ctypes.data,
            count,
            mode,
            slots,
            out.ctypes.data,
        )
        if outcome == 1:
            raise IndexError(f"rows outside a block of {len(block)} segments")
        if outcome == 2:
            raise IndexError(f"a segment's frames lie outside the {len(block.frames)} of the block")
        if outcome == 3:
            slots = _frame_slots(self._panel)
            raise ShapeError(f"a segment has more frames than the {slots} that the model was trained with")
        if outcome != 0:
            raise MemoryError("no room for scoring")

    def _widths(self, scorer: int) -> tuple[int, int]:
        panel = self._panel
        return panel.whole.shape[1], panel.whole_mixed.shape[1]

    def _prepared(self, scorer: int, store: Store) -> int:
        """The packed query's address."""
        with self._lock:
            found = self._packed.get((scorer, store))
            if found is None:
                found = self._packed[scorer, store] = self._pack(scorer, store)
            return found

    def _pack(self, scorer: int, store: Store) -> int:
        panel, mixing = self._panel, self._panel.mixing
        kept: list[Array] = []  # alive until the query is packed
        is_mixed = scorer == _SCORERS["aosm"]

        def address(array: Array | None) -> int | None:
            if array is None:
                return None
            kept.append(np.ascontiguousarray(array, dtype=np.float32))
            return int(kept[-1].ctypes.data)

        rows = (_QueryRow * len(panel))()
        for q in range(len(panel)):
            real = np.flatnonzero(panel.mask[q])
            frames, pooled = _columns(panel, q, real, scorer)
            num_words = len(frames) - 1 if scorer == _CLIP_RELEVANCE else len(real)
            words = (mixing.words_coarse, mixing.words_first, mixing.words_second)
            cut = [None if m is None or not is_mixed else m[np.ix_(real, real)] for m in words]
            rows[q] = _QueryRow(
                address(frames), address(pooled), *map(address, cut), len(frames), len(pooled), num_words
            )
        matrices = (mixing.frames_coarse, mixing.frames_first, mixing.frames_second) if is_mixed else (None,) * 3
        settings = _QuerySettings(
            *map(address, matrices),
            panel.temperature,
            _frame_slots(panel) if is_mixed else 0,
            scorer,
            _STORES[store],
            *self._widths(scorer),
            len(panel),
            int(panel.has_unit_frames),
        )
        packed: int | None = self._library.vidgrain_prepare(self._path, ctypes.byref(settings), rows)
        if packed is None:
            raise MemoryError("no room for a query")
        weakref.finalize(self, self._library.vidgrain_release, self._path, packed)
        return packed


def load() -> NativeKernel | None:
    """The kernel on the best path of this CPU; None without a file that fits, and `problem` says why."""
    return NativeKernel() if _library()[0] is not None else None


def problem() -> str:
    """Why `load` returns None, and the way out; empty where it doesn't."""
    return _library()[1]


def paths() -> list[PathName]:
    """The paths that this CPU has, best first; none without the compiled file."""
    library = _library()[0]
    return [] if library is None else list(_paths(library))


def read(memory: NDArray[Any]) -> None:
    """Read contiguous memory as fast as it comes and do nothing with it. For benchmarks. Raises: ValueError."""
    library, why_not = _library()
    if library is None:
        raise ValueError(why_not)
    library.vidgrain_read(memory.ctypes.data, memory.nbytes)


def open_library(folder: Path, version: int = ABI_VERSION) -> tuple[ctypes.CDLL | None, str]:
    """The compiled file of a folder, or None and why not; version: what it must have been built from."""
    library, why_not = open_compiled(folder, version)
    if library is not None:
        _declare(library)
    return library, why_not


@cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    return open_library(Path(__file__).parent)


def _declare(library: ctypes.CDLL) -> None:
    i32, i64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    for name, result, arguments in (
        ("num_paths", i32, ()),
        ("path_name", ctypes.c_char_p, (i32,)),
        ("has_path", i32, (i32,)),
        ("prepare", pointer, (i32, pointer, pointer)),
        ("release", None, (i32, pointer)),
        ("score", i32, (i32, pointer, pointer, pointer, i64, i32, i32, pointer)),
        ("peak", ctypes.c_double, (i32, i32, i64)),
        ("read", ctypes.c_uint64, (pointer, i64)),
    ):
        function = getattr(library, f"vidgrain_{name}")
        function.restype, function.argtypes = result, arguments


def _paths(library: ctypes.CDLL) -> dict[PathName, int]:
    return {
        library.vidgrain_path_name(number).decode(): number
        for number in range(library.vidgrain_num_paths())
        if library.vidgrain_has_path(number)
    }


def _columns(panel: Panel, q: int, real: Rows, scorer: int) -> tuple[Array, Array]:
    """What frames and what pooled rows are multiplied by: (C, D) and (C, P), in the order that scorers.h expects."""
    whole, mixed = panel.whole[q : q + 1], panel.whole_mixed[q : q + 1]
    parts, local = panel.parts[q, real], panel.parts_local[q, real]
    if scorer == _SCORERS["aosm"]:
        return np.concatenate([local, whole]), np.concatenate([parts, mixed])
    if scorer == _SCORERS["multi_grained"]:
        return np.concatenate([whole, local.mean(0)[None]]), np.concatenate([mixed, parts.mean(0)[None]])
    if scorer == _SCORERS["maxsim"]:
        return local, mixed[:0]
    if scorer == _SCORERS["mean"]:
        return whole[:0], mixed
    if scorer == _CLIP_RELEVANCE:
        return np.concatenate([parts, whole]), mixed[:0]
    return whole, mixed[:0]


def _frame_slots(panel: Panel) -> int:
    """The side of the matrices over frames, 0 without any. Raises: ShapeError if they differ."""
    mixing = panel.mixing
    found = [m for m in (mixing.frames_coarse, mixing.frames_first, mixing.frames_second) if m is not None]
    sides = {side for matrix in found for side in matrix.shape}
    if len(sides) > 1:
        raise ShapeError(f"matrices over frames of different sides: {sorted(sides)}")
    return sides.pop() if sides else 0


def _features_of(block: FeatureBlock, widths: tuple[int, int], scorer: int) -> _Features:
    """The block's addresses. Raises: ShapeError for arrays that aren't as FeatureBlock describes them."""
    width, pooled_width = widths
    reads_frames, reads_pooled = scorer != _SCORERS["mean"], scorer in (0, 1, 4)
    if reads_frames and block.frames.shape[1] != width:
        raise ShapeError(f"frames of {block.frames.shape[1]} numbers and a query of {width}")
    if reads_pooled and block.pooled.shape[1] != pooled_width:
        raise ShapeError(f"pooled vectors of {block.pooled.shape[1]} numbers and a query of {pooled_width}")
    scales: Sequence[Any] = (block.frame_scales, block.pooled_scales)
    stored = _DTYPES[block.store]
    expected = (
        (block.frames, stored, len(block.frames)),
        (block.pooled, stored, len(block)),
        (block.first_frame, np.int64, len(block)),
        (block.num_frames, np.int32, len(block)),
        *((s, np.float32, n) for s, n in zip(scales, (len(block.frames), len(block)), strict=True) if s is not None),
    )
    for array, dtype, length in expected:
        if array.dtype != dtype or len(array) != length or not array.flags.c_contiguous:
            raise ShapeError(f"a block's array is {array.dtype} {array.shape}, expected contiguous {dtype} of {length}")
    if (scales[0] is None) != (scales[1] is None):
        raise ShapeError("a block has scales for frames or for pooled vectors, but not for both")
    return _Features(
        block.frames.ctypes.data,
        block.pooled.ctypes.data,
        block.first_frame.ctypes.data,
        block.num_frames.ctypes.data,
        None if scales[0] is None else scales[0].ctypes.data,
        None if scales[1] is None else scales[1].ctypes.data,
        len(block.num_frames),
        len(block.frames),
    )
